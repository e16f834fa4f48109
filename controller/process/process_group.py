"""Broker and controller as children of one process: started in order, watched, ended together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controller.model.errors import StateError
from controller.process.child import RESTART_DELAYS_S, Child, Lifeline, start
from controller.system.unix_socket import has_listener

log = logging.getLogger("trimtab.up")

START_DEADLINE_S = 30.0
STOP_BROKER_S = 8.0
STOP_CONTROLLER_S = 45.0  # it finishes what it began
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a child is started; ``{lifeline}`` in its arguments becomes the descriptor's number."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    first_only: Mapping[str, str]  # environment of the first start, not of a restart
    hand_on: tuple[int, ...] = ()


@dataclass(slots=True)
class RunningChild:
    """A child's recipe, its present process, and when it may be started again."""

    recipe: Recipe
    child: Child
    deaths: int = 0
    restart_at: float | None = None


@dataclass(slots=True)
class ProcessGroup:
    """The children of ``up``. Use from one thread."""

    monotonic: Callable[[], float]
    wait: Callable[[float], None]
    lifeline: Lifeline = field(default_factory=Lifeline)
    running: list[RunningChild] = field(default_factory=list)

    def start(self, recipe: Recipe) -> Child:
        """Start a child and watch it from now on.

        Raises:
            OSError: it can't be started.
        """
        child = self._spawn(recipe, {**recipe.environment, **recipe.first_only})
        self.running.append(RunningChild(recipe, child))
        return child

    def await_socket(self, child: Child, path: Path) -> None:
        """Wait until *child* serves *path*.

        Raises:
            StateError: it ended, or didn't serve in time; what it said is on stderr already.
        """
        deadline = self.monotonic() + START_DEADLINE_S
        while not has_listener(path):
            if child.ended is not None:
                raise StateError(
                    f"{child.name}.ended",
                    f"the {child.name} ended at its start (exit {child.ended})",
                    remedy="see what it said above",
                )
            if self.monotonic() > deadline:
                raise StateError(
                    f"{child.name}.late",
                    f"the {child.name} doesn't serve {path} after {START_DEADLINE_S:.0f} s",
                )
            self.wait(POLL_S)

    def look_after(self) -> None:
        """Start children again that died, each with its own backoff; call it now and then."""
        for one in self.running:
            ended = one.child.ended
            if ended is None:
                continue
            now = self.monotonic()
            if one.restart_at is None:
                delay = RESTART_DELAYS_S[min(one.deaths, len(RESTART_DELAYS_S) - 1)]
                one.deaths += 1
                one.restart_at = now + delay
                log.warning("the %s ended (exit %s); again in %s s", one.recipe.name, ended, delay)
            elif now >= one.restart_at:
                one.restart_at = None
                one.child = self._spawn(one.recipe, one.recipe.environment)

    def stop(self) -> None:
        """End all children, the last started first: the controller before its broker."""
        for one in reversed(self.running):
            patience = STOP_CONTROLLER_S if one.recipe.name == "controller" else STOP_BROKER_S
            one.child.stop(within_s=patience)
            if (one.child.ended or 0) < 0:
                log.warning("the %s was killed (exit %s)", one.recipe.name, one.child.ended)

    def _spawn(self, recipe: Recipe, environment: Mapping[str, str]) -> Child:
        argv = [part.replace("{lifeline}", str(self.lifeline.read_fd)) for part in recipe.argv]
        hand_on: Sequence[int] = (self.lifeline.read_fd, *recipe.hand_on)
        return start(recipe.name, argv, environment=environment, hand_on=hand_on)
