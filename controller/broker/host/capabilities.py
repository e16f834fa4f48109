"""The broker's priority, and dropping the privileges that the broker doesn't need, before it serves.

A broker that runs as root keeps the capabilities of ``KEPT_FOR``, in the effective, permitted and
bounding sets.

Without CAP_DAC_OVERRIDE, root obeys file modes on writes. So the state folder must belong to root,
and root must be allowed to open the engine's socket. A rootless engine's socket belongs to its
user: keep ``DAC_OVERRIDE`` there.

Capability sets and priorities are per thread: call both functions before the first thread starts.
Sources: capabilities(7), prctl(2), linux/capability.h, sched(7).
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller.system import syscalls

CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "DAC_READ_SEARCH": 2,
    "FOWNER": 3,
    "KILL": 5,
    "SYS_PTRACE": 19,
}
#: The capabilities to keep, each with its purpose.
KEPT_FOR = {
    "CHOWN": "give the socket to the group trimtab, and files to the users of containers",
    "DAC_READ_SEARCH": "walk to bind sources under closed folders, read what the kernel shows",
    "KILL": "end what an exec left running in a container when its time is over",
    "SYS_PTRACE": "read the pid namespace of peers and the state of containers' processes, and end connections"
    " of containers whose address moves",
}
KEPT = tuple(KEPT_FOR)
#: All connections that ``server.connection_limit`` allows, and files and paths.
NOFILE = 4096
UMASK = 0o077
#: The broker's nice value: on a busy processor, the weight of nine ordinary programs.
NICE = -10
#: The nice value of a session, where the sessions share the processors (sched(7), autogroup).
SESSION_NICE = Path("/proc/self/autogroup")


@dataclass(frozen=True, slots=True)
class Privileges:
    """The privileges left."""

    #: False for a broker that doesn't run as root, and so had no capabilities to drop.
    bounded: bool
    #: The names of the kept capabilities.
    kept: tuple[str, ...]


def descriptor_limit() -> int:
    """Return how many file descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_priority() -> bool:
    """Let the broker run before other programs on a busy host. Return False without the right to.

    Otherwise each turn of the event loop waits for a processor, behind the programs of a client.
    The session's value changes only if the session is the broker's own, as below ``trimtab up``.
    """
    try:
        now = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, min(now, NICE))
    except PermissionError:
        return False
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # a kernel without groups of sessions
            SESSION_NICE.write_text(str(NICE), encoding="ascii")
    return True


def drop_privileges(*, keep: tuple[str, ...] = KEPT) -> Privileges:
    """Drop all other privileges for good, in this thread and in every thread started later.

    Every broker gets: no new privileges, no core dumps, no debugger of the same user, a tight
    umask, and a limit on open files. A broker that runs as root also drops capabilities.

    Raises:
        OSError: the kernel refuses.
    """
    os.umask(UMASK)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = NOFILE if hard == resource.RLIM_INFINITY else min(NOFILE, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    root = os.geteuid() == 0
    if root:
        kept = [CAPABILITIES[name] for name in keep]
        syscalls.limit_bounding_set(kept)
        syscalls.limit_capability_sets(kept)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.forbid_core_dumps()
    return Privileges(bounded=root, kept=tuple(sorted(keep)) if root else ())
