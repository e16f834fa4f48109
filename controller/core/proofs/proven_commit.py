"""The verification of a proof: objects by hash, signature, signer, line of history, files of the commit.

The order of the checks: the hashes, the signature, the line of history, the tree. Nothing of a file is
parsed.

Git objects of a proof: each object is known by the hash of its bytes, never by a claimed name.

A proof is a sequence of objects in the form of ``git cat-file --batch``: a line ``ID KIND SIZE``, the
bytes, and a line feed. Object ids are those of gitformat-pack(5): the hash of ``KIND SIZE NUL BYTES``.

The keys that may sign: ``allowed_signers`` and ``revoked_keys`` of ssh-keygen(1), without I/O.

A line that can't be read whole permits nothing. Lines of certificate authorities permit nothing. A
list of revoked keys that can't be read whole permits nobody.

SSH signatures of commits: the form of OpenSSH's PROTOCOL.sshsig, checked without I/O.

Supported keys: Ed25519, ECDSA on the NIST curves, and RSA from 2048 bits with SHA-2. Certificates and
keys of hardware tokens are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from controller.core.git import commit_objects
from controller.model.names import short_commit
from controller.model.policy.sections import SignedSource

#: Longest proof, in bytes.
PROOF_MAX = 16 << 20
OBJECTS_MAX = 4 * commit_objects.FILES_MAX
#: Most entries of trees below the documents' folder: few trees can list each other without end.
ENTRIES_MAX = 4 * commit_objects.FILES_MAX
#: Longest tree, in bytes: that of a folder with the most files, with the longest names.
TREE_MAX = 4 << 20
_HEAD = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) (commit|tree|blob) (0|[1-9][0-9]{0,8})\n")
_HEAD_MAX = 90
_MODE = re.compile(rb"[1-7][0-9]{4,5}")
_TREE, _SUBMODULE = "040000", "160000"


class InvalidProof(ValueError):
    """The bytes prove nothing. The message says why; the code is an error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class OtherLine:
    """A signed commit that doesn't descend from the accepted one."""

    commit: str
    signer: str
    key: str
    #: From the commit: the time, and the first line of the message.
    committed: str
    subject: str


class NotNewer(InvalidProof):
    """The commit is signed, and isn't a descendant of the accepted one."""

    def __init__(self, message: str, line: OtherLine) -> None:
        super().__init__("proof.not-newer", message)
        self.line = line


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """The objects of a proof by id. Each id is the hash of the bytes."""

    #: The commits in the order of the proof.
    commits: Mapping[str, bytes]
    trees: Mapping[str, bytes]
    #: Parts of the proof's bytes: copies of many megabytes would stop the broker's loop.
    blobs: Mapping[str, memoryview]
    #: The length of an id in bytes.
    id_bytes: int = field(default=20)


def read_objects(data: bytes, *, hash_name: str) -> ObjectStore:
    """Read the objects of a proof, and check each id. *hash_name* is sha1 or sha256.

    Raises:
        InvalidProof: the form is wrong, or bytes have another id.
    """
    if len(data) > PROOF_MAX:
        raise InvalidProof("proof.too-large", f"it has more than {PROOF_MAX >> 20} MiB")
    commits: dict[str, bytes] = {}
    trees: dict[str, bytes] = {}
    blobs: dict[str, memoryview] = {}
    for count, (claimed, kind, content) in enumerate(_frames(data), 1):
        if count > OBJECTS_MAX:
            raise InvalidProof("proof.too-large", f"it has more than {OBJECTS_MAX} objects")
        if claimed != object_id(kind, content, hash_name=hash_name):
            raise InvalidProof("proof.object", f"the bytes of {kind} {claimed} have another hash")
        if kind == "blob":
            blobs[claimed] = content
            continue
        if len(content) > (commit_objects.OBJECT_MAX if kind == "commit" else TREE_MAX):
            raise InvalidProof("proof.too-large", f"the {kind} {claimed} is too long")
        (commits if kind == "commit" else trees)[claimed] = bytes(content)
    id_bytes = 32 if hash_name == "sha256" else 20
    return ObjectStore(commits, trees, blobs, id_bytes)


def object_id(kind: str, content: bytes | memoryview, *, hash_name: str) -> str:
    """Return the id of an object."""
    hashed = hashlib.new(hash_name, f"{kind} {len(content)}\0".encode(), usedforsecurity=False)
    hashed.update(content)
    return hashed.hexdigest()


def entries_below(
    store: ObjectStore, tree: str, folder: str
) -> tuple[commit_objects.TreeEntry, ...]:
    """Return the entries of all files below a folder of a commit's tree; '.' is the whole tree.

    Raises:
        InvalidProof: the folder, a tree or a file is missing, or there are too many entries.
    """
    parts = [] if folder == "." else folder.split("/")
    for part in parts:
        found = [each for each in _entries(store, tree) if each[1] == part.encode()]
        if len(found) != 1 or found[0][0] != _TREE:
            raise InvalidProof("proof.path", f"the commit has no folder {folder}")
        tree = found[0][2]
    prefix = b"" if folder == "." else folder.encode() + b"/"
    return tuple(_walk(store, tree, prefix, depth=len(parts), count=itertools.count(1)))


def has_folder(store: ObjectStore, tree: str, folder: str) -> bool:
    """Return True if a commit's tree has a folder.

    Raises:
        InvalidProof: a tree that leads to the folder is missing.
    """
    for part in folder.split("/"):
        found = [each for each in _entries(store, tree) if each[1] == part.encode()]
        if not found or found[0][0] != _TREE:
            return False
        tree = found[0][2]
    return True


def _walk(
    store: ObjectStore, tree: str, prefix: bytes, *, depth: int, count: Iterator[int]
) -> Iterator[commit_objects.TreeEntry]:
    if depth > commit_objects.DEPTH_MAX:
        raise InvalidProof(
            "proof.path", f"a folder lies deeper than {commit_objects.DEPTH_MAX} folders"
        )
    for mode, name, identifier in _entries(store, tree):
        if next(count) > ENTRIES_MAX:
            raise InvalidProof("proof.tree", f"its trees have more than {ENTRIES_MAX} entries")
        path = prefix + name
        if mode == _TREE:
            yield from _walk(store, identifier, path + b"/", depth=depth + 1, count=count)
        elif mode == _SUBMODULE:
            yield commit_objects.TreeEntry(mode, "commit", identifier, 0, path)
        elif identifier not in store.blobs:
            shown = path.decode("utf-8", "backslashreplace")[:120]
            raise InvalidProof("proof.incomplete", f"the file {shown!r} is missing")
        else:
            yield commit_objects.TreeEntry(
                mode, "blob", identifier, len(store.blobs[identifier]), path
            )


def _entries(store: ObjectStore, tree: str) -> Iterator[tuple[str, bytes, str]]:
    """Yield mode, name and id of each entry of a tree."""
    raw = store.trees.get(tree)
    if raw is None:
        raise InvalidProof("proof.incomplete", f"the tree {tree} is missing")
    at = 0
    while at < len(raw):
        space = raw.find(b" ", at, at + 7)
        end = raw.find(b"\0", space)
        mode, name = raw[at:space], raw[space + 1 : end]
        identifier = raw[end + 1 : end + 1 + store.id_bytes]
        is_whole = space > at and end > space + 1 and len(identifier) == store.id_bytes
        if not is_whole or not _MODE.fullmatch(mode) or b"/" in name:
            raise InvalidProof("proof.object", f"the tree {tree} is malformed")
        yield mode.decode().zfill(6), name, identifier.hex()
        at = end + 1 + store.id_bytes


def _frames(data: bytes) -> Iterator[tuple[str, str, memoryview]]:
    at, view = 0, memoryview(data)
    while at < len(data):
        head = _HEAD.match(data, at, at + _HEAD_MAX)
        if head is None:
            raise InvalidProof("proof.form", f"byte {at} begins no object")
        end = head.end() + int(head[3])
        if data[end : end + 1] != b"\n":
            raise InvalidProof("proof.form", f"the object at byte {at} is cut off")
        yield head[1].decode(), head[2].decode(), view[head.end() : end]
        at = end + 1


_MAGIC = b"SSHSIG"
_VERSION = 1
#: The namespace of Git's signatures (gitformat-signature(5)).
NAMESPACE = b"git"
RSA_BITS_MIN = 2048
_ARMOR = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]{1,16384})\n-----END SSH SIGNATURE-----\n*"
)
#: The hash of an ECDSA signature, by the type of the key.
_CURVES: dict[str, hashes.HashAlgorithm] = {
    "ecdsa-sha2-nistp256": hashes.SHA256(),
    "ecdsa-sha2-nistp384": hashes.SHA384(),
    "ecdsa-sha2-nistp521": hashes.SHA512(),
}
_RSA_HASHES: dict[str, hashes.HashAlgorithm] = {
    "rsa-sha2-256": hashes.SHA256(),
    "rsa-sha2-512": hashes.SHA512(),
}
#: The types of keys that can be checked.
KEY_TYPES = ("ssh-ed25519", "ssh-rsa", *_CURVES)


@dataclass(frozen=True, slots=True)
class SshPublicKey:
    """A public key of OpenSSH: type, and bytes of the wire form."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """The fingerprint, such as ``SHA256:…``."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"


def signer_of(armored: bytes, payload: bytes) -> SshPublicKey:
    """Return the key that signed *payload*.

    Raises:
        InvalidProof: the signature is malformed, unsupported or wrong.
    """
    found = _ARMOR.fullmatch(armored)
    if found is None:
        raise _malformed("it has another form")
    try:
        outer = _Reader(base64.b64decode(found[1].replace(b"\n", b""), validate=True))
    except (ValueError, binascii.Error):
        raise _malformed("it isn't base64") from None
    if outer.take(len(_MAGIC)) != _MAGIC or outer.number() != _VERSION:
        raise _malformed("it isn't of version 1")
    blob, namespace, reserved, hash_name, signature = (outer.text() for _ in range(5))
    outer.end()
    if namespace != NAMESPACE:
        raise InvalidProof("proof.signature", "the signature isn't one of Git")
    if hash_name not in {b"sha256", b"sha512"}:
        raise _malformed("it has an unknown hash function")
    message = hashlib.new(hash_name.decode(), payload).digest()
    signed = _MAGIC + b"".join(map(_packed, (namespace, reserved, hash_name, message)))
    inner = _Reader(signature)
    algorithm, value = inner.text().decode("ascii", "replace"), inner.text()
    inner.end()
    key = SshPublicKey(_Reader(blob).text().decode("ascii", "replace"), blob)
    _check(key, algorithm, value, signed)
    return key


def _check(key: SshPublicKey, algorithm: str, value: bytes, signed: bytes) -> None:
    if key.type not in KEY_TYPES:
        raise InvalidProof(
            "proof.key-unsupported", f"the signature's key has the type {key.type!r:.64}"
        )
    text = f"{key.type} {base64.b64encode(key.blob).decode()}".encode()
    try:
        public = load_ssh_public_key(text)
        if isinstance(public, Ed25519PublicKey) and algorithm == key.type:
            return public.verify(value, signed)
        if isinstance(public, EllipticCurvePublicKey) and algorithm == key.type:
            reader = _Reader(value)
            r, s = (int.from_bytes(reader.text(), "big", signed=True) for _ in range(2))
            reader.end()
            return public.verify(encode_dss_signature(r, s), signed, ECDSA(_CURVES[key.type]))
        if isinstance(public, RSAPublicKey) and algorithm in _RSA_HASHES:
            if public.key_size < RSA_BITS_MIN:
                raise InvalidProof("proof.key-unsupported", f"an RSA key of {public.key_size} bits")
            return public.verify(value, signed, padding.PKCS1v15(), _RSA_HASHES[algorithm])
    except InvalidSignature:
        raise InvalidProof("proof.signature", "the commit isn't what was signed") from None
    except (ValueError, UnsupportedAlgorithm, OverflowError) as error:
        if isinstance(error, InvalidProof):
            raise
        raise _malformed("its key or value can't be read") from None
    raise _malformed("its algorithm doesn't fit its key")


class _Reader:
    """Reads the wire form of SSH (RFC 4251, section 5)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise _malformed("it is cut off")
        self._at += count
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def text(self) -> bytes:
        return self.take(self.number())

    def end(self) -> None:
        if self._at != len(self._data):
            raise _malformed("something follows it")


def _packed(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


def _malformed(why: str) -> InvalidProof:
    return InvalidProof("proof.signature", f"the signature can't be read: {why}")


FILE_MAX = 256 * 1024
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?(?:,|$)')
_INSTANT = re.compile(r"\d{8}(?:\d{4}(?:\d{2})?)?Z?", re.ASCII)
_KEY_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_NAMESPACES = frozenset({"git", "*"})


@dataclass(frozen=True, slots=True)
class SignerFiles:
    """The contents of the files of a folder of keys."""

    allowed: bytes = b""
    revoked: bytes = b""


@dataclass(frozen=True, slots=True)
class _Signer:
    """A line of ``allowed_signers``. Times are seconds since the epoch."""

    name: str
    key: bytes
    after: float | None
    before: float | None


@dataclass(frozen=True, slots=True)
class Signers:
    """The permitted keys, and the revoked keys."""

    lines: tuple[_Signer, ...]
    revoked: frozenset[bytes]

    @property
    def revoked_fingerprints(self) -> frozenset[str]:
        """The fingerprints of the revoked keys."""
        return frozenset(SshPublicKey("", blob).fingerprint for blob in self.revoked)

    @classmethod
    def read(cls, files: SignerFiles) -> Signers:
        """Read the files of a folder of keys.

        Raises:
            InvalidProof: the list of revoked keys can't be read.
        """
        lines = files.allowed.decode("utf-8", "replace").split("\n")
        return cls(
            tuple(each for line in lines if (each := _read_line(line)) is not None),
            frozenset(_read_revoked(files.revoked)),
        )

    def name_of(self, key: SshPublicKey, *, now: float) -> str:
        """Return the name of the key's holder.

        Raises:
            InvalidProof: nobody with the key may sign now.
        """
        if key.blob in self.revoked:
            raise InvalidProof("proof.key-revoked", f"the key {key.fingerprint} is revoked")
        known = [line for line in self.lines if line.key == key.blob]
        if not known:
            raise InvalidProof(
                "proof.key-unknown", f"nobody who may sign has the key {key.fingerprint}"
            )
        for line in known:
            is_late = line.before is not None and now > line.before
            is_early = line.after is not None and now < line.after
            if not is_late and not is_early:
                return line.name
        raise InvalidProof("proof.key-expired", f"the key {key.fingerprint} isn't valid now")


def _read_line(line: str) -> _Signer | None:
    words = _WORD.findall(line)
    if line.lstrip().startswith("#") or len(words) < 3 or _WORD.sub("", line).strip():
        return None
    names = [name for name in words[0].strip('"').split(",") if name and name[0] not in "!-"]
    at = 1 if words[1] in KEY_TYPES else 2
    key = _key(words[at : at + 2])
    options = {} if at == 1 else _options(words[1])
    if not names or key is None or options is None or not options.keys() <= _KNOWN:
        return None
    namespaces = options.get("namespaces")
    if namespaces is not None and not _has_git(namespaces.split(",")):
        return None
    try:
        after, before = (_instant(options.get(name)) for name in ("valid-after", "valid-before"))
    except ValueError:
        return None
    return _Signer(names[0], key, after, before)


def _has_git(patterns: list[str]) -> bool:
    """Return True if a list of namespaces has Git's. A list with a negated pattern has none."""
    return not any("!" in each for each in patterns) and not _NAMESPACES.isdisjoint(patterns)


_KNOWN = frozenset({"namespaces", "valid-after", "valid-before"})


def _options(word: str) -> dict[str, str] | None:
    """Return the options of a line; None for an unreadable option, or an option without a value."""
    options: dict[str, str] = {}
    at = 0
    while at < len(word):
        found = _OPTION.match(word, at)
        if found is None or found[2] is None or found[1] in options:
            return None
        options[found[1]] = found[2]
        at = found.end()
    return options


def _instant(text: str | None) -> float | None:
    """Return seconds since the epoch. A time without ``Z`` is in UTC too."""
    if text is None:
        return None
    if not _INSTANT.fullmatch(text):
        raise ValueError("no instant")
    digits = text.rstrip("Z")
    return datetime.strptime(digits, _KEY_FORMATS[len(digits)]).replace(tzinfo=UTC).timestamp()


def _key(words: list[str]) -> bytes | None:
    """Return the wire form of a key; None for another text."""
    if len(words) != 2 or words[0] not in KEY_TYPES:
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (ValueError, binascii.Error):
        return None
    head = len(words[0]).to_bytes(4, "big") + words[0].encode()
    return blob if blob.startswith(head) else None


def _read_revoked(content: bytes) -> Iterator[bytes]:
    for line in content.decode("utf-8", "replace").split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _key(line.split()[:2])
        if key is None:
            raise InvalidProof(
                "proof.revoked-unreadable",
                "revoked_keys has a line that is no public key; key revocation lists are unsupported",
            )
        yield key


_FORMATS = {"openpgp": "OpenPGP", "x509": "X.509"}


@dataclass(frozen=True, slots=True)
class ProvenFile:
    """A file of the documents' folder: blob and bytes."""

    blob: str
    #: A part of the proof's bytes. Empty after the rendering.
    content: memoryview = field(default=memoryview(b""), repr=False)


@dataclass(frozen=True, slots=True)
class ProvenCommit:
    """A verified commit of a source."""

    source: str
    commit: str
    #: The name in ``allowed_signers``, and the fingerprint of the key.
    signer: str
    key: str
    #: The files below the documents' folder, by their paths in that folder.
    files: dict[str, ProvenFile] = field(default_factory=dict)
    #: The files of the charts, by their paths in the folder of the charts beside the documents' folder.
    charts: dict[str, ProvenFile] = field(default_factory=dict)
    #: The fingerprints of the keys that were revoked at the verification.
    revoked: frozenset[str] = frozenset()


def prove(
    data: bytes, rule: SignedSource, *, accepted: str, signers: Signers, now: float
) -> ProvenCommit:
    """Verify the proof of a commit. Its first object is the commit.

    Args:
        rule: the source's rule in the policy.
        accepted: the newest accepted commit; the proven one must be a descendant, or the same.
        signers: the keys that may sign.
        now: seconds since the epoch.

    Raises:
        InvalidProof: any check failed.
    """
    hash_name = "sha256" if len(rule.since) == 64 else "sha1"
    store = read_objects(data, hash_name=hash_name)
    if not store.commits:
        raise InvalidProof("proof.incomplete", "it has no commit")
    commit = next(iter(store.commits))
    try:
        commits = {name: commit_objects.parse_commit(raw) for name, raw in store.commits.items()}
    except ValueError as error:
        raise InvalidProof("proof.object", f"a commit can't be read: {error}") from error
    signature = commits[commit].signature
    if signature is None:
        raise InvalidProof("proof.unsigned", f"the commit {short_commit(commit)} has no signature")
    if signature.format != "ssh":
        raise InvalidProof(
            "proof.key-unsupported",
            f"the commit is signed with {_FORMATS[signature.format]}, and the broker verifies "
            "signatures by SSH alone (git config gpg.format ssh)",
        )
    key = signer_of(signature.armored, signature.payload)
    signer = signers.name_of(key, now=now)
    if not _descends(commits, commit, accepted):
        tip = commits[commit]
        line = OtherLine(commit, signer, key.fingerprint, tip.committed, tip.subject)
        reason = (
            f"no line of the proof leads from {short_commit(commit)} to {short_commit(accepted)}"
        )
        raise NotNewer(reason, line)
    tree = commits[commit].tree
    return ProvenCommit(
        rule.source,
        commit,
        signer,
        key.fingerprint,
        _files(store, tree, rule.path),
        _charts(store, tree, rule.path),
        signers.revoked_fingerprints,
    )


def _descends(commits: dict[str, commit_objects.CommitObject], commit: str, ancestor: str) -> bool:
    """Return True if *ancestor* is *commit*, or is reached over the parents."""
    waiting, seen = [commit], {commit}
    while waiting:
        name = waiting.pop()
        if name == ancestor:
            return True
        parents = commits[name].parents if name in commits else ()
        waiting += [parent for parent in dict.fromkeys(parents) if parent not in seen]
        seen |= set(parents)
    return False


def _charts(store: ObjectStore, tree: str, path: str) -> dict[str, ProvenFile]:
    """Return the files of the charts; none for a commit without charts."""
    for folder in commit_objects.folders_of(path)[1:]:
        if has_folder(store, tree, folder):
            return _files(store, tree, folder)
    return {}


def _files(store: ObjectStore, tree: str, path: str) -> dict[str, ProvenFile]:
    listed = commit_objects.select_files(entries_below(store, tree, path), path=path)
    if isinstance(listed, commit_objects.Refusal):
        raise InvalidProof("proof.tree", listed.message)
    prefix = "" if path == "." else f"{path}/"
    return {
        file.path.removeprefix(prefix): ProvenFile(file.object_id, store.blobs[file.object_id])
        for file in listed.files
    }
