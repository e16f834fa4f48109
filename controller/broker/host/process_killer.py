"""Ending a process that an exec left in a container: the engine has no call for that.

The engine names a pid, which may be another's by the time it is signalled, or one of another
host. So a process counts only while its cgroup names the container, and is signalled by a handle
(pidfd) that was opened before that was looked at. As root this takes CAP_KILL.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
#: Processes of one session that are ended; a container's own limit on processes is lower.
PROCESSES_MAX = 4096
_SESSION = 5 - 2  # of what follows the name in /proc/PID/stat: state, ppid, pgrp, session


def end(pid: int, container: str, *, proc: Path = PROC) -> str:
    """Kill a process of a container and those of its session; return '' or why it wasn't done.

    A process that left the session (a daemon) stays: it ends with the container.
    """
    if pid <= 1 or not re.fullmatch(r"[0-9a-f]{64}", container):
        return "the engine names no process"
    done = _kill(pid, container, proc)
    for other in _of_session(pid, proc):
        _kill(other, container, proc)
    return done


def _kill(pid: int, container: str, proc: Path) -> str:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return ""  # it ended by now, or it is one of another host's: the engine will tell
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


def _of_session(pid: int, proc: Path) -> Iterator[int]:
    """Yield the other processes of a session; the engine begins one for each exec."""
    found = 0
    for folder in proc.iterdir():
        if not folder.name.isdigit() or int(folder.name) == pid or found == PROCESSES_MAX:
            continue
        try:
            stat = (folder / "stat").read_text("ascii", "replace")
        except OSError:
            continue  # it ended meanwhile
        words = stat.rpartition(")")[2].split()
        if len(words) > _SESSION and words[_SESSION] == str(pid):
            found += 1
            yield int(folder.name)
