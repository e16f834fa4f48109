"""Headers of tar archives (POSIX.1-2008 pax, and ustar of GNU tar), read strictly. Pure.

Only files, folders and links have a meaning in the context of a build. Everything else is refused:
devices, sparse files, extended attributes, and numbers or records in an unexpected form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

BLOCK = 512
#: The most bytes of extended headers, or of a long name, before one entry.
EXTENDED_MAX = 64 * 1024
NAME_MAX, COMPONENT_MAX = 4096, 255

_POSIX, _GNU = b"ustar\x0000", b"ustar  \x00"
_OCTAL = re.compile(rb" *([0-7]+)[ \x00]*")
_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n\x00]{1,255})=")
_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)
_UTF8 = "ISO-IR 10646 2000 UTF-8"
#: Records without a meaning for an image: times and users of files in the context.
_DROPPED = frozenset(
    {"atime", "ctime", "mtime", "uid", "gid", "uname", "gname", "comment"}
    | {"SCHILY.dev", "SCHILY.ino", "SCHILY.nlink", "LIBARCHIVE.creationtime"}
)
_KINDS = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"7": "a contiguous file",
    b"S": "a sparse file",
    b"M": "a part of a file on another volume",
    b"V": "a volume label",
    b"D": "a folder's dump",
}


class BadContext(Exception):
    """An archive that can't be the context of a build. Shown to the caller: ``code`` and ``reason``."""

    def __init__(self, code: str, reason: str, remedy: str = "leave it out of the context") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.remedy = remedy


class TarKind(StrEnum):
    """The kinds of headers with a meaning."""

    FILE = "0"
    HARD_LINK = "1"
    SYMLINK = "2"
    FOLDER = "5"
    #: Records for the next entry, or (``g``) for all entries that follow.
    RECORDS = "x"
    GLOBAL_RECORDS = "g"
    #: The long name, or the long target of a link, of the next entry.
    LONG_NAME = "L"
    LONG_TARGET = "K"


@dataclass(frozen=True, slots=True)
class TarHeader:
    """One header, as it is written."""

    kind: TarKind
    name: bytes
    target: bytes
    mode: int
    #: Bytes of the content.
    size: int
    #: Seconds since the epoch.
    mtime: int


def parse_header(block: bytes) -> TarHeader | None:
    """Return the header of a block; None for a block of zeros, the end of an archive.

    Raises:
        BadContext: ``build.context`` or ``build.context-entry``.
    """
    if not any(block):
        return None
    magic = block[257:265]
    if magic not in (_POSIX, _GNU):
        raise BadContext(
            "build.context",
            "the context is no tar archive of a known form (ustar, pax or GNU)",
            "send a tar archive, plain or compressed by gzip, as `docker build DIR` does",
        )
    checked = block[:148] + b" " * 8 + block[156:]
    if sum(checked) != _octal(block[148:156], "its checksum"):
        raise BadContext("build.context", "a header has a wrong checksum", "send it again")
    name = _text(block[0:100])
    if magic == _POSIX and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    kind = block[156:157].replace(b"\x00", b"0")
    if kind not in {member.value.encode() for member in TarKind}:
        what = _KINDS.get(kind, f"an entry of type {kind!r}")
        raise BadContext("build.context-entry", f"{shown(name)} is {what}")
    return TarHeader(
        kind=TarKind(kind.decode()),
        name=name,
        target=_text(block[157:257]),
        mode=_octal(block[100:108], "its mode") & 0o7777,
        size=_octal(block[124:136], "its size"),
        mtime=_time(block[136:148]),
    )


def parse_records(data: bytes, *, every: bool = False) -> dict[str, str]:
    """Return the records ``path``, ``linkpath`` and ``size`` of an extended header.

    *every*: the records are for all entries that follow, and name no entry.

    Raises:
        BadContext: ``build.context`` or ``build.context-entry``.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        match = _RECORD.match(data, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise BadContext("build.context", "a pax record is malformed", "send it again")
        key = match[2].decode("utf-8", "replace")
        value = _decode(data[match.end() : end - 1])
        at = end
        if key in _DROPPED or (key == "hdrcharset" and value == _UTF8):
            continue
        if key not in ("path", "linkpath", "size") or every:
            why = "an entry has extended attributes or records that a build can't keep"
            raise BadContext("build.context-entry", f"{why}: {shown(match[2])}")
        if key in found:
            raise BadContext("build.context", f"{key} is recorded twice", "send it again")
        found[key] = value
    if "size" in found and not _NUMBER.fullmatch(found["size"]):
        raise BadContext("build.context", "a recorded size is no number", "send it again")
    return found


def canonical_name(raw: bytes) -> str:
    """Return the path of an entry below the context's root, '' for the root itself.

    Raises:
        BadContext: ``build.context-name``.
    """
    if raw.startswith(b"/"):
        raise BadContext("build.context-name", f"{shown(raw)} is an absolute path")
    if len(raw) > NAME_MAX:
        raise BadContext("build.context-name", f"{shown(raw)} is longer than {NAME_MAX} bytes")
    name = _decode(raw)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for part in parts:
        if part == "..":
            raise BadContext("build.context-name", f"{shown(raw)} leaves the context")
        if part.startswith(".wh."):
            raise BadContext(
                "build.context-name", f"{shown(raw)} would hide files of other layers (.wh.)"
            )
        if len(part.encode()) > COMPONENT_MAX or not part.isprintable():
            raise BadContext("build.context-name", f"{shown(raw)} is no usable name of a file")
    return "/".join(parts)


def shown(raw: bytes) -> str:
    """Return a name for a message: escaped, and cut."""
    text = raw.decode("utf-8", "backslashreplace")
    cut = text if len(text) <= 80 else f"{text[:80]}…"
    return repr(cut)


def _decode(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise BadContext("build.context-name", f"{shown(raw)} isn't UTF-8") from None
    if "\x00" in text:
        raise BadContext("build.context-name", f"{shown(raw)} has a zero byte")
    return text


def _text(field: bytes) -> bytes:
    return field.partition(b"\x00")[0]


def _octal(field: bytes, what: str) -> int:
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise BadContext(
            "build.context", f"a header's number ({what}) isn't octal", "send it again"
        )
    return int(match[1], 8)


def _time(field: bytes) -> int:
    """Return a time, which may have another form: then 0. Builds don't depend on it."""
    match = _OCTAL.fullmatch(field)
    return min(int(match[1], 8), 2**33 - 1) if match else 0
