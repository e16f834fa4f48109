"""Processor time and memory of processes, read from /proc (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path

from tests.instance import descendants


def family(pid: int) -> list[int]:
    """Return a process and all processes below it."""
    return [pid, *descendants(pid)]


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process used so far; 0 for a process that ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    """Return the proportional set size in MB: shared pages count by their share."""
    return _kib(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss:") * 1024 / 1e6


def peak_mb(pid: int) -> float:
    """Return the largest resident set so far in MB."""
    return _kib(Path(f"/proc/{pid}/status").read_text(), "VmHWM:") * 1024 / 1e6


def _kib(text: str, member: str) -> int:
    for line in text.splitlines():
        if line.startswith(member):
            return int(line.split()[1])
    raise AssertionError(f"no {member} in {text!r}")
