"""Passes as values: what a pass works from, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from controller.core.drift.actions import Judge
from controller.core.drift.failed_runs import Readers
from controller.core.planning.image_volumes import VolumeRule, always_refuse
from controller.core.service.rollout_progress import RolloutProgress
from controller.core.status.facts import Failure
from controller.loop.executor import Execution
from controller.model.desired.desired import Desired
from controller.model.desired.plan import Blocked, Wait
from controller.model.errors import Act
from controller.model.names import Key, NetworkNames
from controller.model.observed import Observed


@dataclass(frozen=True, slots=True)
class PassPolicy:
    """The policy as passes need it: names of networks, verdicts in advance, and which it is."""

    networks: NetworkNames
    judge: Judge
    digest: str
    volume_rule: VolumeRule = always_refuse
    readers: Readers = field(default_factory=Readers)  # of the output of containers


@dataclass(frozen=True, slots=True)
class DesiredView:
    """What is desired, with the prune guard's word on exactly that."""

    desired: Desired = field(default_factory=Desired)
    prunable: frozenset[Key] = frozenset()
    blocked: tuple[Blocked, ...] = ()


class PassOutcome(StrEnum):
    """How a pass ended."""

    DONE = "done"  # as desired
    ACTED = "acted"  # something was done: look again
    RETRY = "retry"  # something failed, and may be tried again later
    WAIT = "wait"  # a known time, or something else, must come first
    STALLED = "stalled"  # a person must act


OUTCOMES = {
    Act.STALLED: PassOutcome.STALLED,
    Act.WAITING: PassOutcome.WAIT,
    Act.RETRY: PassOutcome.RETRY,
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a pass came to. ``requeue_after_s``: when to look again at the latest; None: no need.

    ``observed`` is what it saw before it acted; None when it couldn't look. ``course`` is how the
    rollout goes by that look.
    """

    outcome: PassOutcome
    requeue_after_s: float | None = None
    failure: Failure | None = None
    observed: Observed | None = None
    course: RolloutProgress | None = None
    execution: Execution = field(default_factory=Execution)

    @property
    def waits(self) -> tuple[Wait, ...]:
        """What the pass was kept from by other services."""
        return tuple(wait for wait in self.execution.waits if wait.on)
