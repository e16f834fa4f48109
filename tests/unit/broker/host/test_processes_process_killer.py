"""Killing processes: only processes with the container in their cgroup."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from controller.broker.host.processes import kill_session

CONTAINER = "ab" * 32


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A separate session like that of an exec: a shell and another process."""
    started = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    yield started
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.communicate()


def shown(root: Path, pid: int, *, cgroup: str, session: int) -> None:
    """Write the files of a process in /proc."""
    folder = root / str(pid)
    folder.mkdir()
    (folder / "cgroup").write_text(f"0::/docker/{cgroup}\n")
    (folder / "stat").write_text(f"{pid} (a ) b) S 1 {session} {session} 0 -1\n")


def test_a_session_of_the_container_is_ended_whole(
    child: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert child.stdout is not None
    other = int(child.stdout.readline())
    shown(tmp_path, child.pid, cgroup=CONTAINER, session=child.pid)
    shown(tmp_path, other, cgroup=CONTAINER, session=child.pid)
    assert kill_session(child.pid, CONTAINER, proc=tmp_path) == ""
    assert child.wait(timeout=10) == -9
    assert child.stdout.read() == b"", "the other process, which held the pipe, has ended"


def test_a_process_of_another_cgroup_is_left_alone(
    child: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    shown(tmp_path, child.pid, cgroup="cd" * 32, session=child.pid)
    why = f"process {child.pid} isn't one of the container's, as far as this host shows"
    assert kill_session(child.pid, CONTAINER, proc=tmp_path) == why
    assert kill_session(child.pid, CONTAINER) == why, "nor by what the kernel itself shows of it"
    assert child.poll() is None


@pytest.mark.parametrize(
    ("pid", "container"), [(0, CONTAINER), (1, CONTAINER), (-1, CONTAINER), (7, ""), (7, "/")]
)
def test_what_names_no_process_ends_none(pid: int, container: str) -> None:
    assert kill_session(pid, container) == "the engine names no process"


def test_a_process_that_has_ended_already_is_ended(tmp_path: Path) -> None:
    """The engine reports a process for a moment after its end."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert kill_session(ended.pid, CONTAINER, proc=tmp_path) == ""
