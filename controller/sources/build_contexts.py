"""Contexts of builds: folders of a source as a build gets them, and as archives for the broker.

Nothing outside of the folder is read, and no link is followed. Files of Git are left out, as are those that
``.dockerignore`` names. An archive has exactly the files whose digest the desired state has.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from controller.core.builds import context as ignore
from controller.core.builds import dockerfile as platforms
from controller.core.builds.context import (
    MAX_BYTES,
    MAX_ENTRIES,
    ContextFile,
    EntryKind,
    digest,
    link_fault,
    path_fault,
)
from controller.core.builds.dockerfile_text import MAX_TEXT
from controller.core.compose.translation.scope import ContextRequest, FoundContext
from controller.core.encoding.text import printable_name
from controller.model.desired.spec.container import OTHER_DOCKERFILE, Build
from controller.model.errors import Conflict
from controller.model.quantities import format_bytes
from controller.sources.safe_read import OPEN_FLAGS, is_inside

_GIT: Final = ".git"
_PIECE: Final = 256 * 1024
#: A program, in a Git source: its export keeps no right to execute.
_PROGRAMS: Final = (b"#!", b"\x7fELF")

#: Digests of files that are kept, and entries of a context that are looked at, ignored ones too.
_HASHES_KEPT: Final = 10 * MAX_ENTRIES
_LOOKED_AT: Final = 10 * MAX_ENTRIES

#: Device, inode, size, and times of the last change of content and of status.
_Version = tuple[int, int, int, int, int]


class ContextFault(Exception):
    """A folder can't be a context. The text is a reason and a remedy."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class _Walked:
    """A folder as a build gets it."""

    folder: str
    entries: tuple[ContextFile, ...]


class ContextReader:
    """The contexts of one source. A file is hashed again only after a change.

    *prefix* comes before the names of folders. With one, the files are the export of a commit: files without
    permissions of their own.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._exported = bool(prefix)
        self._platform = platforms.platform_of_machine(os.uname().machine)
        self._hashed: dict[str, tuple[_Version, str, bytes]] = {}
        #: The folders that containers write to, by their real paths: no part of a context.
        self.closed: frozenset[str] = frozenset()

    def read(self, top: str, request: ContextRequest) -> FoundContext:
        """Return what the folder of a request has for its build (``ReadContext``). Never raises."""
        try:
            inline = request.inline
            if inline is None and not _is_inside(top, request):
                inline = _read_text(top, f"{request.context}/{request.dockerfile}")
            walked = self.walk(top, request.context, request.dockerfile, inline=inline)
            text = inline
            if text is None:
                text = _read_text(top, f"{request.context}/{request.dockerfile}")
        except ContextFault as fault:
            return FoundContext(fault=(str(fault), fault.remedy))
        name, found = f"{self._prefix}{request.context}", digest(walked.entries)
        return FoundContext(name, self._platform, found, text, is_inside=inline is None)

    def walk(self, top: str, context: str, dockerfile: str, *, inline: str | None) -> _Walked:
        """Return the entries of a context; *inline* is the text of a Dockerfile that isn't in it.

        Raises:
            ContextFault: the folder can't be a context.
        """
        folder = _resolved(top, context)
        named = None if inline is not None else posixpath.normpath(dockerfile)
        kept = {ignore.IGNORE_NAME} if named is None else {ignore.IGNORE_NAME, named}
        walk = _Walk(self, folder, _patterns(top, context, named), kept)
        walk.folder("")
        walked = _Walked(folder, tuple(walk.entries))
        return walked if inline is None else _with_text(walked, inline)

    def hashed(self, path: str, status: os.stat_result) -> tuple[str, int]:
        """Return the SHA-256 of a regular file, and its permissions."""
        version = _version_of(status)
        known = self._hashed.get(path)
        if known is None or known[0] != version:
            if len(self._hashed) >= _HASHES_KEPT:
                self._hashed.clear()
            total, begin = hashlib.sha256(), b""
            for piece in _pieces(path, version):
                begin = begin or piece[:4]
                total.update(piece)
            known = self._hashed[path] = (version, total.hexdigest(), begin)
        mode = stat.S_IMODE(status.st_mode) & 0o777
        if self._exported:
            mode = 0o755 if known[2].startswith(_PROGRAMS) else 0o644
        return known[1], mode

    def folder_mode(self, status: os.stat_result) -> int:
        """Return the permissions of a folder."""
        return 0o755 if self._exported else stat.S_IMODE(status.st_mode) & 0o777


class _Walk:
    """One walk through a context."""

    def __init__(
        self, reader: ContextReader, top: str, patterns: ignore.Ignore, kept: set[str]
    ) -> None:
        self._reader = reader
        self._top = top
        self._patterns = patterns
        self._kept = kept
        self._bytes = self._looked_at = 0
        self.entries: list[ContextFile] = []

    def folder(self, name: str) -> None:
        """Add the entries of a folder, whose *name* is '' for the context itself."""
        try:
            with os.scandir(f"{self._top}/{name}") as listed:
                found = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(name or ".", error) from None
        self._looked_at += len(found)
        if self._looked_at > _LOOKED_AT:
            raise _too_many()
        for each in found:
            path = f"{name}/{each.name}" if name else each.name
            if each.name != _GIT:
                self._entry(path, each)

    def _entry(self, path: str, found: os.DirEntry[str]) -> None:
        if fault := path_fault(path):
            raise ContextFault(
                f"{printable_name(path)} {fault}", "rename it, or list it in .dockerignore"
            )
        if f"{self._top}/{path}" in self._reader.closed:
            return
        excluded = self._patterns.excludes(path) and path not in self._kept
        is_folder = found.is_dir(follow_symlinks=False)
        if excluded and (not is_folder or self._patterns.excludes_below(path)):
            if is_folder and any(kept.startswith(f"{path}/") for kept in self._kept):
                self._count()
                self.folder(path)
            return
        try:
            status = found.stat(follow_symlinks=False)
            if is_folder:
                if not excluded:
                    self._add(ContextFile(path, EntryKind.FOLDER, self._reader.folder_mode(status)))
                self.folder(path)
            elif found.is_symlink():
                self._link(path, os.readlink(found.path))  # noqa: PTH115 - a text
            elif stat.S_ISREG(status.st_mode):
                self._file(path, found.path, status)
            else:
                raise ContextFault(
                    f"{path} is no regular file, folder or link", "list it in .dockerignore"
                )
        except OSError as error:
            raise _unreadable(path, error) from None

    def _link(self, path: str, target: str) -> None:
        if fault := link_fault(path, target):
            raise ContextFault(
                f"the link {path} {fault}",
                "copy the file in its place, or list it in .dockerignore",
            )
        self._add(ContextFile(path, EntryKind.LINK, 0o777, target=target))

    def _file(self, path: str, place: str, status: os.stat_result) -> None:
        self._bytes += status.st_size
        if self._bytes > MAX_BYTES:
            raise ContextFault(
                f"the context has more than {format_bytes(MAX_BYTES)}",
                "list what the build doesn't need in .dockerignore",
            )
        sha256, mode = self._reader.hashed(place, status)
        self._add(ContextFile(path, EntryKind.FILE, mode, sha256=sha256, size=status.st_size))

    def _add(self, entry: ContextFile) -> None:
        self._count()
        self.entries.append(entry)

    def _count(self) -> None:
        if len(self.entries) >= MAX_ENTRIES:
            raise _too_many()


def archive(
    root_of: Callable[[str], str], build: Build, closed: frozenset[str] = frozenset()
) -> Iterator[bytes]:
    """Yield the tar archive of a build's context.

    *root_of* returns the real path of the documents' folder of a Git source by its name, of DIR for ''. The
    folders *closed*, which containers write to, are left out.

    Raises:
        Conflict: the files aren't those of the desired state any more.
    """
    prefix, _, context = build.context.rpartition(":")
    inline = build.dockerfile_inline
    try:
        reader = ContextReader(prefix)
        reader.closed = closed
        walked = reader.walk(root_of(prefix), context, build.dockerfile, inline=inline)
        if digest(walked.entries) != build.digest:
            raise _changed(build)
        for entry in walked.entries:
            yield from _archived(walked.folder, entry, inline or "", build)
    except ContextFault as fault:
        raise Conflict("build.context", f"{build.context}: {fault}", remedy=fault.remedy) from None
    except OSError:
        raise _changed(build) from None
    yield bytes(2 * tarfile.BLOCKSIZE)


def _archived(folder: str, entry: ContextFile, text: str, build: Build) -> Iterator[bytes]:
    """Yield the header and the content of one entry."""
    place = f"{folder}/{entry.path}"
    is_text = entry.path == OTHER_DOCKERFILE
    info = tarfile.TarInfo(entry.path)
    info.type, info.mode = entry.kind.value.encode(), entry.mode
    info.linkname, info.size = entry.target, entry.size
    status = None if is_text else os.lstat(place)
    info.mtime = 0 if status is None else int(status.st_mtime)
    yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
    if entry.kind is not EntryKind.FILE:
        return
    total, size = hashlib.sha256(), 0
    pieces = [text.encode()] if status is None else _pieces(place, _version_of(status))
    for piece in pieces:
        size += len(piece)
        if size > entry.size:
            raise _changed(build)
        total.update(piece)
        yield piece
    if size != entry.size or total.hexdigest() != entry.sha256:
        raise _changed(build)
    yield bytes(-size % tarfile.BLOCKSIZE)


def _with_text(walked: _Walked, text: str) -> _Walked:
    """Return a context with the text of a Dockerfile that isn't in its folder."""
    data = text.encode()
    entry = ContextFile(
        OTHER_DOCKERFILE,
        EntryKind.FILE,
        0o644,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )
    others = tuple(each for each in walked.entries if each.path != OTHER_DOCKERFILE)
    return _Walked(walked.folder, (*others, entry))


def _too_many() -> ContextFault:
    return ContextFault(
        f"the context has more than {MAX_ENTRIES} files and folders",
        "list what the build doesn't need in .dockerignore",
    )


def _changed(build: Build) -> Conflict:
    return Conflict(
        "build.changed",
        f"the files of {build.context} aren't those of this revision, or change while they are read",
        remedy="nothing: other files are another build. An earlier revision needs its files back",
    )


def _is_inside(top: str, request: ContextRequest) -> bool:
    """Return True if the Dockerfile of a request is a regular file of the context."""
    name = posixpath.normpath(request.dockerfile)
    if name.startswith(("../", "/")):
        return False
    try:
        return stat.S_ISREG(os.lstat(f"{_resolved(top, request.context)}/{name}").st_mode)
    except OSError:
        return False


def _patterns(top: str, context: str, dockerfile: str | None) -> ignore.Ignore:
    """Return the patterns beside the Dockerfile in the context, or else those of the context."""
    own = () if dockerfile is None else (f"{context}/{dockerfile}{ignore.IGNORE_NAME}",)
    for name in (*own, f"{context}/{ignore.IGNORE_NAME}"):
        if not os.path.lexists(posixpath.normpath(f"{top}/{name}")):
            continue
        patterns = ignore.read_ignore(_read_text(top, name))
        if isinstance(patterns, ignore.Ignore):
            return patterns
        place = f"{posixpath.normpath(name)}:{patterns.line}"
        raise ContextFault(f"{place}: {patterns.message}", patterns.remedy)
    return ignore.Ignore()


def _resolved(top: str, name: str) -> str:
    """Return the real path of a file or folder below *top*."""
    wanted = posixpath.normpath(f"{top}/{name}")
    remedy = "write a path of the source that trimtab reads"
    if not is_inside(wanted, top):
        raise ContextFault(f"{posixpath.normpath(name)} leads out of the source", remedy)
    try:
        real = os.path.realpath(wanted, strict=True)
    except (OSError, ValueError):
        raise ContextFault(
            f"{posixpath.normpath(name)} doesn't exist", "add it, or correct the path"
        ) from None
    if not is_inside(real, top) or _GIT in real.removeprefix(top).split("/"):
        raise ContextFault(f"{posixpath.normpath(name)} leads out of the source", remedy)
    return real


def _read_text(top: str, name: str) -> str:
    place = _resolved(top, name)
    shown = posixpath.normpath(name)
    try:
        status = os.lstat(place)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_TEXT:
            reason = f"{shown} is no file of at most {format_bytes(MAX_TEXT)}"
            raise ContextFault(reason, "write a smaller one")
        with io.BytesIO() as content:
            for piece in _pieces(place, _version_of(status)):
                content.write(piece)
            return content.getvalue().decode()
    except OSError as error:
        raise _unreadable(shown, error) from None
    except UnicodeDecodeError:
        raise ContextFault(f"{shown} isn't UTF-8", "write it as UTF-8") from None


def _pieces(place: str, version: _Version) -> Iterator[bytes]:
    """Yield the content of a regular file of that version.

    Raises:
        OSError: the file can't be read, or is another one.
    """
    descriptor = os.open(place, OPEN_FLAGS)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        real = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a text
        if _version_of(os.fstat(descriptor)) != version or real != place:
            raise OSError("the file changes while it is read")
        while piece := file.read(_PIECE):
            yield piece
        if _version_of(os.fstat(descriptor)) != version:
            raise OSError("the file changes while it is read")


def _version_of(status: os.stat_result) -> _Version:
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *times


def _unreadable(name: str, error: OSError) -> ContextFault:
    reason = error.strerror or str(error)
    return ContextFault(
        f"{printable_name(name)} can't be read: {reason}",
        "make it readable for the user that trimtab runs as, or list it in .dockerignore",
    )
