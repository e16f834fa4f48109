"""The helm: what people want of services beside the files, decided, made durable and remembered.

It holds no lock of its own: decisions follow each other, the controller sees to that.
"""

from __future__ import annotations

from controller.core import revisions
from controller.core.acts import Decision, Ground, decide
from controller.core.steering import steer
from controller.loop.memory import Memory
from controller.model.course import ServiceAct
from controller.model.desired import Desired, Service
from controller.model.errors import StateError
from controller.model.names import Key
from controller.model.observed import Container
from controller.model.quantities import format_instant
from controller.ports import Clock


class Helm:
    """Steers what passes work for, by what the memory holds."""

    def __init__(self, memory: Memory, clock: Clock) -> None:
        self._memory = memory
        self._clock = clock

    def steered(self, declared: Desired) -> Desired:
        """Return what passes work for."""
        return steer(declared, self._memory.steerings())

    def decide(
        self, act: ServiceAct, declared: Desired, containers: tuple[Container, ...]
    ) -> Decision:
        """Return what an act comes to, for the *containers* that are there of its service.

        Raises:
            UsageError: it can't be done; why, and what can.
        """
        generation = self._memory.generation(act.key)
        ground = Ground(
            declared=declared,
            steerings=self._memory.steerings(),
            containers=containers,
            generation=0 if generation is None else generation.number,
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

    def looked_at(self, key: Key, containers: tuple[Container, ...]) -> bool:
        """Note after a look that a restart is over; return whether something changed."""
        before = self._memory.steering(key)
        after = revisions.replaced(before, containers)
        self._memory.steer(key, after)
        return after != before

    def judge(self, service: Service, containers: tuple[Container, ...]) -> None:
        """Note that the revision of a service that is as declared runs well, if it does."""
        steering = self._memory.steering(service.key)
        kept = steering.kept(service.revision)
        if kept is None or kept.outcome or not revisions.runs_well(service, containers):
            return
        self._memory.steer(service.key, revisions.judged(steering, service.revision, "good"))
