"""Signed notes (https://c2sp.org/signed-note): a text with Ed25519 signatures of named keys.

Keys have the text forms of the same page, so that other tools can verify the notes:
``NAME+HEX+BASE64`` for a public key, ``PRIVATE+KEY+NAME+HEX+BASE64`` for a private key. The hex is
the key's id: the first 4 bytes of a hash over name and key.
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
ID_BYTES: Final = 4
#: Our notes have one or two signatures; witnesses may add more.
SIGNATURES_MAX: Final = 32
NOTE_MAX_BYTES: Final = 64 * 1024

_NAME = re.compile(r"[^\s+]+")
_SIGNATURE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_PRIVATE: Final = "PRIVATE+KEY+"


class BadNote(ValueError):
    """A text is not a signed note, or not a key; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A named key that verifies signatures."""

    name: str
    key: bytes

    @property
    def id(self) -> bytes:
        """The key's id in signatures: 4 bytes."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:ID_BYTES]

    def __str__(self) -> str:
        """Return the key's text form."""
        return f"{self.name}+{self.id.hex()}+{b64encode(ED25519 + self.key).decode()}"

    def has_signed(self, signature: Signature, text: str) -> bool:
        """Return True if a signature is the key's signature of *text*."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature.data, text.encode())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature line of a note, not yet verified."""

    name: str
    id: bytes
    data: bytes

    def __str__(self) -> str:
        return f"— {self.name} {b64encode(self.id + self.data).decode()}"


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A named key that signs. ``repr`` leaves out the seed, so that no log shows the secret."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The public key for the signatures of the private key."""
        key = Ed25519PrivateKey.from_private_bytes(self.seed).public_key()
        return PublicKey(self.name, key.public_bytes_raw())

    def sign(self, text: str) -> Signature:
        """Sign a note's text; the same text gives the same signature."""
        data = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode())
        return Signature(self.name, self.public.id, data)

    def secret(self) -> str:
        """Return the key's text form, for storage."""
        return (
            f"{_PRIVATE}{self.name}+{self.public.id.hex()}"
            f"+{b64encode(ED25519 + self.seed).decode()}"
        )


@dataclass(frozen=True, slots=True)
class Note:
    """A text, ending in a newline, with its signatures."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return f"{self.text}\n" + "".join(f"{each}\n" for each in self.signatures)

    def is_signed_by(self, key: PublicKey) -> bool:
        """Return True if the key signed the note, and every signature in its name is valid."""
        named = [each for each in self.signatures if (each.name, each.id) == (key.name, key.id)]
        return bool(named) and all(key.has_signed(each, self.text) for each in named)


def sign_note(text: str, keys: Iterable[PrivateKey]) -> Note:
    """Return a note of *text*, signed by each of *keys* in order."""
    return Note(text, tuple(key.sign(text) for key in keys))


def parse_note(content: str) -> Note:
    """Read a signed note.

    Raises:
        BadNote: the content is not a signed note.
    """
    if len(content) > NOTE_MAX_BYTES:
        raise BadNote("the note is too long")
    text, blank, below = content.rpartition("\n\n")
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


def parse_public(text: str) -> PublicKey:
    """Read a public key in its text form.

    Raises:
        BadNote: the text is not an Ed25519 key.
    """
    name, _, rest = text.strip().partition("+")
    identity, _, encoded = rest.partition("+")
    key = _key_of(encoded)
    if _NAME.fullmatch(name) is None or key is None:
        raise BadNote("not the public key of a signed note (NAME+HEX+BASE64)")
    public = PublicKey(name, key)
    if identity != public.id.hex():
        raise BadNote("the key's id isn't that of its name and key")
    return public


def parse_private(text: str) -> PrivateKey:
    """Read a private key in its text form.

    Raises:
        BadNote: the text is not an Ed25519 key. The message never repeats the text.
    """
    rest = text.strip()
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
    """Return the bytes of canonical base64; b"" for any other text."""
    try:
        data = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if b64encode(data).decode() == encoded else b""
