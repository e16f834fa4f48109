"""One exec session: prepare, start, carry bytes both ways, return the exit code.

The caller's terminal is raw only while the command runs, and as it was before whatever ends the
session: an error, a signal, the broker hanging up.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import termios
import time
import tty as terminals
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from controller.cli.clients.engine_api import READ_BYTES, EngineApi, TakenOver
from controller.core.engine_api.log_stream import BadFrame, Frames
from controller.model.errors import EngineFailed, EngineUnavailable, TrimtabError

#: Signals that would end this process without giving the terminal back.
_ENDING = (signal.SIGTERM, signal.SIGHUP)
EXIT_PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True, slots=True)
class ExecClient:
    """Runs commands. ``tty``: with a terminal; ``interactive``: with this process's input."""

    api: EngineApi
    tty: bool
    interactive: bool

    def run(self, container: str, body: dict[str, object]) -> int:
        """Run what *body* asks for in a container; return its exit code.

        Raises:
            Refused: the policy doesn't admit it, or not for this user.
            EngineError: it couldn't be started, or the connection broke.
        """
        identifier = str(self.api.post(f"/containers/{container}/exec", body)["Id"])
        start: dict[str, object] = {"Detach": False, "Tty": self.tty}
        if self.tty:
            start["ConsoleSize"] = list(_size())
        taken = self.api.take_over(f"/exec/{identifier}/start", start)
        try:
            with self._raw_terminal(), self._resizing(identifier):
                self._carry(taken)
        except BrokenPipeError:
            raise  # nobody reads our output any more
        except (OSError, BadFrame) as error:
            raise EngineUnavailable("exec.broken", f"the connection broke: {error}") from error
        finally:
            taken.connection.close()
        return self._exit_code(identifier)

    def _exit_code(self, identifier: str) -> int:
        """Return the exit code, once the engine has it: it may follow the end of the output."""
        for pause_s in EXIT_PAUSES_S:
            shown = self.api.get(f"/exec/{identifier}/json")
            code = shown.get("ExitCode")
            if not shown.get("Running") and isinstance(code, int):
                return code
            time.sleep(pause_s)
        raise EngineFailed(
            "exec.unfinished",
            "the command still runs, and its output has ended",
            remedy="'trimtab journal list --action exec.end' shows how it ends",
        )

    def _carry(self, taken: TakenOver) -> None:
        """Carry input and output until the output ends.

        Neither waits for the other: a command that writes before it has read all its input blocks
        until somebody reads what it wrote.
        """
        frames, connection = None if self.tty else Frames(), taken.connection
        waiting = _Input(connection) if self.interactive else None
        self._show(taken.early, frames)
        connection.setblocking(False)
        # poll(2) also takes a regular file as input, which epoll(7) doesn't.
        with selectors.PollSelector() as ready:
            ready.register(connection, selectors.EVENT_READ)
            if waiting is not None:
                ready.register(waiting.descriptor, selectors.EVENT_READ)
            while True:
                found = {key.fd: events for key, events in ready.select()}
                if found.get(connection.fileno(), 0) & selectors.EVENT_READ:
                    data = _received(connection)
                    if not data:
                        return
                    self._show(data, frames)
                if waiting is not None:
                    waiting.go_on(found, ready)

    def _show(self, data: bytes, frames: Frames | None) -> None:
        if frames is None:
            _write(sys.stdout.fileno(), data)
            return
        for name, payload in frames.feed(data):
            _write(sys.stderr.fileno() if name == "stderr" else sys.stdout.fileno(), payload)

    @contextmanager
    def _raw_terminal(self) -> Iterator[None]:
        """Let each key reach the command's terminal during the block."""
        if not (self.tty and self.interactive):
            yield
            return
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        handlers = {number: signal.signal(number, _end) for number in _ENDING}
        try:
            terminals.setraw(descriptor)
            yield
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    @contextmanager
    def _resizing(self, identifier: str) -> Iterator[None]:
        """Give the command's terminal the size of this one, also when that changes."""
        if not self.tty:
            yield
            return

        def resize(_number: int = 0, _frame: FrameType | None = None) -> None:
            height, width = _size()
            with suppress(TrimtabError):  # it may have ended
                self.api.post(
                    f"/exec/{identifier}/resize", query={"h": str(height), "w": str(width)}
                )

        before = signal.signal(signal.SIGWINCH, resize)
        resize()
        try:
            yield
        finally:
            signal.signal(signal.SIGWINCH, before)


class _Input:
    """This process's input on its way to the command: read only once all of it was sent."""

    def __init__(self, connection: socket.socket) -> None:
        self.descriptor = sys.stdin.fileno()
        self._connection = connection
        self._unsent = b""
        self._ended = False

    def go_on(self, found: Mapping[int, int], ready: selectors.PollSelector) -> None:
        """Read or send as far as *ready* has found it possible; close this direction at the end."""
        if self._ended:
            return
        if self.descriptor in found and not self._unsent:
            self._unsent = os.read(self.descriptor, READ_BYTES)
            if not self._unsent:
                self._end(ready)
                return
            ready.unregister(self.descriptor)
            ready.modify(self._connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        if self._unsent:
            self._send(ready)

    def _send(self, ready: selectors.PollSelector) -> None:
        try:
            self._unsent = self._unsent[self._connection.send(self._unsent) :]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):  # the command reads no more
            self._end(ready)
            return
        if not self._unsent:
            ready.modify(self._connection, selectors.EVENT_READ)
            ready.register(self.descriptor, selectors.EVENT_READ)

    def _end(self, ready: selectors.PollSelector) -> None:
        self._ended, self._unsent = True, b""
        with suppress(KeyError):
            ready.unregister(self.descriptor)
        ready.modify(self._connection, selectors.EVENT_READ)
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _received(connection: socket.socket) -> bytes:
    """Return what came; nothing once the command ended, also if it left some of its input unread."""
    try:
        return connection.recv(READ_BYTES)
    except ConnectionResetError:
        return b""


def _size() -> tuple[int, int]:
    """Return height and width of the terminal."""
    for stream in (sys.stdin, sys.stdout):
        with suppress(OSError):
            size = os.get_terminal_size(stream.fileno())
            return size.lines, size.columns
    return 24, 80


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
