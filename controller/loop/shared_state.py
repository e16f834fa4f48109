"""The shared state of chores, passes and operators' requests, and the parts of a controller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from controller.core.planning.quarantine import AT_ONCE, QuarantineRules
from controller.core.status.details import Report
from controller.core.status.facts import Failure
from controller.loop.executor import never
from controller.loop.passes import DesiredView, PassPolicy
from controller.loop.probes.prober import ProbedEngine
from controller.loop.state.failed_runs import FailureLog
from controller.loop.state.store import StateStore
from controller.loop.state.waiters import Waiters
from controller.loop.workers.triggers import Triggers
from controller.loop.workers.worker_slots import OutsideSlot, in_place
from controller.model.desired.desired import Desired
from controller.model.errors import EngineError, Problem
from controller.model.names import Key
from controller.model.observed import Observed
from controller.ports import DesiredSource, Timer


def ignore_commits(_desired: Desired, _report: Report) -> None:
    """Record and publish nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerParts:
    """The collaborators of a controller."""

    source: DesiredSource
    engine: ProbedEngine
    store: StateStore
    clock: Timer
    #: Returns a number in [0, 1), for jitter.
    random: Callable[[], float]
    #: The queues; the engine and its prober call the same object.
    triggers: Triggers
    #: Returns the policy in force. Raises an EngineError if the broker is unreachable.
    fetch_policy: Callable[[], PassPolicy]
    #: Writes the status. Raises OSError.
    publish: Callable[[Report], None]
    #: Records and publishes what became of commits, from the desired state and its status. Raises
    #: OSError.
    publish_commits: Callable[[Desired, Report], None] = ignore_commits
    quarantine_rules: QuarantineRules = AT_ONCE
    #: None: failed runs are logged in memory, without output.
    failure_log: FailureLog | None = None
    #: How pulls leave their worker's slot.
    outside_slot: OutsideSlot = in_place
    #: Returns True once the process stops: no further action begins.
    stopping: Callable[[], bool] = never


@dataclass(slots=True)
class SharedState:
    """The shared state of chores, passes and operators' requests, guarded by ``lock``."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    #: The desired state as the files have it; ``view`` has it with overrides applied.
    declared: Desired | None = None
    view: DesiredView = field(default_factory=DesiredView)
    #: The last snapshot of everything, updated by the snapshots of passes.
    observed: Observed | None = None
    policy: PassPolicy | None = None
    #: Why the engine or the broker is unreachable, if it is.
    unreachable: EngineError | None = None
    #: Failed observations of everything in a row.
    unreachable_count: int = 0
    #: A counter of the changes of everything that a report shows.
    version: int = 0
    failures: dict[Key, Failure] = field(default_factory=dict)
    #: Unexpected exceptions of passes in a row.
    crashes: dict[Key, int] = field(default_factory=dict)
    #: The user who requested a pass of the key.
    requested_by: dict[Key, str] = field(default_factory=dict)
    #: The approved plan that passes of the key are part of.
    approved_plans: dict[Key, str] = field(default_factory=dict)
    #: The controller's own problems, by subject.
    problems: dict[str, Problem] = field(default_factory=dict)
    waiters: Waiters = field(default_factory=Waiters)

    def copy(self) -> SharedState:
        """Return a copy for reading without the lock; the caller holds the lock."""
        return replace(self, failures=dict(self.failures), problems=dict(self.problems))
