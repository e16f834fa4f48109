"""A container's processes: their state, their end, and the end of their connections.

Reading the effective state of a container's first process from /proc.

The process is addressed by an open folder in /proc. After the end of the process every read fails,
so no read is about another process with the same pid. The cgroup of the process must name the
container before and after the reads. Paths inside the container are opened relative to its root,
and no link leads outside. The reader gets the status of such paths, and never their content.

status, cgroup and mountinfo are readable for every user. Namespaces and the root need
CAP_SYS_PTRACE, paths inside the container CAP_DAC_READ_SEARCH. No other capability is needed.

Killing a process that an exec session left in a container: the engine has no call for it.

The engine reports a pid. By the time of the signal, the pid can belong to another process or, with
a remote engine, to another host. So the process is opened as a pidfd first, and its cgroup must
name the container. The pidfd gets the signal. A broker with the uid of root needs CAP_KILL.

Without that a client that waits for an answer would wait for ever: the engine takes the container's
interface away, and nothing that the container sends arrives any more. New connections are dropped
silently meanwhile, so that clients try again and reach the other container.

The sockets belong to processes of the container. A copy of such a descriptor needs CAP_SYS_PTRACE
(pidfd_getfd(2)); the broker enters no namespace. Sources: proc(5), socket(7), connect(2), tcp(7).
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from controller.broker.host import procfs
from controller.broker.host.path_inspector import mount_id, open_in_root
from controller.broker.host.procfs import Cgroups, Status
from controller.core.enforcement.kernel import NAMESPACES, mask_of
from controller.model.confinement import (
    CgroupLimits,
    EffectiveState,
    MountinfoLine,
    MountPath,
    NotReadable,
    Root,
)
from controller.system import syscalls

_ENDED = NotReadable("its process ended", gone=True)
#: Polls for the container's program: an engine responds to a start a moment before the runtime's
#: process executes the program.
EXEC_POLL_S = 0.001
EXEC_POLLS = 15
TEXT_BYTES_MAX = 4 * 1024 * 1024
_PART_BYTES = 64 * 1024
#: Paths that engines hide or write-protect, if the kernel has them.
_MASKABLE = """
    /proc/acpi /proc/bus /proc/fs /proc/irq /proc/kcore /proc/keys /proc/latency_stats
    /proc/sched_debug /proc/scsi /proc/sys /proc/sysrq-trigger /proc/timer_list
    /proc/timer_stats /sys/firmware
"""
MASKABLE = tuple(_MASKABLE.split())
#: File systems recognised by name alone: they are never the source of a mount.
NO_FILES = frozenset({"cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs"})
#: Errors that the container's programs cause by moving folders. Other errors are a file system's.
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
    """Return the effective state of the process *pid*, the container's first process.

    *targets* are mount paths to resolve inside the container. Blocks as long as the file systems
    do.
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
    if mismatch := _mismatch(process, cgroups, container):
        return mismatch
    status = wait_for_program(lambda: procfs.read_status(_text("status", process)))
    users = procfs.read_id_map(_text("uid_map", process))
    groups = procfs.read_id_map(_text("gid_map", process))
    host = _text("/proc/self/mountinfo")
    mounts = procfs.read_mounts(_text("mountinfo", process))
    reached, roots = _read_inside(process, targets, mounts)
    effective = EffectiveState(
        uid=users.inside(status.uid),
        gid=groups.inside(status.gid),
        groups=tuple(map(groups.inside, status.groups)),
        capabilities=status.capabilities,
        no_new_privileges=status.no_new_privileges,
        seccomp=status.seccomp,
        shared=_shared_namespaces(process),
        mounts=mounts,
        reached=reached,
        roots=roots,
        program=_program(process),
        host_tmpfs=frozenset(mount.device for mount in _lines_with(" - tmpfs ", host)),
        host_root=users.has_host_root,
        limits=_limits(cgroups, container, host),
        maskable=tuple(filter(os.path.exists, MASKABLE)),
        starting=status.is_starting,
    )
    # The process can have ended during the reads, and its state with it.
    return _mismatch(process, procfs.read_cgroups(_text("cgroup", process)), container) or effective


def _mismatch(process: int, cgroups: Cgroups, container: str) -> NotReadable | None:
    """Return why the process is not the container's, or None if it is."""
    if cgroups.is_leaving(container) or procfs.read_status(_text("status", process)).has_ended:
        return _ENDED
    if not cgroups.has_container(container):
        return NotReadable("the broker sees another process under that number")
    return None


def wait_for_program(
    read: Callable[[], Status], pause: Callable[[float], None] = time.sleep
) -> Status:
    """Return the status of a process, after the start of its program.

    The kernel reports no exec event, so this polls for 15 ms at most, in the reader's own thread.
    A program that starts later is checked again (``guards.kernel_verify``).
    """
    status = read()
    for _ in range(EXEC_POLLS):
        if not status.is_starting:
            break
        pause(EXEC_POLL_S)
        status = read()
    return status


def _text(name: str, folder: int | None = None) -> str:
    """Return the text of a file of the kernel, below an open folder or at an absolute path.

    A start waits for ten such texts, so each is read without the objects and buffers of ``open``.
    """
    handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        parts, size = [], 0
        while part := os.read(handle, _PART_BYTES):
            parts.append(part)
            size += len(part)
            if size > TEXT_BYTES_MAX:
                raise ValueError(f"{name} is longer than {TEXT_BYTES_MAX} bytes")
    finally:
        os.close(handle)
    return os.fsdecode(b"".join(parts))


def _shared_namespaces(process: int) -> tuple[str, ...]:
    """Return the namespaces that the process shares with the broker."""
    return tuple(
        name
        for name in (*NAMESPACES, "cgroup")
        if os.readlink(f"ns/{name}", dir_fd=process) == os.readlink(f"/proc/self/ns/{name}")  # noqa: PTH115 - six a start
    )


def _program(process: int) -> tuple[int, int]:
    """Return device and inode of the executable, zeros if the file system reports an error."""
    try:
        status = os.stat("exe", dir_fd=process)
    except (FileNotFoundError, ProcessLookupError):
        raise
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def _read_inside(
    process: int, targets: tuple[str, ...], mounts: tuple[MountinfoLine, ...]
) -> tuple[tuple[MountPath, ...], tuple[Root, ...]]:
    """Resolve the targets, and return the root object of each mount with files."""
    root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
    try:
        reached = tuple(MountPath(target, _mount_at(root, target)) for target in targets)
        files = (mount for mount in mounts if mount.filesystem not in NO_FILES)
        return reached, tuple(top for mount in files if (top := root_of(root, mount)))
    finally:
        os.close(root)


def _mount_at(root: int, target: str) -> int:
    """Return the id of the mount that holds a path, -1 for an unusable path."""
    try:
        handle = open_in_root(target, root=root)
    except OSError:
        return -1  # an unusable path proves nothing
    try:
        return mount_id(handle)
    finally:
        os.close(handle)


def root_of(root: int, mount: MountinfoLine) -> Root | None:
    """Return the object at the root of a mount, None if its path leads to another mount now.

    Raises:
        PermissionError: the broker lacks CAP_DAC_READ_SEARCH.
    """
    try:
        handle = open_in_root(mount.point, root=root, links=False)
    except OSError as error:
        if error.errno in BY_CONTAINER:
            return None
        if isinstance(error, PermissionError) and not _can_search():
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


def _can_search() -> bool:
    """Return True if the broker can enter every folder, except by a file system's own rules."""
    capabilities = procfs.read_status(Path("/proc/self/status").read_text()).capabilities["Eff"]
    return bool(capabilities & mask_of(("DAC_READ_SEARCH", "DAC_OVERRIDE")))


def _lines_with(text: str, mountinfo: str) -> tuple[MountinfoLine, ...]:
    """Return the mounts of the lines with *text*. A host has hundreds; paths have no blanks."""
    return procfs.read_mounts("\n".join(filter(lambda each: text in each, mountinfo.split("\n"))))


def _limits(cgroups: Cgroups, container: str, mountinfo: str) -> CgroupLimits:
    """Return the limits of the container's cgroup. A limit without a file stays None."""
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
            files |= _read_files(folder, _FILES_V1[controller])
        return _parse_limits(procfs.limits_v1, files)
    unified = next((mount for mount in mounts if mount.filesystem == "cgroup2"), None)
    if unified is None:
        return CgroupLimits()
    folder = cgroup_folder(unified.point, unified.root, cgroups.unified, container)
    return _parse_limits(procfs.limits_v2, _read_files(folder, _FILES_V2))


def _parse_limits(
    read: Callable[[Mapping[str, str]], CgroupLimits], files: Mapping[str, str]
) -> CgroupLimits:
    try:
        return read(files)
    except ValueError:
        return CgroupLimits()


def cgroup_folder(point: str, root: str, path: str, container: str) -> Path | None:
    """Return the folder of a container's cgroup, below the mount at *point* of *root*.

    The process can be in a cgroup below, but the limits are in the container's own cgroup. None
    for a path outside of the mount, as in another cgroup namespace.
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


def _read_files(folder: Path | None, names: tuple[str, ...]) -> dict[str, str]:
    texts = {}
    for name in names if folder is not None else ():
        try:
            texts[name] = _text(f"{folder}/{name}")
        except OSError:
            continue
    return texts


PROC = Path("/proc")
#: Processes of one session killed at most. A container's limit on processes is lower.
PROCESSES_MAX = 4096
#: The index of the session in the fields of /proc/PID/stat after the name: state, ppid, pgrp,
#: session.
_SESSION = 3


def kill_session(pid: int, container: str, *, proc: Path = PROC) -> str:
    """Kill a process of a container and its session. Return '' or the reason of a failure.

    A process that left the session, such as a daemon, stays until the end of the container.
    """
    if pid <= 1 or not re.fullmatch(r"[0-9a-f]{64}", container):
        return "the engine names no process"
    failure = _kill(pid, container, proc)
    for other in _session_of(pid, proc):
        _kill(other, container, proc)
    return failure


def _kill(pid: int, container: str, proc: Path) -> str:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return ""  # ended, or on another host: the engine reports the exit
    except OSError as error:
        return f"process {pid} can't be reached: {os.strerror(error.errno or 0)}"
    try:
        if container not in (proc / str(pid) / "cgroup").read_text("ascii", "replace"):
            return f"process {pid} isn't one of the container's, as far as this host shows"
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return ""
    except OSError as error:
        return f"process {pid} can't be ended: {os.strerror(error.errno or 0)}"
    finally:
        os.close(handle)
    return ""


def _session_of(pid: int, proc: Path) -> Iterator[int]:
    """Yield the other processes of a session. The engine starts one session for each exec."""
    count = 0
    for folder in proc.iterdir():
        if not folder.name.isdigit() or int(folder.name) == pid or count == PROCESSES_MAX:
            continue
        try:
            stat = (folder / "stat").read_text("ascii", "replace")
        except OSError:
            continue  # ended since the listing
        words = stat.rpartition(")")[2].split()
        if len(words) > _SESSION and words[_SESSION] == str(pid):
            count += 1
            yield int(folder.name)


#: Processes and descriptors that are looked at, at most.
CONNECTED_MAX, DESCRIPTORS_MAX = 1024, 65536
#: How often connections are looked for, and the pause in between: one that isn't accepted yet has no
#: descriptor, and a process that was just forked can have one that is.
LOOKS, PAUSE_S = 60, 0.005
#: Looks in a row that must find nothing: the kernel's table can leave out a row while it changes.
QUIET_LOOKS = 4
_LISTEN = 0x0A
#: TIME_WAIT and CLOSE: nobody waits for an answer.
_CLOSED = (0x06, 0x07)
#: ESTABLISHED and CLOSE_WAIT. In other states one without a descriptor was closed by its process.
_OPEN = (0x01, 0x08)
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")
#: IP_MINTTL (ip(7)): the kernel drops packets with a lower TTL. Senders use 64 or 128; 0 takes all.
#: A socket filter would do the same, but some kernels let only privileged processes attach one.
_IP_MINTTL, _TTL_MAX = 21, 255


def execute(pid: int, container: str, address: str, *, proc: Path = PROC) -> str:
    """End the TCP connections of a container at an address, and drop new ones; '' to take new ones again.

    *pid* is the container's first process, as the engine reports it. Nothing is done if the process isn't
    the container's on this host, or if the kernel doesn't allow it. Always returns ''.
    """
    with suppress(OSError):
        processes = _processes(pid, container, proc)
        for copy in _copies(processes, _sockets(pid, "", proc).listening, proc):
            with suppress(OSError):
                copy.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, _TTL_MAX if address else 0)
        quiet = 0
        for _ in range(LOOKS if address else 0):
            found = _sockets(pid, address, proc)
            quiet = 0 if found.connected or found.pending else quiet + 1
            if quiet == QUIET_LOOKS:
                break
            for copy in _copies(_processes(pid, container, proc), found.connected, proc):
                with suppress(OSError):  # it ended
                    syscalls.disconnect(copy.fileno())
            time.sleep(PAUSE_S)
    return ""


def _processes(pid: int, container: str, proc: Path) -> list[int]:
    """Return the first process of a container and its descendants, which orphans are too (proc(5))."""
    if pid <= 1 or container not in (proc / str(pid) / "cgroup").read_text("ascii", "replace"):
        return []
    found = [pid]
    for each in found:  # grows meanwhile
        with suppress(OSError):  # it ended
            for task in (proc / str(each) / "task").iterdir():
                found += map(int, (task / "children").read_text("ascii").split())
        if len(found) >= CONNECTED_MAX:
            break
    return found


@dataclass(slots=True)
class _Found:
    """Sockets by inode."""

    listening: set[str] = field(default_factory=set)
    connected: set[str] = field(default_factory=set)
    #: Connections that no process has accepted yet.
    pending: int = 0


def _sockets(pid: int, address: str, proc: Path) -> _Found:
    """Return the listening sockets, and the connected ones at an address; all for ''."""
    found = _Found()
    for name in ("tcp", "tcp6"):
        try:
            rows = (proc / str(pid) / "net" / name).read_text("ascii").splitlines()[1:]
        except (OSError, ValueError):
            continue
        for row in rows:
            fields = row.split()
            local, state, inode = fields[1].partition(":")[0], int(fields[3], 16), fields[9]
            if state == _LISTEN:
                found.listening.add(inode)
            elif state in _CLOSED or _address(local[-8:]) != address:
                continue
            elif inode == "0":
                found.pending += state in _OPEN
            else:
                found.connected.add(inode)
    return found


def _address(digits: str) -> str:
    """Return an address from the kernel's hexadecimal form; of an IPv6 one, the last 4 bytes."""
    number = int.from_bytes(bytes.fromhex(digits), "big")
    return str(IPv4Address(number.to_bytes(4, sys.byteorder)))


def _copies(processes: list[int], inodes: set[str], proc: Path) -> Iterator[socket.socket]:
    """Yield a copy of each socket. It is closed afterwards."""
    left, looked = set(inodes), 0
    for pid in processes:
        with suppress(OSError):  # it ended, or isn't to be reached
            handle = os.pidfd_open(pid)
            try:
                for entry in (proc / str(pid) / "fd").iterdir():
                    looked += 1
                    found = _SOCKET.fullmatch(str(entry.readlink()))
                    if found is None or found[1] not in left or looked > DESCRIPTORS_MAX:
                        continue
                    left.discard(found[1])
                    descriptor = syscalls.pidfd_getfd(handle, int(entry.name))
                    with socket.socket(fileno=descriptor) as copy, suppress(OSError):
                        yield copy
            finally:
                os.close(handle)
