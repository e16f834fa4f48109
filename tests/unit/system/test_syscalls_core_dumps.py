"""A process that forbids core dumps leaves none when it aborts, with whatever it holds in memory."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.leaks import core_files_permitted, leaks_below

SECRET = b"geheim-0123456789"
SCRIPT = f"""
import ctypes, os, signal, sys
from controller.system import syscalls
secret = bytes({[*SECRET]})
if sys.argv[1] == "forbidden":
    syscalls.forbid_core_dumps()
    assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
os.kill(os.getpid(), int(sys.argv[2]))
"""
PATTERN = Path("/proc/sys/kernel/core_pattern")


def left_by(how: str, number: int, folder: Path) -> list[str]:
    with core_files_permitted():
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, how, str(int(number))],
            cwd=folder,
            env={"PYTHONPATH": str(Path(__file__).parents[3])},
            check=False,
        )
    assert ended.returncode == -number
    return list(leaks_below(folder, SECRET))


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGQUIT, signal.SIGSEGV])
def test_a_process_that_forbids_core_dumps_leaves_none(number: int, tmp_path: Path) -> None:
    assert left_by("forbidden", number, tmp_path) == []
    assert [*tmp_path.iterdir()] == []


def test_the_search_finds_the_secret_in_a_core_file_of_another_process(tmp_path: Path) -> None:
    is_file = not PATTERN.read_text().startswith(("|", "/"))
    is_limited = resource.getrlimit(resource.RLIMIT_CORE)[1] == 0
    found = left_by("permitted", signal.SIGABRT, tmp_path)
    # A host that pipes core dumps to a program, or has no right to them, shows nothing here.
    assert bool(found) == (is_file and not is_limited)
