"""A seccomp filter: the only system calls that this process makes from now on.

All others fail with EPERM. The filter is a small BPF program: check the architecture, then compare
the number with each permitted one. Sources: seccomp(2), linux/seccomp.h, linux/audit.h, and the
kernel's tables of system calls.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

from controller.system import syscalls

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
    syscalls.prctl_pointer(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(fprog))


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
