"""Tamper evidence: Merkle trees, signed notes, checkpoints (C2SP).

Merkle trees of RFC 6962 (section 2.1), grown from left to right in little memory.

A leaf is a line of the journal. A tree is stored as the hashes of its largest perfect subtrees: as
many as the tree's size has binary ones. These hashes suffice to append leaves, to join a range that
was hashed separately, and to compute the root.

Signed notes (https://c2sp.org/signed-note): a text with Ed25519 signatures of named keys.

Keys have the text forms of the same page, so that other tools can verify the notes:
``NAME+HEX+BASE64`` for a public key, ``PRIVATE+KEY+NAME+HEX+BASE64`` for a private key. The hex is
the key's id: the first 4 bytes of a hash over name and key.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

HASH_BYTES = 32


def leaf_hash(line: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\0" + line).digest()


@dataclass(frozen=True, slots=True)
class Range:
    """The leaves ``begin <= index < end`` of a tree, as hashes of perfect subtrees, left to right.

    ``begin`` and ``end`` determine these subtrees: each is the largest subtree that is aligned to
    its own size and lies within the range.
    """

    begin: int = 0
    end: int = 0
    hashes: tuple[bytes, ...] = ()

    def extend(self, leaves: Iterable[bytes]) -> Range:
        """Return the range with the hashes of further leaves at its right."""
        added = list(leaves)
        if len(added) > 1:
            return self.join(_range_of(self.end, added))
        return self._append((1,) * len(added), added)

    def join(self, right: Range) -> Range:
        """Return both ranges joined; *right* begins at the end of the left range."""
        assert right.begin == self.end, f"{right.begin} doesn't follow {self.end}"
        return self._append(_spans(right.begin, right.end), right.hashes)

    def _append(self, spans: Iterable[int], hashes: Iterable[bytes]) -> Range:
        """Append perfect subtrees at the right; *spans* are their numbers of leaves."""
        begin, end = self.begin, self.end
        stack = list(self.hashes)
        for leaves, node in zip(spans, hashes, strict=True):
            span = leaves
            end += span
            top = node
            # A subtree of twice the size ends here if it is aligned and begins within the range.
            while not end % (2 * span) and end - 2 * span >= begin:
                span *= 2
                top = _node(stack.pop(), top)
            stack.append(top)
        return Range(begin, end, tuple(stack))

    @property
    def root(self) -> bytes:
        """The root of the tree; the range must begin at the first leaf."""
        assert self.begin == 0, "a root is of a whole tree"
        if not self.hashes:
            return hashlib.sha256(b"").digest()
        *left, root = self.hashes
        for node in reversed(left):
            root = _node(node, root)
        return root

    def beginnings(self) -> Iterator[Range]:
        """Yield this tree, and the smaller trees whose hashes are among its own."""
        assert self.begin == 0, "a beginning is of a whole tree"
        end = 0
        for count, span in enumerate(_spans(0, self.end)):
            yield Range(0, end, self.hashes[:count])
            end += span
        yield self


def tree_of(size: int, hashes: tuple[bytes, ...]) -> Range:
    """Return the tree of *size* leaves from its stored hashes.

    Raises:
        ValueError: the hashes do not fit the size.
    """
    if len(hashes) != size.bit_count() or any(len(each) != HASH_BYTES for each in hashes):
        raise ValueError(f"not the hashes of a tree of {size} leaves")
    return Range(0, size, hashes)


def _range_of(begin: int, leaves: list[bytes]) -> Range:
    """Return a range of leaves, hashed level by level, which is faster than leaf by leaf."""
    left: list[bytes] = []
    right: list[bytes] = []
    at, span, level = begin, 1, leaves
    while level:
        # A node without a partner in the range, at either end, is a subtree of the result.
        if at % (2 * span):
            left.append(level[0])
            level = level[1:]
            at += span
        if len(level) % 2:
            right.append(level[-1])
        level = list(map(_node, level[::2], level[1::2]))
        span *= 2
    return Range(begin, begin + len(leaves), (*left, *reversed(right)))


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _spans(begin: int, end: int) -> Iterator[int]:
    while begin < end:
        largest = 1 << ((end - begin).bit_length() - 1)
        span = min(begin & -begin, largest) if begin else largest
        yield span
        begin += span


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
