"""Programs and children of the host with bounds on time, memory and output.

Run a program of the host with a closed environment and bounds on time, memory and output.

A long-lived child that answers requests over two pipes: it is started, asked, renewed and ended.

A request and its answer are frames: four bytes of length, then JSON. Raw bytes can follow a request, in
the number of its member ``rawBytes``. An answer ``{"parts": N}`` is followed by so many frames, each of
a bounded length: the parser of JSON lets no other thread run. A request has a deadline. A child
that dies or is late is ended, and the next request starts another. The request itself fails and isn't
repeated, because the request may be the reason. A child is also ended after any other fault within a
request: its next answer would belong to this request.
"""

from __future__ import annotations

import errno
import json
import math
import os
import select
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
    """Wait for the end of a child without reaping: the id of the process group stays taken."""
    handle = os.pidfd_open(pid)
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group of the program, and wait for the end of the program."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


START_S = 30.0
#: The shortest time between two starts. A request waits for the rest: it isn't the one that failed.
RESTART_S = 1.0
_LENGTH_BYTES = 4
#: The most bytes between two moments at which other threads can run.
STEP_BYTES = 64 * 1024
#: Longest frame of an answer in parts, and the most parts.
PART_MAX = 256 * 1024
PARTS_MAX = 10_000


class AskChild(Protocol):
    """Asks the child. Returns the answer; its member ``parts`` has the parts of an answer in parts."""

    def __call__(
        self, request: dict[str, Any], raw: Sequence[memoryview] = ()
    ) -> dict[str, Any]: ...


class WorkerFailed(Exception):
    """The child ended, was late, or broke the protocol."""


def identity_of(file: str) -> tuple[int, ...]:
    """Return what changes when a file is replaced; () for a missing file."""
    try:
        status = os.stat(file)  # noqa: PTH116 - of a module's file, a text
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


#: The package's first file as this process loaded it: a replaced package has another.
_PACKAGE = str(Path(__file__).parents[1] / "__init__.py")
_LOADED = identity_of(_PACKAGE)


@dataclass(frozen=True, slots=True)
class ChildBounds:
    """The bounds of a child's requests and answers."""

    request_s: float
    #: In bytes, with all parts.
    answer_max: int
    #: A child is replaced after so many requests, before it ends by itself.
    renewed_after: int


class FramedChild:
    """A child with a framed protocol. Threads take turns."""

    def __init__(
        self,
        command: Sequence[str],
        bounds: ChildBounds,
        *,
        monotonic: Callable[[], float],
        wait: Callable[[float], None] = time.sleep,
        package: str = _PACKAGE,
    ) -> None:
        self._command = command
        self._package = package
        self._loaded = _LOADED if package == _PACKAGE else identity_of(package)
        self._bounds = bounds
        self._monotonic = monotonic
        self._wait = wait
        self._served = 0
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._started: float | None = None
        #: The exit status of the last child that ended, as of ``subprocess.Popen.returncode``.
        self.last_exit: int | None = None

    @property
    def pid(self) -> int | None:
        """The child's pid; None while there is no child."""
        return self._child.pid if self._child is not None else None

    @contextmanager
    def turn(self) -> Iterator[AskChild]:
        """Yield the function that asks the child. An error inside ends the child.

        Raises:
            WorkerFailed: the child failed.
        """
        with self._lock:
            try:
                yield self._ask
            except BaseException:
                self._end()
                raise

    def start(self) -> None:
        """Start the child now, so that the first request doesn't wait for its imports.

        Raises:
            WorkerFailed: the child can't be started or can't be locked down.
        """
        with self.turn():
            self._running()

    def stop(self) -> None:
        """End the child. The next one is started without delay."""
        with self._lock:
            self._end()
            self._started = None

    def _ask(self, request: dict[str, Any], raw: Sequence[memoryview] = ()) -> dict[str, Any]:
        child = self._running()
        self._served += 1
        deadline = self._monotonic() + self._bounds.request_s
        # In parts: a long text must not keep other threads from running.
        request = {**request, "rawBytes": sum(map(len, raw))} if raw else request
        data = b"".join(part.encode() for part in json.JSONEncoder().iterencode(request))
        frame = len(data).to_bytes(_LENGTH_BYTES, "big") + data
        for part in (memoryview(frame), *raw):
            self._send(child, part, deadline)
        answer = self._receive(child, deadline, self._bounds.answer_max)
        return answer if "parts" not in answer else self._parts(child, answer["parts"], deadline)

    def _parts(
        self, child: subprocess.Popen[bytes], count: object, deadline: float
    ) -> dict[str, Any]:
        if not isinstance(count, int) or not 0 <= count <= PARTS_MAX:
            raise WorkerFailed("its answer has an unknown number of parts")
        parts, left = [], self._bounds.answer_max
        for _ in range(count):
            length, part = self._receive_frame(child, deadline, min(left, PART_MAX))
            left -= length
            parts.append(part)
        return {"parts": parts}

    def _running(self) -> subprocess.Popen[bytes]:
        is_worn = self._served >= self._bounds.renewed_after
        if self._child is not None and self._child.poll() is None and not is_worn:
            return self._child
        self._end()
        # A worker of another version would answer a process that runs on.
        if identity_of(self._package) != self._loaded:
            raise WorkerFailed("the package was replaced since this process started: restart it")
        early = 0.0 if self._started is None else self._started + RESTART_S - self._monotonic()
        if early > 0 and not is_worn:
            self._wait(early)
        self._started, self._served = self._monotonic(), 0
        try:
            self._child = subprocess.Popen(
                list(self._command),
                env={},
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerFailed(f"it can't be started: {error.strerror}") from None
        hello = self._receive(self._child, self._monotonic() + START_S, self._bounds.answer_max)
        if hello != {"ready": True}:
            reason = hello.get("unsafe", "an unknown greeting")
            raise WorkerFailed(f"this machine can't lock it down: {reason}")
        return self._child

    def _send(self, child: subprocess.Popen[bytes], data: memoryview, deadline: float) -> None:
        assert child.stdin is not None
        handle = child.stdin.fileno()
        os.set_blocking(handle, False)
        while data:
            left = deadline - self._monotonic()
            if left <= 0 or not _is_ready(handle, select.POLLOUT, left):
                raise WorkerFailed("it didn't read the request in time")
            try:
                data = data[os.write(handle, data[:STEP_BYTES]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise WorkerFailed("it ended") from None

    def _receive(
        self, child: subprocess.Popen[bytes], deadline: float, most: int
    ) -> dict[str, Any]:
        return self._receive_frame(child, deadline, most)[1]

    def _receive_frame(
        self, child: subprocess.Popen[bytes], deadline: float, most: int
    ) -> tuple[int, dict[str, Any]]:
        """Return the length and the object of a frame."""
        length = int.from_bytes(self._read(child, _LENGTH_BYTES, deadline), "big")
        if length > most:
            raise WorkerFailed(f"its answer has {length} bytes")
        try:
            answer = json.loads(self._read(child, length, deadline))
        except (ValueError, RecursionError):
            raise WorkerFailed("its answer isn't JSON") from None
        if not isinstance(answer, dict):
            raise WorkerFailed("its answer isn't an object")
        return length, answer

    def _read(self, child: subprocess.Popen[bytes], count: int, deadline: float) -> bytes:
        assert child.stdout is not None
        handle = child.stdout.fileno()
        data = bytearray()
        while len(data) < count:
            left = deadline - self._monotonic()
            if left <= 0 or not _is_ready(handle, select.POLLIN, left):
                raise WorkerFailed(f"no answer within {self._bounds.request_s:g} s")
            chunk = os.read(handle, min(count - len(data), STEP_BYTES))
            if not chunk:
                raise WorkerFailed("it ended")
            data += chunk
        return bytes(data)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()
        self.last_exit = child.wait()


def _is_ready(handle: int, event: int, within_s: float) -> bool:
    """Wait for a pipe. Unlike select(2), poll(2) takes descriptors beyond 1023."""
    waiting = select.poll()
    waiting.register(handle, event)
    return bool(waiting.poll(math.ceil(within_s * 1000)))
