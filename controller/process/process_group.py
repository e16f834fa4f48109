"""Broker and controller as children of one process: start in order, restart, and end together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controller.model.errors import StateError
from controller.process.child import RESTART_DELAYS_S, Child, Lifeline, start_child
from controller.system.unix_socket import has_listener

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
        """Restart ended children, each after its own backoff. Call this periodically."""
        for each in self.running:
            exit_code = each.child.exit_code
            if exit_code is None:
                continue
            now = self.monotonic()
            if each.restart_at is None:
                delay = RESTART_DELAYS_S[min(each.deaths, len(RESTART_DELAYS_S) - 1)]
                each.deaths += 1
                each.restart_at = now + delay
                log.warning(
                    "the %s ended (exit %s); again in %s s", each.recipe.name, exit_code, delay
                )
            elif now >= each.restart_at:
                each.restart_at = None
                each.child = self._spawn(each.recipe, each.recipe.environment)

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
                log.warning("the %s was killed (exit %s)", each.recipe.name, each.child.exit_code)

    def _spawn(self, recipe: Recipe, environment: Mapping[str, str]) -> Child:
        argv = [part.replace("{lifeline}", str(self.lifeline.read_fd)) for part in recipe.argv]
        inherited_fds: Sequence[int] = (self.lifeline.read_fd, *recipe.inherited_fds)
        return start_child(recipe.name, argv, environment=environment, inherited_fds=inherited_fds)
