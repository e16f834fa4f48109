"""Raw commits and tags: their fields, and the signature with the bytes that it covers.

Formats: gitformat-signature(5), git-cat-file(1). An object that two readers could read differently
is refused: a header that occurs twice, or text after the signature of a tag.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from controller.model.names import COMMIT_ID
from controller.model.quantities import format_instant

SignatureFormat = Literal["openpgp", "ssh", "x509"]
#: Longest commit or tag object, in bytes.
OBJECT_MAX = 1024 * 1024
_TEXT_MAX = 200
_PERSON = re.compile(r"(?P<who>[^<>\n]*<[^<>\n]*>) (?P<time>\d{1,11}) [+-]\d{4}")
_SIGNATURE_HEADERS = ("gpgsig", "gpgsig-sha256")
#: The first line of each kind of signature. X.509 has no verifier here.
_FORMATS: dict[bytes, SignatureFormat] = {
    b"-----BEGIN PGP SIGNATURE-----": "openpgp",
    b"-----BEGIN PGP MESSAGE-----": "openpgp",
    b"-----BEGIN SSH SIGNATURE-----": "ssh",
    b"-----BEGIN SIGNED MESSAGE-----": "x509",
}
_ONCE = frozenset(
    {"tree", "author", "committer", "object", "type", "tag", "tagger", *_SIGNATURE_HEADERS}
)


@dataclass(frozen=True, slots=True)
class DetachedSignature:
    """A signature, and the bytes that it covers."""

    format: SignatureFormat
    armored: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class CommitObject:
    """A commit. Times are RFC 3339; texts are printable and bounded."""

    tree: str
    parents: tuple[str, ...]
    author: str
    authored: str
    committed: str
    subject: str
    signature: DetachedSignature | None


@dataclass(frozen=True, slots=True)
class TagObject:
    """An annotated tag."""

    #: The id and the type of the tagged object.
    target: str
    kind: str
    name: str
    signature: DetachedSignature | None


def parse_commit(raw: bytes) -> CommitObject:
    """Parse a commit object.

    Raises:
        ValueError: *raw* is not a commit, or ambiguous.
    """
    headers, message = _split(raw)
    fields = _fields(headers)
    parents = tuple(_id(value) for name, value in headers if name == "parent")
    author, authored = _person(fields.get("author", b""))
    _, committed = _person(fields.get("committer", b""))
    return CommitObject(
        tree=_id(fields.get("tree", b"")),
        parents=parents,
        author=author,
        authored=authored,
        committed=committed,
        subject=printable(message.strip().partition(b"\n")[0]),
        signature=_commit_signature(raw, fields),
    )


def parse_tag(raw: bytes) -> TagObject:
    """Parse the object of an annotated tag.

    Raises:
        ValueError: *raw* is not a tag, or ambiguous.
    """
    headers, message = _split(raw)
    fields = _fields(headers)
    if any(name in fields for name in _SIGNATURE_HEADERS):
        raise ValueError("the tag has a signature in its header")
    begins = [
        match.start()
        for match in re.finditer(rb"^-----BEGIN [A-Z ]+-----$", message, re.MULTILINE)
        if match.group() in _FORMATS
    ]
    if len(begins) > 1:
        raise ValueError("the tag has more than one signature")
    signature = None
    if begins:
        cut = len(raw) - len(message) + begins[0]
        signature = _signature(raw[cut:], raw[:cut])
    return TagObject(
        target=_id(fields.get("object", b"")),
        kind=printable(fields.get("type", b"")),
        name=printable(fields.get("tag", b"")),
        signature=signature,
    )


def printable(text: bytes) -> str:
    """Return a text of the repository for people: one line, bounded, control characters escaped."""
    decoded = text[: 4 * _TEXT_MAX].decode("utf-8", "backslashreplace")
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decoded)
    return clean if len(clean) <= _TEXT_MAX else clean[: _TEXT_MAX - 1] + "…"


def _split(raw: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    """Return the headers, with continuation lines joined, and the message."""
    if len(raw) > OBJECT_MAX:
        raise ValueError(f"the object is longer than {OBJECT_MAX} bytes")
    head, blank, message = raw.partition(b"\n\n")
    if b"\0" in head:
        raise ValueError("a header has a NUL byte")
    headers: list[tuple[str, list[bytes]]] = []  # joined at the end: a value can have many lines
    for line in _lines(head if blank else head.rstrip(b"\n")):
        if line.startswith(b" "):
            if not headers:
                raise ValueError("the first header is a continuation")
            headers[-1][1].append(line[1:])
        else:
            name_bytes, space, value = line.partition(b" ")
            if not space:
                raise ValueError("a header has no value")
            headers.append((name_bytes.decode("ascii", "backslashreplace"), [value]))
    return [(name, b"\n".join(lines)) for name, lines in headers], message


def _lines(text: bytes) -> Iterator[bytes]:
    """Yield the lines of a text, as ``split`` returns them. Other threads can run in between."""
    at = 0
    while (end := text.find(b"\n", at)) >= 0:
        yield text[at:end]
        at = end + 1
    yield text[at:]


def _fields(headers: list[tuple[str, bytes]]) -> dict[str, bytes]:
    counts = Counter(name for name, _ in headers if name in _ONCE)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ValueError(f"the header {twice[0]} occurs twice")
    return dict(headers)


def _id(value: bytes) -> str:
    text = value.decode("ascii", "backslashreplace")
    if not COMMIT_ID.fullmatch(text):
        raise ValueError("an object id is missing or malformed")
    return text


def _person(value: bytes) -> tuple[str, str]:
    """Return name and address, and the time; a malformed line has neither time nor structure."""
    text = value.decode("utf-8", "backslashreplace")
    found = _PERSON.fullmatch(text)
    if found is None:
        return printable(value), ""
    return printable(found["who"].encode()), format_instant(float(found["time"]))


def _commit_signature(raw: bytes, fields: dict[str, bytes]) -> DetachedSignature | None:
    present = [name for name in _SIGNATURE_HEADERS if name in fields]
    if not present:
        return None
    if len(present) > 1:
        raise ValueError("the commit has signatures for two hash functions")
    if any(name.startswith("gpgsig") and name not in _SIGNATURE_HEADERS for name in fields):
        raise ValueError("the commit has an unknown header of a signature")
    return _signature(fields[present[0]] + b"\n", _without_header(raw, present[0]))


def _without_header(raw: bytes, name: str) -> bytes:
    """Return a commit without one header and its continuation lines: the signed bytes."""
    head, blank, message = raw.partition(b"\n\n")
    kept: list[bytes] = []
    inside = False
    for line in _lines(head):
        inside = line.startswith(b" ") if inside else line.startswith(name.encode() + b" ")
        if not inside:
            kept.append(line)
    return b"\n".join(kept) + blank + message


def _signature(armored: bytes, payload: bytes) -> DetachedSignature:
    lines = armored.rstrip(b"\n").split(b"\n")
    kind = _FORMATS.get(lines[0].rstrip())
    if kind is None:
        raise ValueError("the signature has an unknown form")
    end = lines[0].rstrip().replace(b"BEGIN", b"END")
    if lines[-1].rstrip() != end or sum(line.startswith(b"-----") for line in lines) != 2:
        raise ValueError("the signature has no end, or something follows it")
    return DetachedSignature(kind, armored, payload)
