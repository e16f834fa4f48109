"""The context of a build as an archive: read from the uploaded file, and written anew for the engine.

Nothing is ever unpacked on the host. The engine gets another archive, made entry by entry from what
was understood: sorted, with plain headers, and with the contents from the uploaded file.

Headers of tar archives (POSIX.1-2008 pax, and ustar of GNU tar), read strictly. Pure.

Only files, folders and links have a meaning in the context of a build. Everything else is refused:
devices, sparse files, extended attributes, and numbers or records in an unexpected form.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO

from controller.core.builds import context as contexts

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
    """A header of an archive, for writing."""

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


PIECE = 256 * 1024
#: The most bytes of all names together: they are kept in memory.
NAMES_MAX = 16 << 20
DOCKERFILE_MAX = 256 * 1024
#: How many links one path may pass, as in the kernel.
LINKS_MAX = 40
#: How many parts the paths of all links may have together: a loop of links costs no more.
STEPS_MAX = 1_000_000
#: What ADD unpacks elsewhere: gzip, bzip2, xz and zstd, also behind a frame to skip, and tar archives.
_ARCHIVE = re.compile(
    rb"\x1f\x8b|BZh|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18|.{257}ustar", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """Bounds of a context: bytes of all contents, and entries."""

    bytes: int
    entries: int

    @property
    def archive_bytes(self) -> int:
        """The most bytes of the archive: contents, headers, padding, and the end."""
        return self.bytes + self.entries * 4 * BLOCK + NAMES_MAX + (1 << 20)


@dataclass(frozen=True, slots=True)
class ContextEntry:
    """One file, folder or symbolic link of a context."""

    name: str
    kind: TarKind
    mode: int
    mtime: int
    #: The target of a link.
    target: str = ""
    #: Where the content is in the uploaded file, and its bytes.
    offset: int = 0
    size: int = 0
    #: The SHA-256 of the content, in hex.
    sha256: str = ""
    is_archive: bool = False


@dataclass(slots=True)
class JudgedContext:
    """A context that was read."""

    file: BinaryIO = field(repr=False)
    entries: dict[str, ContextEntry]
    #: Contents that replace those of the file, by name.
    replaced: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def digest(self) -> str:
        """The digest of names, modes, targets and contents, as the controller computes it."""
        return contexts.digest(
            contexts.ContextFile(
                each.name, contexts.EntryKind(each.kind.value), each.mode, each.target, each.sha256
            )
            for each in self.entries.values()
        )

    @property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(each.size for each in self.entries.values())

    def ordered(self) -> list[ContextEntry]:
        """Return the entries by name; a folder comes before its contents."""
        return [self.entries[name] for name in sorted(self.entries)]

    def text(self, name: str) -> str | None:
        """Return the text of a file; None if there is no such file.

        Raises:
            BadContext: ``build.dockerfile``.
        """
        entry = self.entries.get(name)
        if entry is None or entry.kind is not TarKind.FILE:
            return None
        remedy = "write it as plain text"
        if entry.size > DOCKERFILE_MAX:
            raise BadContext(
                "build.dockerfile", f"{name} has more than {DOCKERFILE_MAX} bytes", remedy
            )
        self.file.seek(entry.offset)
        try:
            text = self.file.read(entry.size).decode()
        except UnicodeDecodeError:
            raise BadContext("build.dockerfile", f"{name} isn't UTF-8", remedy) from None
        if "\x00" in text:
            raise BadContext("build.dockerfile", f"{name} has a zero byte", remedy)
        return text

    def length(self) -> int:
        """Return the bytes of the archive that ``pieces`` yields."""
        total = 2 * BLOCK
        for each in self.ordered():
            size = self._size(each)
            total += len(_header(each, size)) + size + _padding(size)
        return total

    def pieces(self) -> Iterator[bytes]:
        """Yield the archive for the engine."""
        for each in self.ordered():
            size = self._size(each)
            yield _header(each, size)
            if (content := self.replaced.get(each.name)) is not None:
                yield content
            elif each.kind is TarKind.FILE:
                yield from _read(self.file, each.offset, size)
            if padding := _padding(size):
                yield bytes(padding)
        yield bytes(2 * BLOCK)

    def _size(self, entry: ContextEntry) -> int:
        content = self.replaced.get(entry.name)
        return entry.size if content is None else len(content)


def read_context(file: BinaryIO, limits: ContextLimits) -> JudgedContext:
    """Read an uploaded archive, from its first byte. Blocks.

    Raises:
        BadContext: the archive isn't understood, or not admitted in a context.
    """
    reader = _Reader(file, limits)
    reader.read()
    context = JudgedContext(file, reader.entries)
    _check_links(context.entries)
    return context


class _Reader:
    def __init__(self, file: BinaryIO, limits: ContextLimits) -> None:
        self._file = file
        self._limits = limits
        self._bytes = self._names = self._headers = 0
        self.entries: dict[str, ContextEntry] = {}

    def read(self) -> None:
        self._file.seek(0)
        records: dict[str, str] = {}
        while (header := self._next_header()) is not None:
            match header.kind:
                case TarKind.RECORDS | TarKind.GLOBAL_RECORDS:
                    every = header.kind is TarKind.GLOBAL_RECORDS
                    found = parse_records(self._extended(header), every=every)
                case TarKind.LONG_NAME:
                    found = {"path": self._long(header)}
                case TarKind.LONG_TARGET:
                    found = {"linkpath": self._long(header)}
                case _:
                    self._add(header, records)
                    records = {}
                    continue
            if found.keys() & records.keys():
                raise BadContext("build.context", "an entry has two names", "send it again")
            records |= found
        while rest := self._file.read(PIECE):
            if any(rest):
                raise BadContext("build.context", "data follows the archive's end", "send it again")

    def _next_header(self) -> TarHeader | None:
        # An entry has two extended headers at most.
        self._headers += 1
        if self._headers > 3 * self._limits.entries + 8:
            raise self._too_many()
        return parse_header(self._exactly(BLOCK))

    def _long(self, header: TarHeader) -> str:
        raw = self._extended(header)
        return raw.removesuffix(b"\x00").decode("utf-8", "surrogateescape")

    def _extended(self, header: TarHeader) -> bytes:
        if header.size > EXTENDED_MAX:
            raise BadContext(
                "build.context", f"an extended header has more than {EXTENDED_MAX} bytes"
            )
        data = self._exactly(header.size)
        self._exactly(_padding(header.size))
        return data

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise BadContext("build.context", "the archive breaks off", "send it again")
        return data

    def _add(self, header: TarHeader, records: dict[str, str]) -> None:
        raw = _bytes(records.get("path")) or header.name
        name = canonical_name(raw)
        size = int(records["size"]) if "size" in records else header.size
        if header.kind is not TarKind.FILE and size:
            raise BadContext("build.context", f"{shown(raw)} is no file, and has a content")
        target = _bytes(records.get("linkpath")) or header.target
        self._names += len(raw) + len(target)
        if len(self.entries) >= self._limits.entries or self._names > NAMES_MAX:
            raise self._too_many()
        if not name:
            if header.kind is not TarKind.FOLDER:
                raise BadContext("build.context-name", "an entry without a name is no folder")
            return
        known = self.entries.get(name)
        if known is not None and not known.kind is header.kind is TarKind.FOLDER:
            raise BadContext(
                "build.context", f"{shown(raw)} is in the archive twice", "send it again"
            )
        self.entries[name] = self._entry(header, name, size, target)

    def _entry(self, header: TarHeader, name: str, size: int, target: bytes) -> ContextEntry:
        match header.kind:
            case TarKind.FILE:
                self._count(size)
                return self._file_entry(header, name, size)
            case TarKind.HARD_LINK:
                known = self.entries.get(canonical_name(target))
                if known is None or known.kind is not TarKind.FILE:
                    raise BadContext(
                        "build.context-link",
                        f"the hard link {shown(name.encode())} leads to no file before it",
                    )
                self._count(known.size)
                return ContextEntry(
                    name=name,
                    kind=TarKind.FILE,
                    mode=known.mode,
                    mtime=known.mtime,
                    offset=known.offset,
                    size=known.size,
                    sha256=known.sha256,
                    is_archive=known.is_archive,
                )
            case TarKind.SYMLINK:
                return ContextEntry(
                    name, TarKind.SYMLINK, 0o777, header.mtime, target=_target(name, target)
                )
            case _:
                return ContextEntry(name, TarKind.FOLDER, header.mode, header.mtime)

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limits.bytes:
            raise BadContext(
                "build.context-size",
                f"the context has more than {self._limits.bytes} bytes",
                "list what the build doesn't need in .dockerignore",
            )

    def _file_entry(self, header: TarHeader, name: str, size: int) -> ContextEntry:
        offset, hashed, begin = self._file.tell(), hashlib.sha256(), b""
        for piece in _read(self._file, offset, size):
            begin = begin or piece[:BLOCK]
            hashed.update(piece)
        self._exactly(_padding(size))
        return ContextEntry(
            name=name,
            kind=TarKind.FILE,
            mode=header.mode,
            mtime=header.mtime,
            offset=offset,
            size=size,
            sha256=hashed.hexdigest(),
            is_archive=_ARCHIVE.match(begin) is not None,
        )

    def _too_many(self) -> BadContext:
        return BadContext(
            "build.context-size",
            f"the context has more than {self._limits.entries} entries, or too long names",
            "list what the build doesn't need in .dockerignore",
        )


def _bytes(text: str | None) -> bytes:
    return b"" if text is None else text.encode("utf-8", "surrogateescape")


def _read(file: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    file.seek(offset)
    while size > 0:
        piece = file.read(min(PIECE, size))
        if not piece:
            raise BadContext("build.context", "the archive breaks off", "send it again")
        size -= len(piece)
        yield piece


def _padding(size: int) -> int:
    return -size % BLOCK


def _header(entry: ContextEntry, size: int) -> bytes:
    info = tarfile.TarInfo(entry.name)
    info.type, info.mode, info.mtime = entry.kind.value.encode(), entry.mode, entry.mtime
    info.linkname, info.size = entry.target, size
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _target(name: str, raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(raw) > 1023 or not text.isprintable() or text.startswith("/"):
        raise BadContext(
            "build.context-link",
            f"the link {shown(name.encode())} leads to {shown(raw)}, outside the context",
        )
    return text


def _check_links(entries: dict[str, ContextEntry]) -> None:
    """Raise BadContext for an entry below a file or a link, and for a link that leads out."""
    steps = STEPS_MAX
    for entry in entries.values():
        parent = entry.name.rpartition("/")[0]
        while parent:
            above = entries.get(parent)
            if above is not None and above.kind is not TarKind.FOLDER:
                raise BadContext(
                    "build.context-name", f"{shown(entry.name.encode())} lies below a file or link"
                )
            parent = parent.rpartition("/")[0]
        if entry.kind is not TarKind.SYMLINK:
            continue
        steps = _follow(entry.name, entries, steps)
        if steps < 0:
            raise BadContext(
                "build.context-link",
                f"the link {shown(entry.name.encode())} leads out of the context",
            )


def _follow(name: str, entries: dict[str, ContextEntry], steps: int) -> int:
    """Follow the path of a link as the kernel does. Return the steps left, -1 if it leaves the root."""
    at: list[str] = []
    todo = name.split("/")[::-1]
    links = 0
    while todo and steps >= 0:
        part = todo.pop()
        steps -= 1
        if part in ("", "."):
            continue
        if part == "..":
            if not at:
                return -1
            at.pop()
            continue
        at.append(part)
        found = entries.get("/".join(at))
        if found is not None and found.kind is TarKind.SYMLINK:
            links += 1
            if links > LINKS_MAX:
                return -1
            at.pop()
            todo += found.target.split("/")[::-1]
    return steps
