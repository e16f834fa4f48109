"""A program is run within its bounds, and nothing of it stays."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from controller.system.child_programs import Bounds, Finished, end_programs, run_program

PATH = {"PATH": os.environ["PATH"]}


def run(
    script: str,
    *,
    time_s: float = 30.0,
    output_max: int = 1000,
    given: bytes = b"",
    is_full: Callable[[], bool] = lambda: False,
) -> Finished:
    bounds = Bounds(time_s=time_s, output_max=output_max, file_max=4096)
    argv = ("sh", "-c", script)
    return run_program(
        argv,
        environment=PATH,
        bounds=bounds,
        monotonic=time.monotonic,
        given=given,
        is_full=is_full,
    )


def test_input_output_and_exit_code_are_passed() -> None:
    finished = run("cat; echo trouble >&2; exit 3", given=b"text")
    assert (finished.code, finished.output, finished.errors) == (3, b"text", "trouble\n")
    assert not finished.is_success


def test_the_environment_is_closed() -> None:
    assert b"HOME" not in run("env").output


def test_time_is_bounded_also_for_what_the_program_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    finished = run(f"sleep 1000 3> {fifo} & echo started; wait", time_s=0.5)
    assert (finished.exceeded, finished.output) == ("time", b"started\n")
    select.select([reader], [], [], 10.0)
    assert os.read(reader, 1) == b""  # nobody has it open for writing any more
    os.close(reader)


def test_programs_of_other_threads_are_ended_with_the_process() -> None:
    finished: list[Finished] = []
    read_end, write_end = os.pipe()
    script = f"echo x > /proc/{os.getpid()}/fd/{write_end}; sleep 1000"
    thread = threading.Thread(target=lambda: finished.append(run(script)))
    thread.start()
    assert os.read(read_end, 1) == b"x"
    end_programs()
    thread.join(10.0)
    assert [each.code for each in finished] == [-signal.SIGKILL]
    os.close(read_end)
    os.close(write_end)


def test_a_missing_program_is_an_error() -> None:
    bounds = Bounds(time_s=1.0, output_max=1)
    with pytest.raises(FileNotFoundError, match="nonesuch"):
        run_program(["nonesuch"], environment=PATH, bounds=bounds, monotonic=time.monotonic)


def test_a_program_that_closes_its_output_is_bounded_too() -> None:
    assert run("exec >&- 2>&-; sleep 1000", time_s=0.5).exceeded == "time"


def test_output_is_bounded() -> None:
    finished = run("yes", output_max=10)
    assert (finished.exceeded, len(finished.output)) == ("output", 10)


def test_the_end_of_the_errors_is_kept() -> None:
    finished = run("yes x | head -c 1000000 >&2; echo last >&2")
    assert finished.errors.endswith("last\n")
    assert len(finished.errors) < 200_000


def test_files_are_bounded(tmp_path: Path) -> None:
    assert not run(f"head -c 100000 /dev/zero > {tmp_path}/file").is_success
    assert (tmp_path / "file").stat().st_size <= 4096


def test_all_files_together_are_bounded() -> None:
    assert run("sleep 1000", is_full=lambda: True).exceeded == "files"


def test_a_program_that_never_stops_to_write_is_bounded() -> None:
    """Each look at the clock takes a second, and there always is something to read."""
    bounds = Bounds(time_s=3.0, output_max=1000)
    seconds = count(step=1.0)
    finished = run_program(
        ("sh", "-c", "head -c 1000000 /dev/zero >&2"),
        environment=PATH,
        bounds=bounds,
        monotonic=lambda: next(seconds),
    )
    assert finished.exceeded == "time"
