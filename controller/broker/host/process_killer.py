"""Killing a process that an exec session left in a container: the engine has no call for it.

The engine reports a pid. By the time of the signal, the pid can belong to another process or, with
a remote engine, to another host. So the process is opened as a pidfd first, and its cgroup must
name the container. The pidfd gets the signal. A broker with the uid of root needs CAP_KILL.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

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
