"""Restoring a volume. Runs in the confined child, with the volume as its root.

1. The archive is unpacked into a folder of its own below the volume's, with no effect on the data.
2. At the parent's word, when the archive is verified and the containers are down, the entries of
   the volume are moved aside, and the new entries into their place. Meanwhile a marker lies in the
   staging folder, so that an interrupted exchange goes on.
3. The former data is removed.

An entry of an archive can't leave the staging folder: each folder on the way to an entry is opened
without following links, and no entry replaces another. Containers run until the archive is
unpacked, and may write to the volume: a swapped staging folder is refused, and so is a foreign
marker.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from controller.process.volumes.archive import (
    CHUNK,
    ENTRIES_MAX,
    PATH_MAX,
    RESERVED_PREFIX,
    TRAILER_NAME,
    XATTR,
    ArchiveReport,
    BadArchive,
    names_in,
)
from controller.system import syscalls

#: Below the volume's folder. The marker's name is known to the broker.
STAGING = ".trimtab-restore"
NEW, OLD, MARKER = f"{STAGING}/new", f"{STAGING}/old", f"{STAGING}/exchange"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARKER_MAX = 4096
_TOP = ("mode", "uid", "gid", "mtimeNs")


class _ForeignMarker(Exception):
    """A marker of an exchange, not written by a restore."""


@dataclass(slots=True)
class Unpacker:
    """Unpacks an archive into the staging folder."""

    root: str
    report: ArchiveReport
    entries: int = 0
    size_bytes: int = 0
    #: The attributes of folders are set last: a folder may forbid new entries.
    _folders: list[tuple[str, tarfile.TarInfo]] = field(default_factory=list)
    _top: tarfile.TarInfo | None = None
    #: The open folder for the entries.
    _new: int = -1

    def unpack(self, source: BinaryIO) -> None:
        """Unpack an archive.

        Raises:
            BadArchive: an entry isn't as a dump writes entries.
            OSError: an entry can't be written.
        """
        remove_staging(self.root)
        Path(f"{self.root}/{STAGING}").mkdir(0o700)
        Path(f"{self.root}/{NEW}").mkdir(0o700)
        self._new = os.open(f"{self.root}/{NEW}", _FOLDER)
        try:
            with tarfile.open(
                fileobj=source, mode="r|", encoding="utf-8", errors="surrogateescape"
            ) as archive:
                while (info := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps each entry
                    if info.name != TRAILER_NAME:
                        self._entry(archive, info)
        except (tarfile.TarError, EOFError) as error:
            raise BadArchive(f"it can't be read: {error}") from error
        while source.read(CHUNK):
            pass  # the blocks after the end: the parent must not wait for a reader
        for name, info in reversed(self._folders):
            with _opened(self._new, name) as (folder, last):
                _apply(info, folder, last)
        if self._top is None:
            raise BadArchive("it has no entry of the volume itself")
        syscalls.sync_filesystem(Path(f"{self.root}/{NEW}"))
        self.raise_if_swapped()

    def raise_if_swapped(self) -> None:
        """Raise BadArchive if the staged data isn't what was unpacked."""
        staging, new = (os.lstat(f"{self.root}/{each}") for each in (STAGING, NEW))
        opened = os.fstat(self._new)
        is_ours = stat.S_ISDIR(staging.st_mode) and not staging.st_mode & 0o022
        if not is_ours or {staging.st_uid, opened.st_uid} != {os.geteuid()}:
            raise BadArchive("the staged data isn't in a folder of this command")
        if (new.st_dev, new.st_ino) != (opened.st_dev, opened.st_ino):
            raise BadArchive("the staged data was swapped by a program with the volume")

    @property
    def top(self) -> dict[str, int]:
        """The attributes of the volume's own folder."""
        assert self._top is not None, "the archive is unpacked"
        info = self._top
        return {
            "mode": info.mode & 0o7777,
            "uid": info.uid,
            "gid": info.gid,
            "mtimeNs": _mtime_ns(info),
        }

    def _entry(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self.entries += 1
        if self.entries > ENTRIES_MAX:
            raise BadArchive(f"it has more than {ENTRIES_MAX} entries")
        self.report({"entries": self.entries, "bytes": self.size_bytes})
        name = info.name
        if name == ".":
            self._top = info
            return
        if name.startswith(RESERVED_PREFIX):
            raise BadArchive(f"{_shown(name)} is a name of trimtab, which no dump stores")
        with _opened(self._new, name) as (folder, last):
            if info.isdir():
                os.mkdir(last, 0o700, dir_fd=folder)
                self._folders.append((name, info))
                return
            if info.isreg():
                self._file(archive, info, folder, last)
            elif info.issym():
                os.symlink(info.linkname, last, dir_fd=folder)
            elif info.islnk():
                with _opened(self._new, info.linkname) as (other, first):
                    os.link(first, last, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False)
                return  # the attributes are those of the first name
            elif info.isfifo():
                os.mkfifo(last, 0o600, dir_fd=folder)
            else:
                raise BadArchive(f"{_shown(name)} is a device, or of an unknown kind")
            _apply(info, folder, last)

    def _file(
        self, archive: tarfile.TarFile, info: tarfile.TarInfo, folder: int, last: str
    ) -> None:
        data = archive.fileobj
        assert data is not None, "the archive is open"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(last, flags, 0o600, dir_fd=folder)
        try:
            # Not by tarfile's reader: it reads each hole, and a program chooses the sizes of holes.
            data.seek(info.offset_data)
            for start, length in _parts(info):
                at, end = start, start + length
                while at < end:
                    chunk = data.read(min(CHUNK, end - at))
                    if not chunk:
                        raise BadArchive(f"{_shown(info.name)} is cut")
                    self._write(handle, chunk, at)
                    at += len(chunk)
                    self.report({"entries": self.entries, "bytes": self.size_bytes})
            os.ftruncate(handle, info.size)
        finally:
            os.close(handle)

    def _write(self, handle: int, data: bytes, at: int) -> None:
        """Write data, and leave out blocks of zeros: a hole stays a hole."""
        step = 64 * 1024
        for start in range(0, len(data), step):
            part = data[start : start + step]
            if part.count(0) == len(part):
                continue
            self.size_bytes += len(part)
            offset = at + start
            while part:
                written = os.pwrite(handle, part, offset)
                part, offset = part[written:], offset + written


def _parts(info: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Return the offset and the length of each part of a file that isn't a hole.

    Raises:
        BadArchive: the parts overlap, or aren't within the file.
    """
    sparse: list[tuple[int, int]] | None = info.sparse  # type: ignore[assignment]  # its stub says bytes
    parts = [(0, info.size)] if sparse is None else sparse
    ends = [0, *(start + length for start, length in parts)]
    is_map = all(end <= start for end, (start, _) in zip(ends, parts, strict=False))
    if not is_map or ends[-1] > info.size or any(length < 0 for _, length in parts):
        raise BadArchive(f"{_shown(info.name)} has a malformed map of its holes")
    return parts


def _shown(name: str) -> str:
    return repr(name[:200])


@contextmanager
def _opened(root: int, name: str) -> Iterator[tuple[int, str]]:
    """Yield the open folder of an entry, and the last part of its name.

    Raises:
        BadArchive: the name leaves the staging folder, or leads over a link.
    """
    parts = name.split("/")
    bad = name.startswith("/") or {"", ".", ".."} & {*parts} or len(os.fsencode(name)) > PATH_MAX
    if bad or "\0" in name:
        raise BadArchive(f"the name {_shown(name)} leaves the volume, or is too long")
    folder = os.open(".", _FOLDER, dir_fd=root)
    try:
        for part in parts[:-1]:
            try:
                below = os.open(part, _FOLDER, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError, OSError) as error:
                raise BadArchive(f"{_shown(name)} isn't below a folder: {error}") from error
            os.close(folder)
            folder = below
        yield folder, parts[-1]
    finally:
        os.close(folder)


def _mtime_ns(info: tarfile.TarInfo) -> int:
    text = info.pax_headers.get("mtime", "")
    seconds, _, rest = text.partition(".")
    try:
        return int(seconds) * 10**9 + int(rest.ljust(9, "0")[:9] or 0)
    except ValueError:
        return int(info.mtime) * 10**9


def _apply(info: tarfile.TarInfo, folder: int, last: str) -> None:
    """Set owner, mode, attributes and time of an entry, in this order."""
    os.chown(last, info.uid, info.gid, dir_fd=folder, follow_symlinks=False)
    if not info.issym():
        # The entry is ours, and no link: nobody else reaches the staging folder.
        os.chmod(last, info.mode & 0o7777, dir_fd=folder)
        if attributes := {k: v for k, v in info.pax_headers.items() if k.startswith(XATTR)}:
            handle = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            try:
                for key, value in attributes.items():
                    data = value.encode("utf-8", "surrogateescape")
                    os.setxattr(handle, key.removeprefix(XATTR), data)
            finally:
                os.close(handle)
    at = _mtime_ns(info)
    os.utime(last, ns=(at, at), dir_fd=folder, follow_symlinks=False)


# The exchange


def begin_exchange(root: str, unpacker: Unpacker) -> None:
    """Write the marker. From now on the broker starts no container with the volume.

    Raises:
        BadArchive: the staged data was swapped.
    """
    unpacker.raise_if_swapped()
    Path(f"{root}/{OLD}").mkdir(0o700)
    _mark(root, {"phase": "out", "top": unpacker.top})


def cancel_exchange(root: str) -> None:
    """Remove the marker. Nothing was moved yet."""
    Path(f"{root}/{MARKER}").unlink(missing_ok=True)
    _sync(f"{root}/{STAGING}")


def _read_marker(root: str) -> dict[str, Any] | None:
    """Return the marker of a restore; None without one.

    Raises:
        _ForeignMarker: a marker is there that no restore wrote.
    """
    try:
        staging = os.open(f"{root}/{STAGING}", _FOLDER)
        try:
            name = MARKER.rpartition("/")[2]
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=staging)
        finally:
            os.close(staging)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise _ForeignMarker("the marker of an exchange is no file") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        data = file.read(_MARKER_MAX) if is_ours and not status.st_mode & 0o077 else b""
    try:
        marker = json.loads(data)
        top = {name: int(marker["top"][name]) for name in _TOP}
        if marker["phase"] in {"out", "in"}:
            return {"phase": marker["phase"], "top": top}
    except (ValueError, KeyError, TypeError):
        pass
    raise _ForeignMarker("no restore wrote the marker of an exchange")


def _discard_foreign(root: str) -> None:
    """Remove a staging folder with a marker that no restore wrote.

    Raises:
        BadArchive: the folder may hold the former data.
    """
    staging = f"{root}/{STAGING}"
    if not stat.S_ISDIR(os.lstat(staging).st_mode):
        Path(staging).unlink()
        return
    if os.path.lexists(f"{root}/{OLD}"):
        raise BadArchive(f"no restore wrote the marker {MARKER}: look at the folder by hand")
    _remove_folder(staging)


def finish(root: str) -> bool:
    """Finish a begun exchange; return False if there is none.

    Raises:
        BadArchive: a foreign marker lies beside possible former data, or another command is at work.
    """
    try:
        with _locked(root):
            marker = _read_marker(root)
            if marker is not None:
                _finish(root, marker)
            return marker is not None
    except _ForeignMarker:
        _discard_foreign(root)
        return False


@contextmanager
def _locked(root: str) -> Iterator[None]:
    """Keep other commands from the exchange: two would move the new data to the former data.

    Raises:
        BadArchive: another command is at work.
    """
    try:
        handle = os.open(f"{root}/{STAGING}", _FOLDER)
    except OSError:
        yield  # nothing is staged there
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise BadArchive("another command exchanges the data: wait for its end") from error
    try:
        yield
    finally:
        os.close(handle)


def _finish(root: str, marker: dict[str, Any]) -> None:
    if marker["phase"] == "out":
        for name in names_in(root):
            if name != STAGING:
                Path(f"{root}/{name}").rename(f"{root}/{OLD}/{name}")
        marker["phase"] = "in"
        _mark(root, marker)
    for name in names_in(f"{root}/{NEW}"):
        Path(f"{root}/{NEW}/{name}").rename(f"{root}/{name}")
    top = marker["top"]
    os.chown(root, top["uid"], top["gid"])
    Path(root).chmod(top["mode"])
    _sync(root)
    Path(f"{root}/{MARKER}").unlink()
    _sync(f"{root}/{STAGING}")
    remove_staging(root)
    os.utime(root, ns=(top["mtimeNs"], top["mtimeNs"]))


def _mark(root: str, marker: dict[str, Any]) -> None:
    """Write the marker, durably and at once."""
    draft = Path(f"{root}/{MARKER}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(marker, file)
        file.flush()
        os.fsync(file.fileno())
    _sync(root)
    draft.rename(f"{root}/{MARKER}")
    _sync(f"{root}/{STAGING}")


def _sync(folder: str) -> None:
    handle = os.open(folder, _FOLDER)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_staging(root: str) -> None:
    """Remove the staging folder, with whatever a restore left in it.

    Raises:
        OSError: an exchange was begun and isn't finished.
    """
    staging = f"{root}/{STAGING}"
    try:
        status = os.lstat(staging)
    except FileNotFoundError:
        return
    if os.path.lexists(f"{root}/{MARKER}"):
        raise OSError("a restore was cut short: finish it with --finish")
    if stat.S_ISDIR(status.st_mode):
        _remove_folder(staging)
    else:
        Path(staging).unlink()


def _remove_folder(path: str) -> None:
    """Remove a folder, however deep a program nested it: by few open files, and short paths.

    Each folder moves to the top before it is emptied.
    """
    top = os.open(path, _FOLDER)
    try:
        pending = [*_clear(top, top)]
        while pending:
            name = pending.pop()
            folder = os.open(name, _FOLDER, dir_fd=top)
            try:
                pending += _clear(folder, top)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    Path(path).rmdir()


def _clear(folder: int, top: int) -> Iterator[str]:
    """Remove the entries of a folder. Its folders move to *top*: yield their new names."""
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            moved = secrets.token_hex(16)
            os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=top)
            yield moved
        else:
            os.unlink(name, dir_fd=folder)
