"""Children that end with their parent, are waited for, and are started again when they die."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Seconds before the first, second, … restart of a child that died; the last one repeats.
RESTART_DELAYS_S = (0.5, 1, 2, 5, 10, 30)


@dataclass(slots=True)
class Lifeline:
    """A pipe whose write end only the parent holds: its end of file says that the parent is gone.

    Unlike a death signal it survives a change of uid and an exec, and can't be missed.
    """

    read_fd: int = field(init=False)
    write_fd: int = field(init=False)

    def __post_init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()  # both close-on-exec


@dataclass(frozen=True, slots=True)
class Child:
    """A started child."""

    name: str
    process: subprocess.Popen[bytes]

    @property
    def ended(self) -> int | None:
        """Return the exit code once it ended (negative: the signal), else None."""
        return self.process.poll()

    def stop(self, *, within_s: float) -> None:
        """Ask it to end, and kill it when it hasn't within *within_s* seconds."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(
    name: str,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    hand_on: Sequence[int],
) -> Child:
    """Start *argv* in a session of its own, so that the terminal's Ctrl-C reaches the parent only.

    Raises:
        OSError: it can't be started.
    """
    process = subprocess.Popen(
        list(argv),
        env=dict(environment),
        pass_fds=tuple(hand_on),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Child(name, process)
