"""The keys that may sign: ``allowed_signers`` and ``revoked_keys`` of ssh-keygen(1), without I/O.

A line that can't be read whole permits nothing. Lines of certificate authorities permit nothing. A
list of revoked keys that can't be read whole permits nobody.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from controller.core.proofs.git_objects import InvalidProof
from controller.core.proofs.ssh_signature import KEY_TYPES, SshPublicKey

FILE_MAX = 256 * 1024
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?(?:,|$)')
_INSTANT = re.compile(r"\d{8}(?:\d{4}(?:\d{2})?)?Z?", re.ASCII)
_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
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
    return datetime.strptime(digits, _FORMATS[len(digits)]).replace(tzinfo=UTC).timestamp()


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
