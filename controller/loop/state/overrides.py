"""The helm: what people want of services beside the files, decided, made durable and remembered.

It holds no lock of its own: decisions follow each other, the controller sees to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from controller.core.service import revisions
from controller.core.service.operator_actions import ActionInputs, Decision, decide, goes_back
from controller.core.service.overrides import slots_of, steer
from controller.core.service.rollout_progress import RolloutProgress, outcome_of
from controller.loop.state.store import StateStore
from controller.model.desired.desired import Desired, Service
from controller.model.desired.overrides import NO_OVERRIDES, ServiceAct
from controller.model.errors import StateError, UsageError
from controller.model.names import Key
from controller.model.observed import Container, Observed
from controller.model.quantities import format_instant
from controller.ports import Clock

#: Who goes back from a revision that failed.
BY_ITSELF = "trimtab"


class OverrideStore:
    """Steers what passes work for, by what the memory holds."""

    def __init__(self, memory: StateStore, clock: Clock) -> None:
        self._memory = memory
        self._clock = clock

    def steered(self, declared: Desired) -> Desired:
        """Return what passes work for."""
        return steer(declared, self._memory.steerings())

    def running(self, desired: Desired, observed: Observed) -> Iterator[Service]:
        """Yield what passes work for, and each as it was at revisions of which something is there."""
        steerings = self._memory.steerings()
        for service in desired.services:
            yield service
            steering = steerings.get(service.key, NO_OVERRIDES)
            there = {container.revision for container in observed.of(service.key)}
            for revision in sorted(there - {service.revision}):
                earlier = slots_of(steering.find_revision(revision), service)
                if earlier is not None:
                    yield earlier

    def decide(
        self, act: ServiceAct, declared: Desired, containers: tuple[Container, ...]
    ) -> Decision:
        """Return what an act comes to, for the *containers* that are there of its service.

        Raises:
            UsageError: it can't be done; why, and what can.
        """
        generation = self._memory.generation(act.key)
        ground = ActionInputs(
            declared=declared,
            steerings=self._memory.steerings(),
            containers=containers,
            generation=0 if generation is None else generation.number,
            failed=self._memory.course(act.key).failed,
        )
        return decide(act, ground, now=format_instant(self._clock.now()))

    def keep(self, key: Key, decision: Decision) -> None:
        """Make a decision durable.

        Raises:
            StateError: it can't be saved, and so doesn't hold.
        """
        before = self._memory.steering(key)
        self._memory.steer(key, decision.steering)
        try:
            self._memory.save()
        except StateError:
            self._memory.steer(key, before)
            raise

    def go_back(
        self, service: Service, why: str, declared: Desired | None, observed: Observed
    ) -> bool:
        """Go back from a revision whose rollout failed, where that is wanted and can be.

        Raises:
            StateError: it can't be saved, and so doesn't hold.
        """
        there = observed.of(service.key)
        wanted = goes_back(service, self._memory.steering(service.key), there)
        if not wanted or declared is None:
            return False
        act = ServiceAct("rollback", service.key, BY_ITSELF, reason=why, automatic=True)
        try:
            decision = self.decide(act, declared, there)
        except UsageError:
            return False  # nothing to go back to: it goes no further
        if decision.changed:
            self.keep(service.key, decision)
        return decision.changed

    def looked_at(self, key: Key, containers: tuple[Container, ...]) -> bool:
        """Note after a look that a restart is over; return whether something changed."""
        before = self._memory.steering(key)
        after = revisions.replaced(before, containers)
        self._memory.steer(key, after)
        return after != before

    def acted_on(self, service: Service) -> None:
        """Note that a service is as its document says."""
        before = self._memory.steering(service.key)
        self._memory.steer(service.key, revisions.applied(before, service))

    def was_down(self, key: Key, seconds: float | None) -> None:
        """Note how long a slot was down while it was replaced, if that was seen."""
        if seconds is not None:
            before = self._memory.steering(key)
            self._memory.steer(key, replace(before, down_ms=round(seconds * 1000)))

    def judge(self, service: Service, course: RolloutProgress) -> None:
        """Note of a service's revision whether it is good or has failed, as its rollout tells."""
        steering = self._memory.steering(service.key)
        kept = steering.find_revision(service.revision)
        told = outcome_of(course)
        if kept is None or course.revision != service.revision or told in ("", kept.outcome):
            return
        after = revisions.judged(steering, service.revision, told, course.failed)
        self._memory.steer(service.key, after)
