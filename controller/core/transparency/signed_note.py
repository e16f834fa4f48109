"""Signed notes (https://c2sp.org/signed-note): a text, and Ed25519 signatures of it by named keys.

The keys' text forms are those of the same page, so that tools that aren't ours can verify with
them: ``NAME+HEX+BASE64`` for a public key, ``PRIVATE+KEY+NAME+HEX+BASE64`` for a private one. The
hex is the key's id: the first 4 bytes of a hash over name and key.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519: Final = b"\1"
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
ID_BYTES: Final = 4
#: A note of ours has one signature or two; witnesses may add theirs.
SIGNATURES_MAX: Final = 32
NOTE_MAX_BYTES: Final = 64 * 1024

_NAME = re.compile(r"[^\s+]+")
_SIGNATURE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_PRIVATE: Final = "PRIVATE+KEY+"


class BadNote(ValueError):
    """A text that isn't a signed note, or isn't a key; it says why."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Whom signatures are checked against."""

    name: str
    key: bytes

    @property
    def id(self) -> bytes:
        """The 4 bytes that a signature names its key by."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:ID_BYTES]

    def __str__(self) -> str:
        """Return the key as the text that tools take."""
        return f"{self.name}+{self.id.hex()}+{b64encode(ED25519 + self.key).decode()}"

    def made(self, signature: Signature, text: str) -> bool:
        """Tell whether a signature that names this key is one, of *text*."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature.data, text.encode())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """One line below a note. Nothing is known of it but whose it says it is."""

    name: str
    id: bytes
    data: bytes

    def __str__(self) -> str:
        """Return the line."""
        return f"— {self.name} {b64encode(self.id + self.data).decode()}"


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What signs. Its text form is a secret, and never shown by accident."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The key that checks what this one signs."""
        key = Ed25519PrivateKey.from_private_bytes(self.seed).public_key()
        return PublicKey(self.name, key.public_bytes_raw())

    def sign(self, text: str) -> Signature:
        """Sign a note's text; the same text gives the same signature."""
        data = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode())
        return Signature(self.name, self.public.id, data)

    def secret(self) -> str:
        """Return the key as the text that is kept."""
        return (
            f"{_PRIVATE}{self.name}+{self.public.id.hex()}"
            f"+{b64encode(ED25519 + self.seed).decode()}"
        )


@dataclass(frozen=True, slots=True)
class Note:
    """A text, ending in a newline, and its signatures."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        """Return the note as it is written."""
        return f"{self.text}\n" + "".join(f"{each}\n" for each in self.signatures)

    def signed_by(self, key: PublicKey) -> bool:
        """Tell whether that key signed it, and no signature that names the key is wrong."""
        named = [each for each in self.signatures if (each.name, each.id) == (key.name, key.id)]
        return bool(named) and all(key.made(each, self.text) for each in named)


def signed(text: str, keys: Iterable[PrivateKey]) -> Note:
    """Return a note of *text*, signed by each of *keys* in this order."""
    return Note(text, tuple(key.sign(text) for key in keys))


def parse_note(told: str) -> Note:
    """Read a signed note.

    Raises:
        BadNote: it isn't one.
    """
    if len(told) > NOTE_MAX_BYTES:
        raise BadNote("the note is too long")
    text, blank, below = told.rpartition("\n\n")
    if not blank or not text or not below.endswith("\n"):
        raise BadNote("no text, blank line and signatures")
    text += "\n"
    if any(ord(letter) < 32 and letter != "\n" for letter in text):
        raise BadNote("the text holds control characters")
    lines = below[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise BadNote("too many signatures")
    return Note(text, tuple(_signature(line) for line in lines))


def _signature(line: str) -> Signature:
    match = _SIGNATURE.fullmatch(line)
    data = _decoded(match[2]) if match else b""
    if match is None or len(data) <= ID_BYTES:
        raise BadNote("a line below the text is no signature")
    return Signature(match[1], data[:ID_BYTES], data[ID_BYTES:])


def parse_public(told: str) -> PublicKey:
    """Read a public key in its text form.

    Raises:
        BadNote: it isn't one of Ed25519.
    """
    name, _, rest = told.strip().partition("+")
    identity, _, encoded = rest.partition("+")
    key = _key_of(encoded)
    if _NAME.fullmatch(name) is None or key is None:
        raise BadNote("not the public key of a signed note (NAME+HEX+BASE64)")
    public = PublicKey(name, key)
    if identity != public.id.hex():
        raise BadNote("the key's id isn't that of its name and key")
    return public


def parse_private(told: str) -> PrivateKey:
    """Read a private key in its text form. The error repeats nothing of it.

    Raises:
        BadNote: it isn't one of Ed25519.
    """
    rest = told.strip()
    name, _, keyed = rest.removeprefix(_PRIVATE).partition("+")
    identity, _, encoded = keyed.partition("+")
    seed = _key_of(encoded)
    if rest.startswith(_PRIVATE) and _NAME.fullmatch(name) is not None and seed is not None:
        key = PrivateKey(name, seed)
        if identity == key.public.id.hex():
            return key
    raise BadNote("not the private key of a signed note")


def _key_of(encoded: str) -> bytes | None:
    data = _decoded(encoded)
    return data[1:] if data[:1] == ED25519 and len(data) == 1 + KEY_BYTES else None


def _decoded(encoded: str) -> bytes:
    """Return the bytes, or none where it isn't base64 in the one form that encodes them."""
    try:
        data = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if b64encode(data).decode() == encoded else b""
