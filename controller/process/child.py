"""Child processes that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Seconds before the first, second, … restart of a child. The last value repeats.
RESTART_DELAYS_S = (0.5, 1, 2, 5, 10, 30)


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

    @property
    def exit_code(self) -> int | None:
        """The exit code, or the negative signal number; None while the child runs."""
        return self.process.poll()

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
    process = subprocess.Popen(
        list(argv),
        env=dict(environment),
        pass_fds=tuple(inherited_fds),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Child(name, process)
