"""Ending the connections of a container before its address moves to another container.

Without that a client that waits for an answer would wait for ever: the engine takes the container's
interface away, and nothing that the container sends arrives any more. New connections are dropped
silently meanwhile, so that clients try again and reach the other container.

The sockets belong to processes of the container. A copy of such a descriptor needs CAP_SYS_PTRACE
(pidfd_getfd(2)); the broker enters no namespace. Sources: proc(5), socket(7), connect(2), tcp(7).
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from controller.system import syscalls

PROC = Path("/proc")
#: Processes and descriptors that are looked at, at most.
PROCESSES_MAX, DESCRIPTORS_MAX = 1024, 65536
#: How often connections are looked for, and the pause in between: one that isn't accepted yet has no
#: descriptor, and a process that was just forked can have one that is.
LOOKS, PAUSE_S = 60, 0.005
#: Looks in a row that must find nothing: the kernel's table can leave out a row while it changes.
QUIET_LOOKS = 4
_LISTEN = 0x0A
#: TIME_WAIT and CLOSE: nobody waits for an answer.
_ENDED = (0x06, 0x07)
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
        if len(found) >= PROCESSES_MAX:
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
            elif state in _ENDED or _address(local[-8:]) != address:
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
