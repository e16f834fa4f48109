"""Run a program of the host with a closed environment and bounds on time, memory and output."""

from __future__ import annotations

import errno
import os
import select
import selectors
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 64 * 1024
#: The time between two looks at what a program writes.
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of a run. Units: seconds, bytes."""

    time_s: float
    output_max: int
    #: Address space of each process.
    memory_max: int = 1 << 30
    #: Longest file that the program can write.
    file_max: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a run."""

    #: The exit code, or the negative signal number.
    code: int
    output: bytes
    #: The end of what the program wrote to stderr.
    errors: str
    #: The bound that ended the run: ``time``, ``output``, ``files``, or '' for none.
    exceeded: str = ""

    @property
    def is_success(self) -> bool:
        return self.code == 0 and not self.exceeded


def run_program(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    bounds: Bounds,
    monotonic: Callable[[], float],
    given: bytes = b"",
    folder: Path | None = None,
    is_full: Callable[[], bool] = lambda: False,
) -> Finished:
    """Run a program to its end, with *given* as its input. Its processes end with the run.

    *is_full* returns True if all files of the program together are beyond their bound.

    Raises:
        OSError: the program can't be started.
    """
    if shutil.which(argv[0], path=environment.get("PATH")) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    handle = os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        os.write(handle, given)
        os.lseek(handle, 0, os.SEEK_SET)
        process = subprocess.Popen(
            (*_limits(bounds), *argv),
            env=dict(environment),
            stdin=handle,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            start_new_session=True,
        )
    finally:
        os.close(handle)
    with process:
        try:
            output, errors, exceeded = _read(process, bounds, monotonic, is_full)
        finally:
            _kill_all(process)
    return Finished(process.returncode, output, errors.decode("utf-8", "replace"), exceeded)


def _limits(bounds: Bounds) -> tuple[str, ...]:
    """Return the start of a command that sets limits, then runs the rest (prlimit(1))."""
    return (
        "/usr/bin/prlimit",
        f"--as={bounds.memory_max}",
        f"--fsize={bounds.file_max}",
        "--core=0",
        "--",
    )


def end_programs() -> None:
    """End the programs that other threads of this process run. For the end of the process."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            for pid in (task / "children").read_text().split():
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(int(pid), signal.SIGKILL)


def _read(
    process: subprocess.Popen[bytes],
    bounds: Bounds,
    monotonic: Callable[[], float],
    is_full: Callable[[], bool],
) -> tuple[bytes, bytes, str]:
    """Read both outputs until the program ends, or a bound is reached. Doesn't reap the program."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = bytearray(), bytearray()
    next_look = monotonic() + _LOOK_S
    deadline = monotonic() + bounds.time_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, errors)
        while selector.get_map():
            ready = selector.select(max(0.0, min(deadline, next_look) - monotonic()))
            if (now := monotonic()) >= deadline:  # also for a program that never stops to write
                return bytes(output), bytes(errors), "time"
            if now >= next_look:
                next_look = now + _LOOK_S
                if is_full():
                    return bytes(output), bytes(errors), "files"
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
            if len(output) > bounds.output_max:
                return bytes(output[: bounds.output_max]), bytes(errors), "output"
            del errors[:-_CHUNK]
    is_over = _await_end(process.pid, within_s=max(0.0, deadline - monotonic()))
    return bytes(output), bytes(errors), "" if is_over else "time"


def _await_end(pid: int, *, within_s: float) -> bool:
    """Wait for the end of a child without reaping it, so that its process group stays its own."""
    handle = os.pidfd_open(pid)
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it started: they are one process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
