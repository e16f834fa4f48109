"""The context of a build as an archive: read from the uploaded file, and written anew for the engine.

Nothing is ever unpacked on the host. The engine gets another archive, made entry by entry from what
was understood: sorted, with plain headers, and with the contents from the uploaded file.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from controller.broker.builds.tar_headers import (
    BLOCK,
    EXTENDED_MAX,
    BadContext,
    TarHeader,
    TarKind,
    canonical_name,
    parse_header,
    parse_records,
    shown,
)
from controller.core.builds import context as contexts

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
