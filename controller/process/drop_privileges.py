"""Run a command as an unprivileged user, with a view of the paths that it needs.

Run a command as an unprivileged user, without capabilities.

``trimtab up`` runs ``python -m controller.process.drop_privileges JSON`` as root. The steps:

1. enter the private mount view (``mount_view``);
2. drop the supplementary groups, then change gid and uid;
3. empty all capability sets;
4. set no-new-privileges and the parent-death signal;
5. exec the command.

The inherited descriptors are the only privileged objects left open.

The mount view of an unprivileged child: access to needed paths below closed folders.

The usual case is a checkout in ``/root``. The controller's user can't traverse ``/root`` (0700),
but must read the interpreter, the package and DIR. ``plan_view`` plans the mounts;
``drop_privileges`` mounts them in a private namespace. An empty file system covers the closed
folder, and only the needed paths are bind-mounted there, read-only, at the same names.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from controller.model.errors import StateError
from controller.system import syscalls

StatPath = Callable[[Path], os.stat_result]


@dataclass(frozen=True, slots=True)
class Need:
    """A path that the user must reach."""

    path: Path
    #: The purpose in messages, for example ``the package's folder``.
    purpose: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class MountView:
    """The mounts of a view."""

    #: The folders to cover with an empty file system.
    closed: tuple[Path, ...] = ()
    #: The paths to bind-mount, parents first.
    binds: tuple[Need, ...] = ()
    #: Folders and sockets to cover at last, so that the user doesn't reach them by any bind.
    hidden: tuple[Path, ...] = ()


def permissions(status: os.stat_result, *, uid: int, gid: int) -> int:
    """Return the permission bits of a user without supplementary groups, as for others."""
    shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
    return status.st_mode >> shift & stat.S_IRWXO


def closed_ancestor(
    path: Path, *, uid: int, gid: int, stat_path: StatPath = os.stat
) -> Path | None:
    """Return the topmost folder above *path* that the user can't traverse, or None."""
    for parent in reversed(path.parents):
        if not permissions(stat_path(parent), uid=uid, gid=gid) & stat.S_IXOTH:
            return parent
    return None


def plan_view(
    needs: Iterable[Need], *, uid: int, gid: int, stat_path: StatPath = os.stat
) -> MountView:
    """Plan the mounts that give a user its needed paths.

    Raises:
        StateError: a needed folder itself is closed to the user. The remedy is a chmod.
    """
    closed: set[Path] = set()
    binds: dict[Path, Need] = {}
    for need in needs:
        status = stat_path(need.path)
        needed = stat.S_IROTH | stat.S_IXOTH
        if stat.S_ISDIR(status.st_mode) and needed & ~permissions(status, uid=uid, gid=gid):
            raise StateError(
                "folder.closed",
                f"{need.path} ({need.purpose}) is closed to the controller's user (uid {uid})",
                remedy=f"chmod o+rx {need.path}, or move it to a folder that others may read",
            )
        ancestor = closed_ancestor(need.path, uid=uid, gid=gid, stat_path=stat_path)
        if ancestor is not None:
            closed.add(ancestor)
            known = binds.get(need.path)
            if known is None or (need.writable and not known.writable):
                binds[need.path] = need
    topmost = {path for path in closed if not any(other in path.parents for other in closed)}
    ordered = sorted(binds.values(), key=lambda need: (len(need.path.parts), str(need.path)))
    return MountView(closed=tuple(sorted(topmost)), binds=tuple(ordered))


#: The variable with the identities of interpreter and package, which the child compares.
EXPECTED_PROGRAM = "TRIMTAB_MEANT"


@dataclass(frozen=True, slots=True)
class PrivilegeDrop:
    """The user to become, the mount view to enter, and the command to run."""

    uid: int
    gid: int
    #: The pid of the parent, to detect its end before the parent-death signal is set.
    parent: int
    view: MountView
    argv: tuple[str, ...]

    def to_json(self) -> str:
        """Return the argument of ``main``."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> PrivilegeDrop:
        """Parse the argument of ``main``."""
        data = json.loads(text)
        view = MountView(
            closed=tuple(Path(path) for path in data["view"]["closed"]),
            binds=tuple(
                Need(Path(bind["path"]), bind["purpose"], bind["writable"])
                for bind in data["view"]["binds"]
            ),
            hidden=tuple(Path(path) for path in data["view"]["hidden"]),
        )
        return cls(
            uid=data["uid"],
            gid=data["gid"],
            parent=data["parent"],
            view=view,
            argv=tuple(data["argv"]),
        )


def identity(path: Path) -> str:
    """Return ``device:inode`` of a path. A bind mount has the same identity."""
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}"


def expected_program(interpreter: Path, package: Path) -> str:
    """Return the value of ``EXPECTED_PROGRAM`` for an interpreter and the package's folder."""
    return f"{identity(interpreter)} {identity(package)}"


def check_program(value: str | None, *, package: Path) -> None:
    """Compare this process's interpreter and package with the parent's *value*.

    Raises:
        StateError: interpreter or package differ.
    """
    if value is not None and value != expected_program(Path("/proc/self/exe"), package):
        raise StateError(
            "process.not-meant",
            "after the drop another interpreter or package runs than the one that was meant",
            remedy="check what is mounted over the interpreter and the package",
        )


def enter(view: MountView) -> None:
    """Enter a private mount namespace and mount *view* in it."""
    if not view.closed and not view.hidden:
        return
    syscalls.unshare_mounts()
    # Opened in the new namespace, because the kernel binds from no other, and before the tmpfs
    # mounts cover them.
    handles = {need.path: os.open(need.path, os.O_PATH) for need in view.binds}
    kinds = {path: path.is_dir() for path in handles}
    for folder in view.closed:
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount(
            "trimtab", str(folder), filesystem="tmpfs", flags=flags, data="mode=0755,size=64k"
        )
    for need in view.binds:
        if not need.path.exists():  # it exists below a bound need
            need.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            if kinds[need.path]:
                need.path.mkdir(mode=0o755)
            else:
                need.path.touch(mode=0o644)
        source, target = f"/proc/self/fd/{handles[need.path]}", str(need.path)
        syscalls.mount(source, target, flags=syscalls.MS_BIND | syscalls.MS_REC)
        if not need.writable:
            flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
            syscalls.mount("none", target, flags=flags)
    for folder in view.closed:
        syscalls.mount("none", str(folder), flags=syscalls.MS_REMOUNT | syscalls.MS_RDONLY)
    for handle in handles.values():
        os.close(handle)
    for path in view.hidden:
        _hide(path.resolve())


def _hide(path: Path) -> None:
    """Cover a folder with an empty file system, or a socket with the null device."""
    if path.is_dir():
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_RDONLY
        syscalls.mount(
            "trimtab", str(path), filesystem="tmpfs", flags=flags, data="mode=0755,size=4k"
        )
    elif path.exists():
        syscalls.mount("/dev/null", str(path), flags=syscalls.MS_BIND)


def become(*, uid: int, gid: int) -> None:
    """Drop all privileges for good: groups, gid, uid, capabilities, and new privileges."""
    assert uid != 0, "the controller never runs as root"
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    syscalls.limit_bounding_set()  # needs CAP_SETPCAP, lost by the change of uid
    os.setresuid(uid, uid, uid)
    syscalls.limit_capability_sets()
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


def main() -> None:
    """Drop the privileges as the argument says, and exec the command."""
    drop = PrivilegeDrop.from_json(sys.argv[1])
    enter(drop.view)
    become(uid=drop.uid, gid=drop.gid)
    # After the change of uid, which clears the signal. The lifeline covers a lost signal.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != drop.parent:
        sys.exit(1)
    os.umask(0o027)
    os.chdir("/")
    os.execv(drop.argv[0], drop.argv)


if __name__ == "__main__":
    main()
