"""Facts of host paths without following links, and the folders that the broker makes for mounts.

Inspection of bind sources: the facts of a host path, without following links.

A path is opened component by component with openat2 (RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS).
So the facts describe one object, and not a name that can refer to another object later. A path
that can't be opened in this way is ``unreadable``, and the bind rules refuse it.

Some places are protected, for example the broker's state folder. A place is compared by device and
inode, and by its path inside its file system (from mountinfo). So a bind mount of the state folder
under another name is still recognised as the state folder.

Folders of the host that the broker makes for the mounts of documents.
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

from controller.broker.host import procfs
from controller.model.confinement import MountinfoLine
from controller.model.host_paths import (
    DECLARING,
    DIRECTORY,
    ENGINE_DATA,
    TIME_ZONE,
    ZONES,
    PathFacts,
    StickyParent,
    is_below,
)
from controller.model.policy.sections import SERIAL

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)

PATH_BYTES_MAX = 4096
LINKS_MAX = 8
#: Folders that many programs share: a socket there doesn't make the whole folder protected.
SHARED_FOLDERS = frozenset({"/", "/run", "/tmp", "/var/tmp"})  # noqa: S108 - nothing is made there
CONTAINERD_SOCKETS = ("/run/containerd/containerd.sock", "/run/docker/containerd/containerd.sock")
#: The default exec roots of engines: an engine doesn't report its exec root.
EXEC_ROOTS = ("/run/docker", "/run/containerd", "/var/lib/containerd")

#: The kernel's consoles, with their numbers in the last column.
CONSOLES = Path("/proc/consoles")

Identity = tuple[int, int]  # device, inode


@dataclass(frozen=True, slots=True)
class ProtectedPlace:
    """A file or folder of the host that no container is allowed to mount."""

    #: The name in messages, for example ``state folder``.
    what: str
    path: str


def protected_places(
    *,
    state: str,
    policy: str,
    settings: str = "",
    desired_state: str = "",
    sockets: tuple[tuple[str, str], ...] = (),
    engine_data: str = "",
    credentials: str = "",
    secrets: tuple[str, ...] = (),
) -> tuple[ProtectedPlace, ...]:
    """Return the protected places. *sockets* are pairs of a name and a path; '' omits a place.

    The folder of a socket is protected too, unless many programs share the folder. The order
    matters: a path gets the name of its first match. The engine's data comes before the folder
    that can hold both the data and the engine's socket, so that volumes are recognised as data.
    """
    places = [ProtectedPlace("state folder", state), ProtectedPlace("policy", policy)]
    places.append(ProtectedPlace("file of settings", settings))
    places.append(ProtectedPlace("registry credentials", credentials))
    places.append(ProtectedPlace(DIRECTORY, desired_state))
    places += [ProtectedPlace("folder of secrets", path) for path in secrets]
    listening = (*sockets, *(("containerd socket", path) for path in CONTAINERD_SOCKETS))
    places += [ProtectedPlace(what, path) for what, path in listening]
    places.append(ProtectedPlace(ENGINE_DATA, engine_data))
    for what, path in listening:
        if (folder := posixpath.dirname(os.path.realpath(path))) not in SHARED_FOLDERS:
            places.append(ProtectedPlace(f"folder of the {what}", folder))
    places += [ProtectedPlace("engine's exec root", root) for root in EXEC_ROOTS]
    return tuple(place for place in places if place.path)


@dataclass(frozen=True, slots=True)
class _Component:
    """One component of a path."""

    status: os.stat_result
    #: The path inside the component's file system, '' if unknown.
    place: str

    @property
    def identity(self) -> Identity:
        return (self.status.st_dev, self.status.st_ino)


class PathInspector:
    """Inspects paths. *own_uid* is the broker's uid, trusted like root."""

    def __init__(self, places: tuple[ProtectedPlace, ...], *, own_uid: int) -> None:
        self._places = places
        self._trusted = frozenset({0, own_uid})

    def inspect(self, paths: tuple[str, ...]) -> tuple[PathFacts, ...]:
        """Return the facts of each path. Blocks as long as the file systems do."""
        mounts = _mounts()
        chains = [
            (place.what, _chain(path, mounts))
            for place in self._places
            for path in _resolve(place.path)
        ]
        return tuple(self._facts(path, mounts, chains) for path in paths)

    def _facts(
        self,
        path: str,
        mounts: dict[int, MountinfoLine],
        chains: list[tuple[str, list[_Component]]],
    ) -> PathFacts:
        if not _is_plain(path):
            return PathFacts(path, "unreadable")
        walked, components = _zone_of(path), list[_Component]()
        try:
            for component in _walk(walked, mounts):
                components.append(component)
        except OSError as error:
            return self._absent(path, _kind_of_error(error), components, chains)
        status = components[-1].status
        kind = _kind(status)
        if kind == "symlink":
            return PathFacts(path, kind)
        parents = _folders_above(walked, len(components) - 1)
        writable, sticky = self._weak_parents(parents, components)
        protected, in_directory = self._protection(path, components, chains)
        return PathFacts(
            path=path,
            kind=kind,
            device=status.st_dev,
            inode=status.st_ino,
            uid=status.st_uid,
            gid=status.st_gid,
            mode=stat.S_IMODE(status.st_mode),
            parents_writable_by_others=writable,
            protected=protected,
            in_directory=in_directory,
            declares=_declaring(path) if in_directory and kind == "dir" else "",
            sticky_parents=sticky,
            parent_owners=tuple(
                sorted({parent.status.st_uid for parent in components[:-1]} - self._trusted)
            ),
            place=components[-1].place,
            device_type=_device_type(status),
            number=status.st_rdev if _device_type(status) else 0,
            console=_device_type(status) == "character" and _is_console(status.st_rdev),
        )

    def _absent(
        self,
        path: str,
        kind: str,
        above: list[_Component],
        chains: list[tuple[str, list[_Component]]],
    ) -> PathFacts:
        """Return the facts of a path that can't be opened, with those of the folders above it."""
        if kind != "missing":
            return PathFacts(path, kind)
        folders = _folders_above(path, len(above))
        writable, sticky = self._weak_parents(folders[:-1], above)
        if not writable and writable_by_others(above[-1].status):
            writable = folders[-1]
        protected, in_directory = self._protection(path, above, chains, is_missing=True)
        return PathFacts(
            path,
            kind,
            parents_writable_by_others=writable,
            protected=protected,
            in_directory=in_directory,
            sticky_parents=sticky,
            parent_owners=tuple(sorted({each.status.st_uid for each in above} - self._trusted)),
        )

    def _protection(
        self,
        path: str,
        components: list[_Component],
        chains: list[tuple[str, list[_Component]]],
        *,
        is_missing: bool = False,
    ) -> tuple[str, bool]:
        """As ``_protected``. By another name, such as a bind mount, a folder isn't in the directory.

        The readers of the directory close folders by the directory's own name.
        """
        what, in_directory = _protected(components, chains, is_missing=is_missing)
        tops = (os.path.realpath(place.path) for place in self._places if place.what == DIRECTORY)
        return what, in_directory and any(is_below(path, top) for top in tops)

    def _weak_parents(
        self, parents: list[str], components: list[_Component]
    ) -> tuple[str, tuple[StickyParent, ...]]:
        """Return the first parent writable by others, and all such parents with a sticky bit."""
        first, sticky = "", []
        for depth, parent in enumerate(parents):
            status = components[depth].status
            if not writable_by_others(status):
                continue
            if status.st_mode & stat.S_ISVTX:
                below = components[depth + 1].status
                sticky.append(StickyParent(parent, below.st_uid, stat.S_IMODE(below.st_mode)))
            else:
                first = first or parent
        return first, tuple(sticky)


def _zone_of(path: str) -> str:
    """Return the file behind the link of the host's time zone; any other path as it is.

    The engine follows the link at each start. Only root can change the link.
    """
    if path not in TIME_ZONE:
        return path
    real = os.path.realpath(path)
    return real if is_below(real, ZONES) else path


def _folders_above(path: str, count: int) -> list[str]:
    """Return the first *count* folders on the way to a path, from the root on."""
    names = ["/", *path.split("/")[1:]]
    return [posixpath.join(*names[: depth + 1]) for depth in range(count)]


def writable_by_others(status: os.stat_result) -> bool:
    """Return True if a user besides the owner can write. Root's group counts as root."""
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


def _device_type(status: os.stat_result) -> str:
    kinds = {stat.S_IFCHR: "character", stat.S_IFBLK: "block"}
    return kinds.get(stat.S_IFMT(status.st_mode), "")


def _is_console(number: int) -> bool:
    """Return True for a console of the kernel's, and for a serial port if the kernel tells none."""
    try:
        lines = CONSOLES.read_text("ascii", "replace").splitlines()
    except OSError:
        return os.major(number) in SERIAL
    return f"{os.major(number)}:{os.minor(number)}" in {line.split()[-1] for line in lines if line}


def _kind_of_error(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "symlink"
    return "missing" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "unreadable"


def _protected(
    components: list[_Component],
    chains: list[tuple[str, list[_Component]]],
    *,
    is_missing: bool = False,
) -> tuple[str, bool]:
    """Return the name of the place that the path is, contains or lies under; '' for none.

    Also return whether the path lies in the directory of the desired state, and touches no other place.
    *is_missing*: the components are those above a path that isn't there.
    """
    above = {component.identity for component in components}
    target, in_directory = components[-1], False
    for what, chain in chains:
        if not chain:
            continue
        place = chain[-1]
        lies_under = place.identity in above or _is_within(target, place)
        contains = not is_missing and (
            target.identity in {each.identity for each in chain} or _is_within(place, target)
        )
        if what == DIRECTORY and lies_under and not contains:
            in_directory = True
        elif lies_under or contains:
            return what, False
    return (DIRECTORY, True) if in_directory else ("", False)


def _declaring(path: str) -> str:
    """Return the first name in a folder that makes it one with declarations; '' for none."""
    return next((name for name in DECLARING if os.path.lexists(f"{path}/{name}")), "")


def _is_within(inner: _Component, outer: _Component) -> bool:
    """Return True if *inner* lies in *outer* by their paths inside the same file system."""
    if not inner.place or not outer.place or inner.status.st_dev != outer.status.st_dev:
        return False
    return posixpath.join(inner.place, "").startswith(posixpath.join(outer.place, ""))


def _resolve(path: str, depth: int = 0) -> Iterator[str]:
    """Yield the target of *path* and all links on the way.

    The links are protected too, because a change of a link changes the target.
    """
    parts = path.split("/")
    for end in range(2, len(parts) + 1 if depth < LINKS_MAX else 0):
        prefix = "/".join(parts[:end])
        if target := _link_target(prefix):
            folder, name = posixpath.split(prefix)
            yield posixpath.join(os.path.realpath(folder), name)
            yield from _resolve(posixpath.normpath(posixpath.join(folder, target)), depth + 1)
    if depth == 0:
        yield os.path.realpath(path)


def _link_target(path: str) -> str:
    """Return the target of a link, '' for a path that is no link."""
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _chain(path: str, mounts: dict[int, MountinfoLine]) -> list[_Component]:
    """Return the components of a path without links, [] for a missing path."""
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
    """Open *name* with O_PATH by openat2(2), without following links of any kind.

    If the last component is a link, the link itself is opened.

    Raises:
        OSError: the error of openat2, ENOSYS on a kernel without openat2.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    return _openat2(name, flags, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS, folder)


def open_in_root(name: str, *, root: int, links: bool = True) -> int:
    """Open *name* with O_PATH like a process with the root folder *root*. No link leads outside.

    ``links=False`` follows no links.

    Raises:
        OSError: the error of openat2: ELOOP for a link that is not followed, ENOSYS on a kernel
            without openat2.
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


def _walk(path: str, mounts: dict[int, MountinfoLine]) -> Iterator[_Component]:
    """Yield each component of *path* from the root on. Each is opened below its parent."""
    handle = open_without_links("/")
    try:
        yield _component(handle, "/", mounts)
        walked = ""
        for name in path.split("/")[1:] if path != "/" else ():
            if stat.S_ISLNK(os.fstat(handle).st_mode):
                raise OSError(errno.ELOOP, "a component is a symbolic link", walked)
            below = open_without_links(name, folder=handle)
            os.close(handle)
            handle, walked = below, f"{walked}/{name}"
            yield _component(handle, walked, mounts)
    finally:
        os.close(handle)


def _component(handle: int, path: str, mounts: dict[int, MountinfoLine]) -> _Component:
    status = os.fstat(handle)
    mount = mounts.get(mount_id(handle))
    if mount is None or not posixpath.join(path, "").startswith(posixpath.join(mount.point, "")):
        return _Component(status, "")
    inside = posixpath.relpath(path, mount.point)
    return _Component(status, posixpath.normpath(posixpath.join(mount.root, inside)))


#: The member is the third of the file (proc_pid_fdinfo(5)).
_FDINFO_BYTES = 4096


def mount_id(handle: int) -> int:
    """Return the id of the mount with an open file, -1 if the id can't be read."""
    try:
        information = os.open(f"/proc/self/fdinfo/{handle}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(information, _FDINFO_BYTES)
        finally:
            os.close(information)
        for line in text.split(b"\n"):
            name, _, value = line.partition(b":")
            if name == b"mnt_id":
                return int(value)
    except (OSError, ValueError):
        pass
    return -1


def _mounts() -> dict[int, MountinfoLine]:
    """Return the mounts by id, {} if they can't be read (proc_pid_mountinfo(5))."""
    try:
        text = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
        return {mount.id: mount for mount in procfs.read_mounts(text)}
    except (OSError, ValueError):
        return {}


_MODE = 0o755


def make_folder(path: str, uid: int) -> str:
    """Make a missing folder with the missing ones above it, for the user and the group *uid*.

    No link is followed. Return why it failed, '' for success, also if the folder is there.
    """
    try:
        handle = open_without_links("/")
        try:
            for name in path.split("/")[1:]:
                below = _open_or_make(name, handle, uid)
                os.close(handle)
                handle = below
        finally:
            os.close(handle)
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _open_or_make(name: str, folder: int, uid: int) -> int:
    try:
        return open_without_links(name, folder=folder)
    except FileNotFoundError:
        os.mkdir(name, _MODE, dir_fd=folder)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(name, flags, dir_fd=folder)
    try:
        # The user of the folder above can put another one there: a folder of root's has contents.
        if os.fstat(made).st_uid != os.geteuid() or os.listdir(made):  # noqa: PTH208
            raise PermissionError(0, "somebody else put another folder there")
        os.fchmod(made, _MODE)
        if uid != os.geteuid():
            os.fchown(made, uid, uid)
    except OSError:
        os.close(made)
        raise
    return made
