"""Broker and controller as children of one process: start in order, restart, and end together.

A child ends with its parent.

On a terminal a child gets a pipe for its output, and the parent writes the lines, escaped. A child
with the terminal itself could write escape sequences, and read what the user types.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from controller.core.encoding.text import printable
from controller.model.errors import StateError
from controller.system.sockets import has_listener

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


log = logging.getLogger("trimtab.up")

START_DEADLINE_S = 30.0
STOP_BROKER_S = 8.0
#: The controller finishes its actions in progress.
STOP_CONTROLLER_S = 45.0
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Recipe:
    """The command line and environment of a child."""

    name: str
    #: The command. ``{lifeline}`` is replaced by the number of the lifeline's descriptor.
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    #: Additional variables for the first start only.
    first_environment: Mapping[str, str]
    inherited_fds: tuple[int, ...] = ()


@dataclass(slots=True)
class RunningChild:
    """A child's recipe, its current process, and the state of its restarts."""

    recipe: Recipe
    child: Child
    #: The number of unexpected ends, for the backoff.
    deaths: int = 0
    #: The time of the next start, on the monotonic clock; None while the child runs.
    restart_at: float | None = None


def _how_ended(exit_code: int) -> str:
    """Return how a child ended, by its exit code or negative signal number."""
    if exit_code >= 0:
        return f"exited with {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


@dataclass(slots=True)
class ProcessGroup:
    """The children of ``up``. Use from one thread."""

    monotonic: Callable[[], float]
    wait: Callable[[float], None]
    lifeline: Lifeline = field(default_factory=Lifeline)
    running: list[RunningChild] = field(default_factory=list)

    def start(self, recipe: Recipe) -> Child:
        """Start a child. ``restart_ended`` restarts the child later.

        Raises:
            OSError: the program can't be started.
        """
        child = self._spawn(recipe, {**recipe.environment, **recipe.first_environment})
        self.running.append(RunningChild(recipe, child))
        return child

    def await_socket(self, child: Child, path: Path) -> None:
        """Wait until *child* listens on *path*.

        Raises:
            StateError: the child ended, or timed out. Its own message is on stderr already.
        """
        deadline = self.monotonic() + START_DEADLINE_S
        while not has_listener(path):
            if child.exit_code is not None:
                raise StateError(
                    f"{child.name}.ended",
                    f"the {child.name} ended at its start (exit {child.exit_code})",
                    remedy="see what it said above",
                )
            if self.monotonic() > deadline:
                raise StateError(
                    f"{child.name}.late",
                    f"the {child.name} doesn't serve {path} after {START_DEADLINE_S:.0f} s",
                )
            self.wait(POLL_S)

    def restart_ended(self) -> None:
        """Restart ended children, each child after a backoff. The caller repeats the call."""
        for each in self.running:
            exit_code = each.child.exit_code
            if exit_code is None:
                continue
            now = self.monotonic()
            if each.restart_at is None:
                delay = RESTART_DELAYS_S[min(each.deaths, len(RESTART_DELAYS_S) - 1)]
                each.deaths += 1
                each.restart_at = now + delay
                how = _how_ended(exit_code)
                log.warning("the %s %s; it starts again in %s s", each.recipe.name, how, delay)
            elif now >= each.restart_at:
                each.restart_at = None
                each.child = self._spawn(each.recipe, each.recipe.environment)
                log.warning(
                    "the %s was started again as pid %d", each.recipe.name, each.child.process.pid
                )

    def end(self, name: str) -> None:
        """End a child for good, if it runs."""
        for each in [each for each in self.running if each.recipe.name == name]:
            self.running.remove(each)
            each.child.stop(within_s=STOP_BROKER_S)

    def stop(self) -> None:
        """End all children in reverse order: the controller before its broker."""
        for each in reversed(self.running):
            grace_s = STOP_CONTROLLER_S if each.recipe.name == "controller" else STOP_BROKER_S
            each.child.stop(within_s=grace_s)
            if (each.child.exit_code or 0) < 0:
                log.warning("the %s %s", each.recipe.name, _how_ended(each.child.exit_code or 0))

    def _spawn(self, recipe: Recipe, environment: Mapping[str, str]) -> Child:
        argv = [part.replace("{lifeline}", str(self.lifeline.read_fd)) for part in recipe.argv]
        inherited_fds: Sequence[int] = (self.lifeline.read_fd, *recipe.inherited_fds)
        return start_child(recipe.name, argv, environment=environment, inherited_fds=inherited_fds)
