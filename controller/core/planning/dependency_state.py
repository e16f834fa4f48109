"""Order among services: what must be so of others before a service's containers are started.

One word for each dependency by an ordered table, first match wins, with its sentence. Nothing here
stops, restarts or replaces what runs: a dependency that fails only keeps those that depend on it
from being started, or replaced.

A service is up when one of its replicas is: the others' troubles needn't be its dependents'. For a
replacement more is asked, that the dependency isn't to be replaced itself: a new revision meets the
new one of what it depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from controller.core.drift import failures
from controller.core.drift.drift import SlotState, is_finished
from controller.model.desired.desired import Service
from controller.model.desired.spec import DependencyCondition, RestartPolicy, RunState
from controller.model.names import Key
from controller.model.observed import Container, ContainerState

#: The reason of the condition Stalled of a service whose dependency can't become ready.
FAILED = "dependency.failed"
#: A cause is told along a chain of dependents, and cut here.
CAUSE_MAX = 300


class DependencyStatus(StrEnum):
    """How a dependency is, for those that wait for it."""

    MET = "met"
    WAITING = "waiting"  # time, or what is under way, may make it so
    FAILED = "failed"  # only a person can


@dataclass(frozen=True, slots=True)
class DependencyState:
    """A service that another one depends on, and what is known of it.

    ``service`` and ``slots`` are empty where nothing declares it that can be read. ``stalled`` is
    why a person must act on it. ``starting``: the same plan starts it before. ``replacing``: it is
    asked for a replacement.
    """

    key: Key
    condition: DependencyCondition
    service: Service | None = None
    containers: tuple[Container, ...] = ()
    slots: tuple[SlotState, ...] = ()
    stalled: str = ""
    crash_looping: frozenset[int] = frozenset()  # slots in a crash loop
    suspended: bool = False
    starting: bool = False
    replacing: bool = False

    @property
    def up(self) -> bool:
        """Tell whether what is waited for is so, by what runs or ran."""
        kept = [slot.current for slot in self.slots if slot.current is not None]
        if self.condition is DependencyCondition.COMPLETED and self.service is not None:
            return len(kept) == len(self.slots) and all(map(self._completed, kept))
        anew = self.replacing and self.service is not None and not self.suspended
        return any(self._serves(c) for c in (kept if anew else self.containers))

    def _serves(self, container: Container) -> bool:
        match self.condition:
            case DependencyCondition.HEALTHY:
                return container.running and container.health == "healthy"
            case DependencyCondition.COMPLETED:
                return self._completed(container)
            case DependencyCondition.STARTED:
                # What keeps failing runs between its failures too.
                runs = container.running and container.slot not in self.crash_looping
                return runs or self._completed(container)
            case _:
                assert_never(self.condition)

    def _completed(self, container: Container) -> bool:
        if container.state is not ContainerState.EXITED or container.exit_code:
            return False
        if self.service is None:
            return container.settings.restart != "always"
        # A task that the controller restarts has its restart policy from the controller.
        task = self.service.spec.restart.policy is RestartPolicy.ON_FAILURE
        return is_finished(container, self.service) or (
            task and container.slot in self.crash_looping
        )

    @property
    def current(self) -> bool:
        """Tell whether nothing of it is to be replaced."""
        return all(slot.current is not None for slot in self.slots)

    @property
    def dead_end(self) -> str:
        """Return how it ended, where nobody starts it again; '' if it didn't."""
        over = [s.current for s in self.slots if s.current is not None and self._is_over(s.current)]
        if self.condition is DependencyCondition.COMPLETED:
            over = [container for container in over if container.exit_code]
        elif len(over) < len(self.slots):
            over = []  # another replica may yet be up
        return f"{over[0].name} {failures.explain(over[0])}" if over else ""

    def _is_over(self, container: Container) -> bool:
        assert self.service is not None, "only what is declared has slots"
        gave_up = failures.is_own_exit(container, self.service, controller_restarts=False)
        return gave_up or is_finished(container, self.service)

    @property
    def unchecked(self) -> bool:
        """Tell whether nothing ever says that it is healthy: an earlier revision of it may be so."""
        checked = self.service is not None and self.service.spec.healthcheck is not None
        return self.condition is DependencyCondition.HEALTHY and not checked

    @property
    def keeps_failing(self) -> bool:
        """Tell whether none of its slots is without a crash loop."""
        return self.crash_looping >= {slot.number for slot in self.slots}


def _declared_stopped(dependency: DependencyState) -> bool:
    service = dependency.service
    return service is not None and service.spec.state is RunState.STOPPED


def _seen(dependency: DependencyState) -> str:
    """Return what is seen of a dependency that isn't up yet, '' if nothing is."""
    for slot in dependency.slots:
        if slot.current is not None and slot.current.state is not ContainerState.CREATED:
            current = slot.current
            return f"{current.name} is {current.health if current.running and current.health else current.state}"
    return ""


#: In order, first match wins: the word, when it is it, and why.
RULES: tuple[
    tuple[DependencyStatus, Callable[[DependencyState], object], Callable[[DependencyState], str]],
    ...,
] = (
    # A bad document leaves what runs of it as it is: its dependents have it.
    (DependencyStatus.MET, lambda d: d.service is None and d.up, lambda _: ""),
    (
        DependencyStatus.FAILED,
        lambda d: d.service is None,
        lambda _: "what declares it can't be read",
    ),
    # Left as it is, and that is what it is.
    (DependencyStatus.MET, lambda d: d.suspended and d.up, lambda _: ""),
    (DependencyStatus.FAILED, lambda d: d.suspended, lambda _: "it is suspended"),
    (DependencyStatus.FAILED, _declared_stopped, lambda _: "it is declared Stopped"),
    (DependencyStatus.FAILED, lambda d: not d.slots, lambda _: "it is scaled to 0"),
    # Before all that may be wrong with it: what serves, serves.
    (DependencyStatus.MET, lambda d: d.up and (d.current or not d.replacing), lambda _: ""),
    # The plan of everything goes on where the first of its actions lead.
    (
        DependencyStatus.MET,
        lambda d: d.starting and d.condition is DependencyCondition.STARTED,
        lambda _: "",
    ),
    (DependencyStatus.FAILED, lambda d: d.stalled, lambda d: d.stalled),
    (
        DependencyStatus.FAILED,
        lambda d: d.unchecked,
        lambda _: "as it is pinned it has no healthcheck",
    ),
    (DependencyStatus.FAILED, lambda d: d.dead_end, lambda d: d.dead_end),
    (DependencyStatus.FAILED, lambda d: d.keeps_failing, lambda _: "it keeps failing"),
    (
        DependencyStatus.WAITING,
        lambda d: not d.current and d.replacing,
        lambda _: "it is being replaced",
    ),
    (DependencyStatus.WAITING, lambda _: True, _seen),
)
_GOAL = {
    DependencyCondition.STARTED: "start",
    DependencyCondition.HEALTHY: "be healthy",
    DependencyCondition.COMPLETED: "complete",
}


def status_of(dependency: DependencyState) -> tuple[DependencyStatus, str]:
    """Return the word for a dependency, that of the first rule that matches, and a sentence."""
    word, why = next((w, say(dependency)) for w, matches, say in RULES if matches(dependency))
    name, goal = dependency.key.name, _GOAL[dependency.condition]
    match word:
        case DependencyStatus.MET:
            return word, ""
        case DependencyStatus.WAITING:
            return word, f"waiting for {name} to {goal}" + (f" ({why})" if why else "")
        case DependencyStatus.FAILED:
            return word, f"{name} can't {goal}: {why}"[:CAUSE_MAX]
        case _:
            assert_never(word)
