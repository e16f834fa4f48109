"""The few Linux calls that Python has no name for, each raising OSError like any other.

Sources: prctl(2), capset(2), unshare(2), mount(2), linux/capability.h.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
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


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int = 0) -> int:
    """Call prctl(2)."""
    return _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def unshare_mounts() -> None:
    """Enter a mount namespace of our own, into which the host's later mounts still propagate."""
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


def empty_bounding_set() -> None:
    """Drop every capability from the bounding set; takes CAP_SETPCAP."""
    for capability in range(64):
        try:
            present = prctl(PR_CAPBSET_READ, capability)
        except OSError:
            return  # beyond the kernel's last capability
        if present:
            prctl(PR_CAPBSET_DROP, capability)


def empty_capability_sets() -> None:
    """Empty the ambient, inheritable, permitted and effective sets."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(header, sets), "capset")
