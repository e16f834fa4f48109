"""``exec``: run a command in a container, with input, output, terminal and exit code.

An exec session: create, start, copy input and output, return the exit code.

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
from pathlib import Path
from types import FrameType

import click

from controller.cli.clients.socket_client import READ_BYTES, EngineApi, TakenOver
from controller.cli.clients.status_report import complete_names
from controller.cli.commands.replicas import (
    ContainerTarget,
    VisibleContainer,
    list_replicas,
    select,
)
from controller.cli.options import open_state, state_option
from controller.cli.output.terminal import ended_by
from controller.core.engine_api.streams import BadFrame, Frames
from controller.model.errors import (
    EngineFailed,
    EngineUnavailable,
    StateError,
    TrimtabError,
    UsageError,
)

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
        with ended_by(_ENDING):
            try:
                terminals.setraw(descriptor)
                yield
            finally:
                termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

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


@click.command(
    "exec",
    epilog="""\b
Examples:
  trimtab exec web -- ls -l /srv
  trimtab exec -it web.2 -- sh
  trimtab exec -i db -- psql -U app < dump.sql
  trimtab exec --user 1000 --env LANG=C --workdir /srv shop/web -- ./report

\b
NAME is a service (its first running replica), NAMESPACE/NAME, NAME.SLOT, or a container's
name. -i passes input on, -t gives the command a terminal; nothing detaches from it.
Only operators run commands; the policy's section exec says whether, and for how long.
The journal records the program, never its arguments.

\b
Exit codes: the command's own. Before it starts: 1 error, 4 refused by the policy, 64 wrong
usage; these come with a line 'error: ...' on stderr. As with docker, 126 or 127: the
command can't be executed or wasn't found; 130: Ctrl-C; 137: killed.
""",
)
@click.argument("name", shell_complete=complete_names)
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND [ARG...]")
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-u", "--user", default="", help="Run it as this user: a name or uid[:gid].")
@click.option("-w", "--workdir", default="", help="Run it in this folder.")
@click.option(
    "-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable; repeatable."
)
@state_option
def execute(
    name: str,
    command: tuple[str, ...],
    interactive: bool,
    tty: bool,
    user: str,
    workdir: str,
    env: tuple[str, ...],
    state: Path | None,
) -> int:
    """Run a command in a running container of a service."""
    if tty and interactive and not sys.stdin.isatty():
        raise UsageError(
            "exec.no-terminal",
            "-it needs a terminal, and standard input isn't a terminal",
            remedy="leave out -t",
        )
    folder, _ = open_state(state)
    api = EngineApi(folder.broker_socket)
    replica = first_running(select(list_replicas(api), ContainerTarget.parse(name)), name)
    body: dict[str, object] = {
        "AttachStdin": interactive,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": tty,
        "Cmd": list(command),
    }
    optional = {"User": user, "WorkingDir": workdir, "Env": [_variable(text) for text in env]}
    body |= {key: value for key, value in optional.items() if value}
    return ExecClient(api, tty=tty, interactive=interactive).run(replica.id, body)


def first_running(replicas: list[VisibleContainer], name: str) -> VisibleContainer:
    """Return the first running container.

    Raises:
        StateError: no container runs.
    """
    for replica in replicas:
        if replica.is_running:
            return replica
    states = ", ".join(f"{replica.name} is {replica.state}" for replica in replicas)
    raise StateError(
        "container.not-running",
        f"no container of {name} runs: {states}",
        remedy=f"see why with 'trimtab describe {name.partition('.')[0]}' and 'trimtab logs {name}'",
    )


def _variable(text: str) -> str:
    """Return NAME=VALUE; a NAME without a value gets the value in the caller's environment."""
    if "=" in text:
        return text
    if text not in os.environ:
        raise UsageError(
            "exec.env",
            f"--env {text}: this environment has no such variable",
            remedy="write NAME=VALUE",
        )
    return f"{text}={os.environ[text]}"
