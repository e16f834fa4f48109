"""Looking at bind sources: what a path of the host is, without following a link.

A path is opened component by component with openat2 (RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS),
so what is told is about one object, not about a name that may mean another one later. Where that
can't be done the path is ``unreadable``: the bind rules refuse it.

Protected are the broker's own places. Device and inode tell them apart from their names, and
mountinfo tells where in its filesystem an object lies: a bind mount of the state folder under
another name is still the state folder.
"""

from __future__ import annotations

import ctypes
import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.model.host_paths import ENGINE_DATA, PathFacts, StickyParent

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)

PATH_BYTES_MAX = 4096
LINKS_MAX = 8
#: Folders that many programs share: a socket in one doesn't make the others in it ours.
SHARED_FOLDERS = frozenset({"/", "/run", "/tmp", "/var/tmp"})  # noqa: S108 - nothing is made there
CONTAINERD_SOCKETS = ("/run/containerd/containerd.sock", "/run/docker/containerd/containerd.sock")
#: Exec roots aren't in the engine's own report; these are where it puts them by itself.
EXEC_ROOTS = ("/run/docker", "/run/containerd", "/var/lib/containerd")

Identity = tuple[int, int]  # device, inode


@dataclass(frozen=True, slots=True)
class ProtectedPlace:
    """A place of the host that no container may see: what it is, and its path."""

    what: str
    path: str


def guarded(
    *,
    state: str,
    policy: str,
    desired_state: str = "",
    sockets: tuple[tuple[str, str], ...] = (),
    engine_data: str = "",
    credentials: str = "",
) -> tuple[ProtectedPlace, ...]:
    """Return what is protected. *sockets* are pairs of what and path; '' leaves a place out.

    The folder of a socket is protected with it, unless many programs share that folder. The first
    that a path meets is what it is called: the engine's data comes before the folder that may
    hold both it and the engine's socket, so that its volumes are known as such.
    """
    places = [ProtectedPlace("state folder", state), ProtectedPlace("policy", policy)]
    places.append(ProtectedPlace("registry credentials", credentials))
    places.append(ProtectedPlace("desired-state directory", desired_state))
    listening = (*sockets, *(("containerd socket", path) for path in CONTAINERD_SOCKETS))
    places += [ProtectedPlace(what, path) for what, path in listening]
    places.append(ProtectedPlace(ENGINE_DATA, engine_data))
    for what, path in listening:
        if (folder := posixpath.dirname(os.path.realpath(path))) not in SHARED_FOLDERS:
            places.append(ProtectedPlace(f"folder of the {what}", folder))
    places += [ProtectedPlace("engine's exec root", root) for root in EXEC_ROOTS]
    return tuple(place for place in places if place.path)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One component: its status, and its place in its filesystem ('' where that isn't known)."""

    status: os.stat_result
    place: str

    @property
    def identity(self) -> Identity:
        return (self.status.st_dev, self.status.st_ino)


class PathInspector:
    """Looks at paths. ``own_uid`` is the broker's: like root, it isn't "others"."""

    def __init__(self, places: tuple[ProtectedPlace, ...], *, own_uid: int) -> None:
        self._places = places
        self._trusted = frozenset({0, own_uid})

    def examine(self, paths: tuple[str, ...]) -> tuple[PathFacts, ...]:
        """Return the facts of each path. Blocks as long as the filesystems do."""
        mounts = _mounts()
        chains = [
            (place.what, _chain(path, mounts))
            for place in self._places
            for path in _resolved(place.path)
        ]
        return tuple(self._facts(path, mounts, chains) for path in paths)

    def _facts(
        self, path: str, mounts: dict[int, _Mount], chains: list[tuple[str, list[_Seen]]]
    ) -> PathFacts:
        if not _is_plain(path):
            return PathFacts(path, "unreadable")
        try:
            seen = list(_walk(path, mounts))
        except OSError as error:
            return PathFacts(path, _kind_of_error(error))
        status = seen[-1].status
        kind = _kind(status)
        if kind == "symlink":
            return PathFacts(path, kind)
        names = ["/", *path.split("/")[1:]]
        parents = [posixpath.join(*names[: depth + 1]) for depth in range(len(seen) - 1)]
        writable, sticky = self._weak_parents(parents, seen)
        return PathFacts(
            path=path,
            kind=kind,
            device=status.st_dev,
            inode=status.st_ino,
            uid=status.st_uid,
            gid=status.st_gid,
            mode=stat.S_IMODE(status.st_mode),
            parents_writable_by_others=writable,
            protected=_protected(seen, chains),
            sticky_parents=sticky,
            parent_owners=self._owners(seen[:-1]),
            place=seen[-1].place,
        )

    def _weak_parents(
        self, parents: list[str], seen: list[_Seen]
    ) -> tuple[str, tuple[StickyParent, ...]]:
        first, sticky = "", []
        for depth, parent in enumerate(parents):
            status = seen[depth].status
            if not writable_by_others(status):
                continue
            if status.st_mode & stat.S_ISVTX:
                below = seen[depth + 1].status
                sticky.append(StickyParent(parent, below.st_uid, stat.S_IMODE(below.st_mode)))
            else:
                first = first or parent
        return first, tuple(sticky)

    def _owners(self, parents: list[_Seen]) -> tuple[int, ...]:
        return tuple(sorted({parent.status.st_uid for parent in parents} - self._trusted))


def writable_by_others(status: os.stat_result) -> bool:
    """Tell whether someone besides the owner may write; the group of root is root's own."""
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid != 0
    return bool(by_group or status.st_mode & stat.S_IWOTH)


def _is_plain(path: str) -> bool:
    if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) >= PATH_BYTES_MAX:
        return False
    return path == "/" or not {"", ".", ".."} & set(path.split("/")[1:])


def _kind(status: os.stat_result) -> str:
    kinds = {
        stat.S_IFDIR: "dir",
        stat.S_IFREG: "file",
        stat.S_IFSOCK: "socket",
        stat.S_IFLNK: "symlink",
    }
    return kinds.get(stat.S_IFMT(status.st_mode), "other")


def _kind_of_error(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "symlink"
    return "missing" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "unreadable"


def _protected(seen: list[_Seen], chains: list[tuple[str, list[_Seen]]]) -> str:
    """Return what the last of *seen* is, contains or lies under."""
    above = {component.identity for component in seen}
    target = seen[-1]
    for what, chain in chains:
        if not chain:
            continue
        place = chain[-1]
        lies_under = place.identity in above or _within(target, place)
        contains = target.identity in {one.identity for one in chain} or _within(place, target)
        if lies_under or contains:
            return what
    return ""


def _within(inner: _Seen, outer: _Seen) -> bool:
    """Tell whether one lies in the other by their places in one filesystem, mounts aside."""
    if not inner.place or not outer.place or inner.status.st_dev != outer.status.st_dev:
        return False
    return posixpath.join(inner.place, "").startswith(posixpath.join(outer.place, ""))


def _resolved(path: str, depth: int = 0) -> Iterator[str]:
    """Yield where *path* leads and, since who can change a link can lead it elsewhere, its links."""
    parts = path.split("/")
    for end in range(2, len(parts) + 1 if depth < LINKS_MAX else 0):
        prefix = "/".join(parts[:end])
        if target := _link_target(prefix):
            folder, name = posixpath.split(prefix)
            yield posixpath.join(os.path.realpath(folder), name)
            yield from _resolved(posixpath.normpath(posixpath.join(folder, target)), depth + 1)
    if depth == 0:
        yield os.path.realpath(path)


def _link_target(path: str) -> str:
    """Return where a link leads, '' for what isn't one."""
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _chain(path: str, mounts: dict[int, _Mount]) -> list[_Seen]:
    """Return the components of a path without links; [] while it isn't there."""
    try:
        return list(_walk(path, mounts))
    except OSError:
        return []


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_without_links(name: str, *, folder: int = _AT_FDCWD) -> int:
    """Open *name* with O_PATH by openat2(2), following no link of any kind.

    A link as the last component is opened itself.

    Raises:
        OSError: as openat2 does; ENOSYS where the kernel hasn't got it.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    return _openat2(name, flags, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS, folder)


def open_in_root(name: str, *, root: int, links: bool = True) -> int:
    """Open *name* with O_PATH as a process would that has *root* as its root; no link leads out.

    Without *links* none is followed.

    Raises:
        OSError: as openat2 does (ELOOP for a link that isn't followed); ENOSYS where the kernel
            hasn't got it.
    """
    flags = os.O_PATH | os.O_CLOEXEC
    resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
    return _openat2(name, flags, resolve if links else resolve | _RESOLVE_NO_SYMLINKS, root)


def _openat2(name: str, flags: int, resolve: int, folder: int) -> int:
    how = _How(flags, 0, resolve)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    number = ctypes.c_long(_SYS_OPENAT2)
    handle: int = _libc.syscall(
        number, ctypes.c_int(folder), os.fsencode(name), ctypes.byref(how), size
    )
    if handle < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return handle


def _walk(path: str, mounts: dict[int, _Mount]) -> Iterator[_Seen]:
    """Yield each component of *path* from the root on, each opened below the one before."""
    handle = open_without_links("/")
    try:
        yield _look(handle, "/", mounts)
        walked = ""
        for name in path.split("/")[1:] if path != "/" else ():
            if stat.S_ISLNK(os.fstat(handle).st_mode):
                raise OSError(errno.ELOOP, "a component is a symbolic link", walked)
            below = open_without_links(name, folder=handle)
            os.close(handle)
            handle, walked = below, f"{walked}/{name}"
            yield _look(handle, walked, mounts)
    finally:
        os.close(handle)


def _look(handle: int, path: str, mounts: dict[int, _Mount]) -> _Seen:
    status = os.fstat(handle)
    mount = mounts.get(mount_id(handle))
    if mount is None or not posixpath.join(path, "").startswith(posixpath.join(mount.point, "")):
        return _Seen(status, "")
    inside = posixpath.relpath(path, mount.point)
    return _Seen(status, posixpath.normpath(posixpath.join(mount.root, inside)))


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str  # what of its filesystem is mounted
    point: str


def mount_id(handle: int) -> int:
    """Return the id of the mount that an open file is in, -1 where that can't be read."""
    try:
        with Path(f"/proc/self/fdinfo/{handle}").open(encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "mnt_id":
                    return int(value)
    except (OSError, ValueError):
        pass
    return -1


def _mounts() -> dict[int, _Mount]:
    """Return the mounts by id; {} where they can't be read (proc_pid_mountinfo(5))."""
    mounts = {}
    try:
        with Path("/proc/self/mountinfo").open("rb") as file:
            for line in file:
                fields = [os.fsdecode(_unescaped(field)) for field in line.split(b" ")[:5]]
                mounts[int(fields[0])] = _Mount(root=fields[3], point=fields[4])
    except (OSError, ValueError, IndexError):
        return {}
    return mounts


def _unescaped(field: bytes) -> bytes:
    for escape, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(escape, byte)
    return field
