"""Linux system calls without a Python function, and the groups of a peer. Each raises OSError on failure.

Sources: prctl(2), capset(2), unshare(2), mount(2), pidfd_getfd(2), connect(2), linux/capability.h.

A seccomp filter: the only system calls that this process makes from now on.

All others fail with EPERM. The filter is a small BPF program: check the architecture, then compare
the number with each permitted one. Sources: seccomp(2), linux/seccomp.h, linux/audit.h, and the
kernel's tables of system calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import socket
import struct
from collections.abc import Collection
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLONE_NEWNS = 0x00020000
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19

_CAPABILITY_VERSION_3 = 0x20080522
#: The number of a system call since Linux 5.6, the same on all architectures.
_PIDFD_GETFD = 438


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int = 0) -> int:
    """Call prctl(2)."""
    return _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def prctl_pointer(option: int, value: int, pointer: object) -> int:
    """Call prctl(2) with a pointer as its third argument."""
    return _check(_libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0), f"prctl {option}")


def forbid_core_dumps() -> None:
    """Keep the memory of this process out of core dumps, and from debuggers of the same user.

    Hosts that pipe core dumps to a program ignore the limit (core(5)), but respect the attribute. An exec
    of another program resets the attribute. Raise OSError if the kernel refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(PR_SET_DUMPABLE, 0)


def unshare_mounts() -> None:
    """Enter a private mount namespace. Later mounts of the host still propagate into it."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", flags=MS_SLAVE | MS_REC)


def mount(
    source: str, target: str, *, filesystem: str = "", flags: int = 0, data: str = ""
) -> None:
    """Call mount(2)."""
    _check(
        _libc.mount(
            source.encode(),
            target.encode(),
            filesystem.encode() or None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        f"mount {target}",
    )


def limit_bounding_set(keep: Collection[int] = ()) -> None:
    """Drop all capabilities but *keep* from the bounding set. Needs CAP_SETPCAP."""
    for capability in range(64):
        try:
            is_present = prctl(PR_CAPBSET_READ, capability)
        except OSError:
            return  # beyond the kernel's last capability
        if is_present and capability not in keep:
            prctl(PR_CAPBSET_DROP, capability)


def limit_capability_sets(keep: Collection[int] = ()) -> None:
    """Drop all capabilities but *keep* from the permitted and effective sets.

    The ambient and inheritable sets become empty. *keep* adds no capability that is not permitted.
    """
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Effective, permitted and inheritable set: three low words, then three high words.
    sets = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, sets), "capget")
    mask = sum(1 << capability for capability in keep) & sets[1]
    sets[0], sets[1], sets[2] = mask, mask, 0
    sets[3], sets[4], sets[5] = 0, 0, 0
    _check(_libc.capset(header, sets), "capset")


def sync_filesystem(folder: Path) -> None:
    """Call syncfs(2): make everything durable that was written to the filesystem of *folder*."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(_libc.syncfs(handle), "syncfs")
    finally:
        os.close(handle)


def pidfd_getfd(process: int, descriptor: int) -> int:
    """Return a copy of a descriptor of another process, which is given by its pidfd (pidfd_getfd(2))."""
    number = ctypes.c_long(_PIDFD_GETFD)
    return int(_check(_libc.syscall(number, process, descriptor, 0), "pidfd_getfd"))


def disconnect(descriptor: int) -> None:
    """Dissolve the association of a socket; TCP resets the connection (connect(2), AF_UNSPEC)."""
    nowhere = ctypes.create_string_buffer(16)  # a struct sockaddr of the family AF_UNSPEC
    _check(_libc.connect(descriptor, nowhere, 16), "connect")


_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_RET_ALLOW = 0x7FFF0000
_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
#: Offsets in struct seccomp_data.
_NUMBER, _ARCHITECTURE = 0, 4

#: Memory, open descriptors, clocks, locks, random bytes, signals and timers of the own process, and the end.
#: In the order of the names: numbers of x86-64 and of arm64. -1: no such call there.
_CALLS = {
    "brk": (12, 214),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "close": (3, 57),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "fstat": (5, 80),
    "futex": (202, 98),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "gettid": (186, 178),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "poll": (7, -1),
    "ppoll": (271, 73),
    "read": (0, 63),
    "restart_syscall": (219, 128),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "setitimer": (38, 103),
    "sigaltstack": (131, 132),
    "write": (1, 64),
}
#: AUDIT_ARCH of each machine, with its column of ``_CALLS``.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def permit_computing_only() -> None:
    """Permit only what a computation over open pipes needs, in this thread, for good.

    Call before a second thread starts, and after no-new-privileges is set.

    Raises:
        OSError: an unknown machine, or the kernel refuses.
    """
    program = _filter(platform.machine())
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = ctypes.cast(buffer, ctypes.c_void_p)
    fprog = _Program(len(program) // 8, pointer)
    prctl_pointer(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(fprog))


def _filter(machine: str) -> bytes:
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no seccomp filter for {machine}")
    architecture, column = _MACHINES[machine]
    numbers = sorted(call[column] for call in _CALLS.values() if call[column] >= 0)
    parts = [
        _instruction(_LOAD_WORD, value=_ARCHITECTURE),
        _instruction(_JUMP_IF_EQUAL, jump_true=1, value=architecture),
        _instruction(_RETURN, value=_RET_KILL_PROCESS),
        _instruction(_LOAD_WORD, value=_NUMBER),
        *(
            # Jumps to the last instruction; the numbers of x32 equal none of these.
            _instruction(_JUMP_IF_EQUAL, jump_true=len(numbers) - index, value=number)
            for index, number in enumerate(numbers)
        ),
        _instruction(_RETURN, value=_RET_ERRNO | errno.EPERM),
        _instruction(_RETURN, value=_RET_ALLOW),
    ]
    return b"".join(parts)


def _instruction(code: int, *, jump_true: int = 0, value: int = 0) -> bytes:
    """Return a struct sock_filter; a false comparison goes on with the next instruction."""
    return struct.pack("=HBBI", code, jump_true, 0, value)


_SO_PEERGROUPS = 59
_UCRED = struct.Struct("iII")  # pid, uid, gid
#: Groups read at first: the memory for all costs more than the call. NGROUPS_MAX of the kernel.
_FEW_GROUPS, _GROUPS_MAX = 64, 65536


def peer_groups(connection: socket.socket) -> frozenset[int]:
    """Return the gids of a peer: its own, and the supplementary ones. Python's getsockopt supports only 256.

    Raises:
        OSError: the kernel returns no credentials.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    own: int = _UCRED.unpack(raw)[2]
    option = (connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS)
    for count in (_FEW_GROUPS, _GROUPS_MAX):
        groups = (ctypes.c_uint32 * count)()
        size = ctypes.c_uint32(ctypes.sizeof(groups))
        if _libc.getsockopt(*option, groups, ctypes.byref(size)) == 0:
            return frozenset((own, *groups[: size.value // ctypes.sizeof(ctypes.c_uint32)]))
        if ctypes.get_errno() != errno.ERANGE:
            break
    return frozenset({own})  # no further group grants nothing
