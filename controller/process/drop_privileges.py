"""Run a command as an unprivileged user that can do nothing but what files let it.

Run as ``python -m controller.process.drop_privileges JSON`` by ``up`` as root. In order: the private view
(``closed``), no groups, the user's gid and uid, empty capability sets, no-new-privileges, the
death signal, then exec. Nothing privileged is open afterwards but the descriptors handed on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from controller.model.errors import StateError
from controller.process import syscalls
from controller.process.mount_view import MountView, Need

#: The child compares what it runs with this: "device:inode" of interpreter and package.
MEANT = "TRIMTAB_MEANT"


@dataclass(frozen=True, slots=True)
class PrivilegeDrop:
    """Who to become, what to see, and what to run."""

    uid: int
    gid: int
    parent: int
    view: MountView
    argv: tuple[str, ...]

    def to_json(self) -> str:
        """Return the one argument that ``main`` takes."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> PrivilegeDrop:
        """Read back what ``to_json`` wrote."""
        data = json.loads(text)
        view = MountView(
            closed=tuple(Path(path) for path in data["view"]["closed"]),
            binds=tuple(
                Need(Path(bind["path"]), bind["purpose"], bind["writable"])
                for bind in data["view"]["binds"]
            ),
        )
        return cls(
            uid=data["uid"],
            gid=data["gid"],
            parent=data["parent"],
            view=view,
            argv=tuple(data["argv"]),
        )


def identity(path: Path) -> str:
    """Return ``device:inode`` of what *path* names: a bind mount shows the same."""
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}"


def meant(interpreter: Path, package: Path) -> str:
    """Return the value of ``MEANT`` for an interpreter and a package's folder."""
    return f"{identity(interpreter)} {identity(package)}"


def check_meant(value: str | None, *, package: Path) -> None:
    """Compare what this process runs with what its parent meant it to run.

    Raises:
        StateError: it runs another interpreter or package.
    """
    if value is not None and value != meant(Path("/proc/self/exe"), package):
        raise StateError(
            "process.not-meant",
            "after the drop another interpreter or package runs than the one that was meant",
            remedy="check what is mounted over the interpreter and the package",
        )


def enter(view: MountView) -> None:
    """Enter a private mount namespace that shows *view*."""
    if not view.closed:
        return
    syscalls.unshare_mounts()
    # Opened in the new namespace (the kernel binds from no other), and before they are covered.
    handles = {need.path: os.open(need.path, os.O_PATH) for need in view.binds}
    kinds = {path: path.is_dir() for path in handles}
    for folder in view.closed:
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount(
            "trimtab", str(folder), filesystem="tmpfs", flags=flags, data="mode=0755,size=64k"
        )
    for need in view.binds:
        if not need.path.exists():  # it does where a need above it is bound already
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


def become(*, uid: int, gid: int) -> None:
    """Give up every privilege for good: groups, gid, uid, capabilities, and gaining any."""
    assert uid != 0, "the controller never runs as root"
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    syscalls.empty_bounding_set()  # takes CAP_SETPCAP, which the change of uid takes away
    os.setresuid(uid, uid, uid)
    syscalls.empty_capability_sets()
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


def main() -> None:
    """Carry out the drop that the one argument describes; never returns."""
    drop = PrivilegeDrop.from_json(sys.argv[1])
    enter(drop.view)
    become(uid=drop.uid, gid=drop.gid)
    # After the change of uid, which clears it. The lifeline covers what this can't.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != drop.parent:
        sys.exit(1)
    os.umask(0o027)
    os.chdir("/")
    os.execv(drop.argv[0], drop.argv)


if __name__ == "__main__":
    main()
