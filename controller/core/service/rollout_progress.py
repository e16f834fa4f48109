"""The course of a rollout: how far it is, when it has failed, and when its revision counts as good.

A revision is good once all slots were available and nothing went wrong for the watch period after
that; a failure that is none of the rollout yet makes the period longer. It has failed when a replica
of it is unhealthy, when a slot's container dies again and again, or when it got no further within
its deadline; getting further means more slots made, started or available than ever before. What
follows of a failure is said by ``spec.rollout.onFailure``.

Pure. Time comes as what passed since the look before, so that neither a clock that jumps nor an
absent controller brings a deadline nearer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from controller.core.drift.availability import Availability, AvailabilityWord, at_first_sight
from controller.core.drift.backoff import CLEAN, SlotHistory
from controller.core.drift.drift import ALIVE, ReplicaState
from controller.model.desired.desired import Service
from controller.model.desired.overrides import RevisionOutcome
from controller.model.desired.spec import RunState
from controller.model.observed import Container
from controller.model.quantities import format_duration_ms

#: For so long after a rollout its revision is watched before it counts as good, in seconds; once
#: more for each failure of the slot that failed most often, and so ``FAILURES`` times at most.
WATCH_S = 60.0
#: A slot whose container failed so often in a row fails the rollout, whether it runs now or not.
FAILURES = 3
_SECONDS_MAX = 10.0**9


@dataclass(frozen=True, slots=True)
class RolloutProgress:
    """How far one service's rollout is. Durations in seconds."""

    revision: str = ""  # what is, or was last, rolled out
    furthest: tuple[int, int, int] = (0, 0, 0)  # the most slots made, started, available
    idle_s: float = 0.0  # since it last got further
    held_s: float | None = None  # since all slots were available; None: they weren't yet
    failed: str = ""  # why it failed
    good: str = ""  # the last revision that held
    forgiven: tuple[tuple[int, int], ...] = ()  # failures by slot before it came right after all


NEW = RolloutProgress()


@dataclass(frozen=True, slots=True)
class RolloutView:
    """What one look shows of a service: its containers, how far they are, and its slots' failures.

    ``last_error`` is what the last try to get further failed with, if it did.
    """

    service: Service
    containers: tuple[Container, ...]
    availability: Mapping[str, Availability]
    histories: Mapping[int, SlotHistory]
    last_error: str = ""

    @property
    def mine(self) -> tuple[Container, ...]:
        """The containers of the wanted revision, in slots that are wanted."""
        replicas = [ReplicaState(container, self.service) for container in self.containers]
        return tuple(r.container for r in replicas if not r.stale and not r.spare)

    def ended_well(self, container: Container) -> bool:
        """Tell whether a container is a task that is done."""
        return ReplicaState(container, self.service).is_finished and container.exit_code == 0

    def availability_of(self, container: Container) -> AvailabilityWord:
        """Return how far a container is; a task that has ended is as far as can be."""
        if self.ended_well(container):
            return AvailabilityWord.AVAILABLE
        return (self.availability.get(container.id) or at_first_sight(container)).word

    @property
    def reached(self) -> tuple[int, int, int]:
        """How many slots are made, started and available."""
        mine = self.mine
        available = {c.slot for c in mine if self.availability_of(c) is AvailabilityWord.AVAILABLE}
        started = {c.slot for c in mine if c.running} | available
        return (len({c.slot for c in mine}), len(started), len(available))

    @property
    def complete(self) -> bool:
        """Tell whether every slot is available, and nothing of another revision runs."""
        others = any(
            ReplicaState(c, self.service).stale and c.state in ALIVE for c in self.containers
        )
        return self.reached[2] >= self.service.spec.replicas and not others


def advance(
    progress: RolloutProgress, view: RolloutView, *, elapsed_s: float, stalled: bool
) -> RolloutProgress:
    """Return the course after a look.

    Args:
        course: the one before.
        scene: what the look showed.
        elapsed_s: what passed since the look before; 0 at the first.
        stalled: a person must act before anything can go on, or another service be ready, so that
            no deadline runs.
    """
    service = view.service
    if progress.revision != service.revision:
        progress = RolloutProgress(revision=service.revision, good=progress.good)
        elapsed_s = 0.0
    if progress.failed and view.complete:
        # It came right after all: only what fails from now on counts.
        found = sorted(view.histories.items())
        counts = tuple((slot, history.count) for slot, history in found if history.count)
        progress = replace(resume(progress), forgiven=counts)
    if progress.failed or progress.good == service.revision or _idle(service):
        return progress
    reached = view.reached
    furthest = _most(progress.furthest, reached)
    got_further = furthest != progress.furthest or stalled
    idle_s = 0.0 if got_further else min(progress.idle_s + elapsed_s, _SECONDS_MAX)
    progress = replace(
        progress, furthest=furthest, idle_s=idle_s, held_s=_held_s(progress, view, elapsed_s)
    )
    if reason := _failure(progress, view):
        return replace(progress, failed=reason)
    if progress.held_s is not None and progress.held_s >= _watch_s(progress, view):
        return replace(progress, good=service.revision)
    return progress


def _idle(service: Service) -> bool:
    """Tell whether nothing of a service should run, so that nothing is judged."""
    return service.spec.state is RunState.STOPPED or service.spec.replicas == 0


def _most(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    return (max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]))


def _held_s(progress: RolloutProgress, view: RolloutView, elapsed_s: float) -> float | None:
    if progress.held_s is None:
        return 0.0 if view.complete else None
    return min(progress.held_s + elapsed_s, _SECONDS_MAX)


def _unhealthy(_course: RolloutProgress, view: RolloutView) -> str:
    names = [c.name for c in view.mine if view.availability_of(c) is AvailabilityWord.UNHEALTHY]
    return f"{names[0]} is unhealthy" if names else ""


def _watch_s(progress: RolloutProgress, view: RolloutView) -> float:
    """Return how long a revision is watched, in seconds."""
    failures = (_failures(progress, view, container.slot) for container in view.mine)
    return WATCH_S * (1 + max(failures, default=0))


def _failures(progress: RolloutProgress, view: RolloutView, slot: int) -> int:
    """Return how often in a row a slot's container failed, as far as that counts for the rollout."""
    history = view.histories.get(slot, CLEAN)
    return max(0, history.count - dict(progress.forgiven).get(slot, 0))


def _dies(progress: RolloutProgress, view: RolloutView) -> str:
    for container in view.mine:
        times = _failures(progress, view, container.slot)
        if times >= FAILURES and not view.ended_well(container):
            cause = view.histories[container.slot].cause
            why = f": it {cause}" if cause else ""
            return f"{container.name} failed {times} times in a row{why}"
    return ""


def _too_slow(progress: RolloutProgress, view: RolloutView) -> str:
    limit_ms = _deadline_ms(view)
    made, started, available = progress.furthest
    replicas = view.service.spec.replicas
    # With all of it available, only what it replaced is left: that is nothing to go back for.
    if (
        view.reached[2] >= replicas
        or progress.held_s is not None
        or progress.idle_s * 1000 < limit_ms
    ):
        return ""
    why = f"; {view.last_error}" if view.last_error else ""
    return (
        f"it got no further within {format_duration_ms(limit_ms)}: of {replicas} replicas"
        f" {made} were made, {started} started, {available} available{why}"
    )


def _deadline_ms(view: RolloutView) -> int:
    """Return how long a rollout may stand where it is, in milliseconds."""
    rollout = view.service.spec.rollout
    settling = any(view.availability_of(c) is AvailabilityWord.SETTLING for c in view.mine)
    if not settling:
        return rollout.progress_deadline
    # It must be given what it was promised, whatever the deadlines say.
    promised = rollout.min_healthy
    if (check := view.service.spec.healthcheck) is not None:
        promised += check.start_period + check.interval * (check.retries + 1)
    return max(min(rollout.health_deadline, rollout.progress_deadline), promised)


#: Why a rollout has failed; the first that says something.
FAILURE_RULES: tuple[Callable[[RolloutProgress, RolloutView], str], ...] = (
    # Its own check says so: no deadline need pass.
    _unhealthy,
    # The engine or the controller restarted it, and it ended each time.
    _dies,
    _too_slow,
)


def _failure(progress: RolloutProgress, view: RolloutView) -> str:
    return next((reason for rule in FAILURE_RULES if (reason := rule(progress, view))), "")


def outcome_of(progress: RolloutProgress) -> RevisionOutcome:
    """Return what is to be told of the revision that is rolled out: it may be gone back to once all
    of it was available, unless it fails while it is watched.
    """
    if progress.failed:
        return "failed"
    return "good" if progress.held_s is not None or progress.good == progress.revision else ""


def resume(progress: RolloutProgress) -> RolloutProgress:
    """Return the course where a person wants a rollout that failed to go on."""
    return RolloutProgress(revision=progress.revision, good=progress.good)


def due_in_s(progress: RolloutProgress, view: RolloutView) -> float | None:
    """Return when a look is needed though nothing happens; None: time alone changes nothing."""
    over = progress.failed or progress.good == progress.revision
    if over or progress.revision != view.service.revision or _idle(view.service):
        return None
    if progress.held_s is not None:
        return max(0.0, _watch_s(progress, view) - progress.held_s)
    left_s = _deadline_ms(view) / 1000 - progress.idle_s
    if left_s <= 0 and view.reached[2] >= view.service.spec.replicas:
        return None  # what it replaced is left, and no deadline is for that
    return max(0.0, left_s)


def to_json(progress: RolloutProgress) -> dict[str, object]:
    """Return a course as JSON, in whole milliseconds."""
    return {
        "revision": progress.revision,
        "furthest": list(progress.furthest),
        "idleMs": round(progress.idle_s * 1000),
        "heldMs": None if progress.held_s is None else round(progress.held_s * 1000),
        "failed": progress.failed,
        "good": progress.good,
        **({"forgiven": [list(each) for each in progress.forgiven]} if progress.forgiven else {}),
    }


def from_json(value: Mapping[str, object]) -> RolloutProgress:
    """Read back what ``to_json`` wrote.

    Raises:
        ValueError: *value* isn't a course.
    """
    forgiven = value.get("forgiven", [])  # most have none
    match value:
        case {
            "revision": str(revision),
            "furthest": [int(made), int(started), int(available)],
            "idleMs": int(idle_ms),
            "heldMs": None | int() as held_ms,
            "failed": str(failed),
            "good": str(good),
        } if isinstance(forgiven, list):
            return RolloutProgress(
                revision=revision,
                furthest=(made, started, available),
                idle_s=idle_ms / 1000,
                held_s=None if held_ms is None else held_ms / 1000,
                failed=failed,
                good=good,
                forgiven=tuple((int(slot), int(count)) for slot, count in forgiven),
            )
        case _:
            raise ValueError(f"not the course of a rollout: {value!r}")
