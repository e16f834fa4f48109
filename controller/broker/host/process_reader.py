"""Reading what the kernel shows of a container's first process.

The process is held by its folder in /proc: once it is gone every read fails, and none is about
another process that got its number. It counts only while its cgroup names the container, before
and after the reading. Paths inside the container are opened as it would open them, and no link
leads out; nothing is read from there, only told what lies there.

status, cgroup and mountinfo are open to everybody; namespaces and the root take CAP_SYS_PTRACE,
and the ways to mounts inside CAP_DAC_READ_SEARCH. Nothing here needs more.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from controller.broker.host import procfs
from controller.broker.host.path_inspector import mount_id, open_in_root
from controller.broker.host.procfs import Cgroups, Status
from controller.core.enforcement.kernel_compare import NAMESPACES, mask_of
from controller.model.confinement import (
    CgroupLimits,
    EffectiveState,
    MountinfoLine,
    MountPath,
    NotReadable,
    Root,
)

_ENDED = NotReadable("its process ended", gone=True)
#: An engine answers a start a moment before the runtime's process becomes the container's program.
BEGINNING_S = 0.001
BEGINNING_LOOKS = 15
TEXT_BYTES_MAX = 4 * 1024 * 1024
#: What engines hide or write-protect, where the kernel has it at all.
MASKABLE = (
    "/proc/acpi",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
)
#: Filesystems that are recognised by their names alone: no source of a mount lies in them.
NO_FILES = frozenset({"cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs"})
#: How a path fails whose folders the container's programs move; other failures are a filesystem's.
BY_CONTAINER = frozenset(
    {errno.EAGAIN, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR}
)
_KINDS = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFCHR: "character"}
_FILES_V1 = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "pids": ("pids.max",),
}
_FILES_V2 = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")


def read_process(
    pid: int, container: str, targets: tuple[str, ...]
) -> EffectiveState | NotReadable:
    """Return what the kernel shows of the process *pid*, if it is the container's first one.

    Blocks as long as the filesystems do.
    """
    try:
        process = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return NotReadable("its process isn't in the broker's /proc")
    try:
        return _read(process, container, targets)
    except (FileNotFoundError, ProcessLookupError):
        return _ENDED
    except PermissionError as error:
        return NotReadable(f"the broker may not look at its process: {error.strerror}")
    except (OSError, ValueError) as error:
        return NotReadable(f"its process can't be looked at: {error}")
    finally:
        os.close(process)


def _read(process: int, container: str, targets: tuple[str, ...]) -> EffectiveState | NotReadable:
    cgroups = procfs.read_cgroups(_text("cgroup", process))
    if astray := _astray(process, cgroups, container):
        return astray
    status = begun(lambda: procfs.read_status(_text("status", process)))
    users = procfs.read_users(_text("uid_map", process))
    host = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")
    mounts = procfs.read_mounts(_text("mountinfo", process))
    reached, roots = _inside(process, targets, mounts)
    effective = EffectiveState(
        uid=users.inside(status.uid),
        capabilities=status.capabilities,
        no_new_privileges=status.no_new_privileges,
        seccomp=status.seccomp,
        shared=_shared(process),
        mounts=mounts,
        reached=reached,
        roots=roots,
        program=_program(process),
        host_tmpfs=frozenset(mount.device for mount in _lines_with(" - tmpfs ", host)),
        host_root=users.has_host_root,
        limits=_limits(cgroups, container, host),
        maskable=tuple(filter(os.path.exists, MASKABLE)),
        starting=status.starting,
    )
    # What it had may have gone with it while it was looked at.
    return _astray(process, procfs.read_cgroups(_text("cgroup", process)), container) or effective


def _astray(process: int, cgroups: Cgroups, container: str) -> NotReadable | None:
    """Return why what is seen of a process isn't what the container has, if so."""
    if cgroups.leaves(container) or procfs.read_status(_text("status", process)).ended:
        return _ENDED
    if not cgroups.names(container):
        return NotReadable("the broker sees another process under that number")
    return None


def begun(read: Callable[[], Status], pause: Callable[[float], None] = time.sleep) -> Status:
    """Return the status of a process, after a moment in which its program may begin.

    It is polled, since the kernel tells nobody of an exec; for 15 ms at most, in a thread of the
    reader's own. Whoever begins later is looked at again (``verifying``).
    """
    status = read()
    for _ in range(BEGINNING_LOOKS):
        if not status.starting:
            break
        pause(BEGINNING_S)
        status = read()
    return status


def _text(name: str, folder: int) -> str:
    handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(handle, "rb") as file:
        data = file.read(TEXT_BYTES_MAX + 1)
    if len(data) > TEXT_BYTES_MAX:
        raise ValueError(f"{name} is longer than {TEXT_BYTES_MAX} bytes")
    return os.fsdecode(data)


def _shared(process: int) -> tuple[str, ...]:
    return tuple(
        name
        for name in (*NAMESPACES, "cgroup")
        if os.readlink(f"ns/{name}", dir_fd=process)
        == str(Path(f"/proc/self/ns/{name}").readlink())
    )


def _program(process: int) -> tuple[int, int]:
    """Return the device and inode of what it executes; zeros where the filesystem doesn't tell."""
    try:
        status = os.stat("exe", dir_fd=process)
    except (FileNotFoundError, ProcessLookupError):
        raise
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def _inside(
    process: int, targets: tuple[str, ...], mounts: tuple[MountinfoLine, ...]
) -> tuple[tuple[MountPath, ...], tuple[Root, ...]]:
    """Return where the targets lead, and what lies at the root of each mount of files."""
    root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
    try:
        reached = tuple(MountPath(target, _reach(root, target)) for target in targets)
        files = (mount for mount in mounts if mount.filesystem not in NO_FILES)
        return reached, tuple(found for mount in files if (found := root_of(root, mount)))
    finally:
        os.close(root)


def _reach(root: int, target: str) -> int:
    """Return the id of the mount that a path leads into, -1 if it leads nowhere."""
    try:
        handle = open_in_root(target, root=root)
    except OSError:
        return -1  # a path proves nothing
    try:
        return mount_id(handle)
    finally:
        os.close(handle)


def root_of(root: int, mount: MountinfoLine) -> Root | None:
    """Return the object at the root of a mount; None if the path to it leads elsewhere now.

    Raises:
        PermissionError: the broker lacks CAP_DAC_READ_SEARCH.
    """
    try:
        handle = open_in_root(mount.point, root=root, links=False)
    except OSError as error:
        if error.errno in BY_CONTAINER:
            return None
        if isinstance(error, PermissionError) and not _may_search():
            raise
        return Root(mount.id, 0, 0, "unreadable")
    try:
        if mount_id(handle) != mount.id:
            return None
        status = os.fstat(handle)
    except OSError:
        return Root(mount.id, 0, 0, "unreadable")
    finally:
        os.close(handle)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "other")
    return Root(mount.id, status.st_dev, status.st_ino, kind, status.st_rdev)


def _may_search() -> bool:
    """Return True if no folder is closed to the broker, except by a filesystem's own rules."""
    held = procfs.read_status(Path("/proc/self/status").read_text()).capabilities["Eff"]
    return bool(held & mask_of(("DAC_READ_SEARCH", "DAC_OVERRIDE")))


def _lines_with(text: str, mountinfo: str) -> tuple[MountinfoLine, ...]:
    """Return the mounts of some lines only: a host has hundreds. In a path a blank is escaped."""
    return procfs.read_mounts("\n".join(filter(lambda each: text in each, mountinfo.split("\n"))))


def _limits(cgroups: Cgroups, container: str, mountinfo: str) -> CgroupLimits:
    """Return the limits of the container's own cgroup; what has no file there isn't seen."""
    mounts = _lines_with(" - cgroup", mountinfo)
    version_1 = {
        controller: mount
        for mount in mounts
        if mount.filesystem == "cgroup"
        for controller in mount.settings & _FILES_V1.keys()
    }
    used = _FILES_V1.keys() & cgroups.by_controller.keys()
    if used:
        files: dict[str, str] = {}
        for controller in sorted(used & version_1.keys()):
            mount = version_1[controller]
            path = cgroups.by_controller[controller]
            folder = cgroup_folder(mount.point, mount.root, path, container)
            files |= _files(folder, _FILES_V1[controller])
        return _parsed(procfs.limits_v1, files)
    unified = next((mount for mount in mounts if mount.filesystem == "cgroup2"), None)
    if unified is None:
        return CgroupLimits()
    folder = cgroup_folder(unified.point, unified.root, cgroups.unified, container)
    return _parsed(procfs.limits_v2, _files(folder, _FILES_V2))


def _parsed(
    read: Callable[[Mapping[str, str]], CgroupLimits], files: Mapping[str, str]
) -> CgroupLimits:
    try:
        return read(files)
    except ValueError:
        return CgroupLimits()


def cgroup_folder(point: str, root: str, path: str, container: str) -> Path | None:
    """Return the folder of a container's cgroup, below the mount at *point* of *root*.

    Its process may be in a cgroup below: limits are the container's own. None where the path lies
    outside of what is mounted (another cgroup namespace).
    """
    parts = path.strip("/").split("/")
    named = [number for number, part in enumerate(parts) if container in part]
    if not named or ".." in parts:
        return None
    own = "/" + "/".join(parts[: named[0] + 1])
    above = root.rstrip("/")
    if not own.startswith(f"{above}/"):
        return None
    return Path(f"{point}{own.removeprefix(above)}")


def _files(folder: Path | None, names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names if folder is not None else ():
        try:
            found[name] = (folder / name).read_text("ascii")  # type: ignore[operator]
        except OSError:
            continue
    return found
