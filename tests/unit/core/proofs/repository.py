"""A repository in memory: real objects, and commits signed with real keys."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from controller.core.proofs.proven_commit import SignerFiles, object_id
from controller.model.policy.sections import SignedSource

PERSON = "Alice <alice@example.org> 1790000000 +0000"


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class Key:
    """An Ed25519 key of a person."""

    def __init__(self, seed: int) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.blob = _text(b"ssh-ed25519") + _text(raw)

    @property
    def public(self) -> str:
        return f"ssh-ed25519 {base64.b64encode(self.blob).decode()}"

    def sign(self, payload: bytes, *, namespace: bytes = b"git") -> bytes:
        head = _text(namespace) + _text(b"") + _text(b"sha512")
        signed = b"SSHSIG" + head + _text(hashlib.sha512(payload).digest())
        signature = _text(b"ssh-ed25519") + _text(self._private.sign(signed))
        outer = b"SSHSIG" + (1).to_bytes(4, "big") + _text(self.blob) + head + _text(signature)
        text = base64.b64encode(outer).decode()
        lines = [text[at : at + 70] for at in range(0, len(text), 70)]
        return "\n".join(
            ["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----"]
        ).encode()


ALICE, MALLORY = Key(1), Key(2)


@dataclass
class Repository:
    """Objects by id. *hash_name* is sha1 or sha256."""

    hash_name: str = "sha1"
    objects: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def add(self, kind: str, content: bytes) -> str:
        name = object_id(kind, content, hash_name=self.hash_name)
        self.objects[name] = kind, content
        return name

    def tree(self, files: Mapping[str, bytes], *, mode: str = "100644") -> str:
        folders: dict[str, dict[str, bytes]] = {}
        entries: list[tuple[str, str, str]] = []
        for path, content in files.items():
            head, slash, rest = path.partition("/")
            if slash:
                folders.setdefault(head, {})[rest] = content
            else:
                entries.append((head, mode, self.add("blob", content)))
        entries += [(name, "40000", self.tree(each)) for name, each in folders.items()]
        entries.sort(key=lambda each: each[0] + ("/" if each[1] == "40000" else ""))
        raw = b"".join(
            f"{mode} {name}\0".encode() + bytes.fromhex(identifier)
            for name, mode, identifier in entries
        )
        return self.add("tree", raw)

    def commit(
        self,
        files: Mapping[str, bytes],
        *parents: str,
        key: Key | None = ALICE,
        namespace: bytes = b"git",
        message: str = "deploy",
    ) -> str:
        tree = self.tree(files)
        head = "".join(f"parent {parent}\n" for parent in parents)
        headers = f"tree {tree}\n{head}author {PERSON}\ncommitter {PERSON}\n"
        payload = f"{headers}\n{message}\n".encode()
        if key is None:
            return self.add("commit", payload)
        armored = key.sign(payload, namespace=namespace).replace(b"\n", b"\n ")
        name = b"gpgsig" if self.hash_name == "sha1" else b"gpgsig-sha256"
        raw = headers.encode() + name + b" " + armored + f"\n\n{message}\n".encode()
        return self.add("commit", raw)

    def proof(self, commit: str, *, without: Iterable[str] = ()) -> bytes:
        """Return all objects, the commit first."""
        names = [commit, *(name for name in self.objects if name != commit)]
        left_out = set(without)
        return b"".join(frame(name, *self.objects[name]) for name in names if name not in left_out)


def frame(name: str, kind: str, content: bytes) -> bytes:
    return f"{name} {kind} {len(content)}\n".encode() + content + b"\n"


def rule(since: str, *, path: str = "deploy", source: str = "shop") -> SignedSource:
    return SignedSource.model_validate(
        {
            "source": source,
            "namespaces": (source,),
            "require": "signed",
            "keys": "release",
            "path": path,
            "since": since,
        }
    )


def signer_files(*keys: Key, revoked: Iterable[Key] = (), options: str = "") -> SignerFiles:
    lines = [f"alice@example.org {options}{key.public}" for key in keys or (ALICE,)]
    return SignerFiles("\n".join(lines).encode(), "\n".join(key.public for key in revoked).encode())
