"""An exec session: create, start, copy input and output, return the exit code.

The caller's terminal is in raw mode only while the command runs. Its mode is restored at the end of
the session, also after an error, a signal or a closed connection.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import termios
import threading
import time
import tty as terminals
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from controller.cli.clients.engine_api import EngineApi, TakenOver
from controller.cli.clients.socket_client import READ_BYTES
from controller.core.engine_api.streams.log_stream import BadFrame, Frames
from controller.model.errors import EngineFailed, EngineUnavailable, TrimtabError

#: Signals that would end the process without restoring the terminal.
_ENDING = (signal.SIGTERM, signal.SIGHUP)
#: The engine can report the exit code later than the end of the output.
EXIT_PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True, slots=True)
class ExecClient:
    """Runs commands in containers."""

    api: EngineApi
    tty: bool  # give the command a terminal
    interactive: bool  # send standard input to the command

    def run(self, container: str, body: dict[str, object]) -> int:
        """Run the command of an exec body in a container, and return the exit code.

        Raises:
            Refused: the policy doesn't admit the command, or not for this user.
            EngineError: the command can't be started, or the connection broke.
        """
        identifier = str(self.api.post(f"/containers/{container}/exec", body)["Id"])
        start: dict[str, object] = {"Detach": False, "Tty": self.tty}
        if self.tty:
            start["ConsoleSize"] = list(_size())
        stream = self.api.take_over(f"/exec/{identifier}/start", start)
        try:
            with self._raw_terminal(), self._resizing(identifier):
                self._copy(stream)
        except BrokenPipeError:
            raise  # the reader of standard output closed the pipe
        except (OSError, BadFrame) as error:
            raise EngineUnavailable("exec.broken", f"the connection broke: {error}") from error
        finally:
            stream.connection.close()
        return self._exit_code(identifier)

    def _exit_code(self, identifier: str) -> int:
        """Wait for the exit code, and return it.

        Raises:
            EngineFailed: the command still runs.
        """
        for pause_s in EXIT_PAUSES_S:
            session = self.api.get(f"/exec/{identifier}/json")
            code = session.get("ExitCode")
            if not session.get("Running") and isinstance(code, int):
                return code
            time.sleep(pause_s)
        raise EngineFailed(
            "exec.unfinished",
            "the command still runs, and its output has ended",
            remedy="'trimtab journal list --action exec.end' shows how it ends",
        )

    def _copy(self, stream: TakenOver) -> None:
        """Copy input and output until the output ends.

        A thread sends the input: a command that writes before it has read its whole input blocks
        until its output is read.
        """
        frames, connection = None if self.tty else Frames(), stream.connection
        if self.interactive:
            threading.Thread(target=_send_input, args=(connection,), daemon=True).start()
        self._print(stream.early, frames)
        while data := _receive(connection):
            self._print(data, frames)

    def _print(self, data: bytes, frames: Frames | None) -> None:
        if frames is None:
            _write(sys.stdout.fileno(), data)
            return
        for name, payload in frames.feed(data):
            _write(sys.stderr.fileno() if name == "stderr" else sys.stdout.fileno(), payload)

    @contextmanager
    def _raw_terminal(self) -> Iterator[None]:
        """Send each key to the command's terminal during the block."""
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
        """Keep the size of the command's terminal equal to the size of the caller's terminal."""
        if not self.tty:
            yield
            return

        def resize(_number: int = 0, _frame: FrameType | None = None) -> None:
            height, width = _size()
            with suppress(TrimtabError):  # the command has ended
                self.api.post(
                    f"/exec/{identifier}/resize", query={"h": str(height), "w": str(width)}
                )

        before = signal.signal(signal.SIGWINCH, resize)
        resize()
        try:
            yield
        finally:
            signal.signal(signal.SIGWINCH, before)


def _send_input(connection: socket.socket) -> None:
    """Send standard input until its end, or until the command closes its input."""
    with suppress(OSError):
        while data := os.read(sys.stdin.fileno(), READ_BYTES):
            connection.sendall(data)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _receive(connection: socket.socket) -> bytes:
    """Return received data; empty after the end of the command."""
    try:
        return connection.recv(READ_BYTES)
    except ConnectionResetError:  # the command ended with unread input
        return b""


def _size() -> tuple[int, int]:
    """Return the height and width of the terminal."""
    for stream in (sys.stdin, sys.stdout):
        with suppress(OSError):
            size = os.get_terminal_size(stream.fileno())
            return size.lines, size.columns
    return 24, 80


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
