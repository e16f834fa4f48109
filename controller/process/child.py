"""Child processes that end with their parent.

On a terminal a child gets a pipe for its output, and the parent writes the lines, escaped. A child
with the terminal itself could write escape sequences, and read what the user types.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from controller.core.encoding.terminal_text import printable

#: Seconds before the first, second, … restart of a child. The last value repeats.
RESTART_DELAYS_S = (0.5, 1, 2, 5, 10, 30)


#: The longest line that is copied to the terminal at once, in bytes.
LINE_MAX = 64 * 1024
_STDERR = 2


@dataclass(slots=True)
class Lifeline:
    """A pipe with its write end in the parent: children read an end of file when the parent ends.

    Unlike a parent-death signal, the pipe survives a change of uid and an exec.
    """

    read_fd: int = field(init=False)
    write_fd: int = field(init=False)

    def __post_init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()  # close-on-exec


@dataclass(frozen=True, slots=True)
class Child:
    """A started child."""

    name: str
    process: subprocess.Popen[bytes]
    #: Copies the output to the terminal; None if the child inherited standard error.
    copier: threading.Thread | None = None

    @property
    def exit_code(self) -> int | None:
        """The exit code, or the negative signal number; None while the child runs.

        The last words of an ended child are on the terminal when its code is known.
        """
        code = self.process.poll()
        if code is not None and self.copier is not None:
            self.copier.join(timeout=1.0)
        return code

    def stop(self, *, within_s: float) -> None:
        """Send SIGTERM, and SIGKILL after *within_s* seconds."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_child(
    name: str,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    inherited_fds: Sequence[int],
) -> Child:
    """Start *argv* in its own session, so that Ctrl-C in a terminal only reaches the parent.

    Raises:
        OSError: the program can't be started.
    """
    on_terminal = os.isatty(_STDERR)
    process = subprocess.Popen(
        list(argv),
        env=dict(environment),
        pass_fds=tuple(inherited_fds),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if on_terminal else None,
        stderr=subprocess.STDOUT if on_terminal else None,
        start_new_session=True,
    )
    if process.stdout is None:
        return Child(name, process)
    copier = threading.Thread(target=_copy, args=(process.stdout,), name=f"{name}-log", daemon=True)
    copier.start()
    return Child(name, process, copier)


def _copy(output: IO[bytes]) -> None:
    """Write the lines of a child to standard error, without control characters."""
    with output:
        while line := output.readline(LINE_MAX):
            text = printable(line.decode("utf-8", "replace").rstrip("\n").replace("\t", "    "))
            os.write(_STDERR, f"{text}\n".encode())
