"""The shared state of chores, passes and operators' requests, and the parts of a controller."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from controller.core.planning import planner
from controller.core.planning.networks import possibly_unused
from controller.core.planning.quarantine import AT_ONCE, QuarantineRules
from controller.core.service import prune_guard
from controller.core.service.prune_guard import DesiredView
from controller.core.status.facts import Failure, Report
from controller.loop.executor import never
from controller.loop.passes import PassOutcome, PassPolicy, Result
from controller.loop.prober import ProbedEngine
from controller.loop.sampler import ReadUse, read_no_use
from controller.loop.state import service_tracker
from controller.loop.state.failed_runs import FailureLog
from controller.loop.state.store import StateStore
from controller.loop.workqueue import OutsideSlot, Triggers, in_place
from controller.model.desired.desired import Desired
from controller.model.errors import Act, EngineError, OverShare, Problem, Severity, StateError
from controller.model.names import Key
from controller.model.notifications import NoticeTarget
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
    #: The name of this life of the process, in the versions of the view.
    run: str = "run"
    #: Returns the member ``host`` of the view.
    host: Callable[[], Report] = dict
    #: Returns the content of ``verified.json``; None without one.
    verified: Callable[[], object] = lambda: None
    #: Returns True once the process stops: no further action begins.
    stopping: Callable[[], bool] = never
    read_use: ReadUse = read_no_use
    #: Returns the destinations of notifications; None if they aren't known.
    read_targets: Callable[[], tuple[NoticeTarget, ...] | None] = lambda: None


@dataclass(slots=True)
class SharedState:
    """The shared state of chores, passes and operators' requests, guarded by the store's lock."""

    #: The state of each resource.
    store: StateStore
    #: The desired state as the files have it; ``view`` has it with overrides applied.
    declared: Desired | None = None
    view: DesiredView = field(default_factory=DesiredView)
    #: The last snapshot of everything, updated by the snapshots of passes.
    observed: Observed | None = None
    policy: PassPolicy | None = None
    #: The keys of passes that ended since the last observation of everything began, or that came too
    #: early for the first. What these passes are about is possibly newer than the observation.
    passed: set[Key] = field(default_factory=set)
    #: The engine's events are followed: a change since the last snapshot queues a key or a chore.
    followed: bool = False
    #: Why the engine or the broker is unreachable, if it is.
    unreachable: EngineError | None = None
    #: Failed observations of everything in a row.
    unreachable_count: int = 0
    #: A counter of the changes of everything that a report shows.
    version: int = 0
    #: When the engine was last compared with the last snapshot, or observed; None before.
    observed_at: float | None = None
    #: What was counted since the start, by the name of a metric and its labels.
    counted: Counter[tuple[str, ...]] = field(default_factory=Counter)
    #: The duration of all passes, in seconds.
    pass_s: float = 0.0
    #: The controller's own problems, by subject.
    problems: dict[str, Problem] = field(default_factory=dict)

    @property
    def lock(self) -> threading.RLock:
        """The one lock of the loop's state."""
        return self.store.lock

    def replace_view(self, view: DesiredView) -> None:
        """Replace the desired state of passes, and drop outdated plans; the caller holds the lock."""
        if view != self.view:
            for state in self.store.states().values():
                state.plan = None
        self.view = view

    def record_crash(self, key: Key, error: Exception) -> int:
        """Record an unexpected exception of a pass; return how many there were in a row."""
        with self.lock:
            state = self.store.of(key)
            state.crashes += 1
            message = f"a pass ended in {type(error).__name__}; the log has more"
            state.failure = Failure(Act.RETRY, "internal.error", message)
            return state.crashes

    def record_problem(self, error: StateError) -> None:
        """Record that the state can't be saved; the caller holds the lock."""
        self.problems["state"] = Problem(
            error.code, error.message, remedy=error.remedy, severity=Severity.WARNING
        )
        self.version += 1

    def is_superseded(self, key: Key, view: DesiredView) -> bool:
        """Return True if the desired state of *key* changed since *view*, or isn't prunable any more.

        An unreadable document of another resource ends no pass except a removal with the prune
        guard's permission.
        """
        with self.lock:
            now = self.view
        if now is view:
            return False
        return key in view.prunable - now.prunable or now.goal(key) != view.goal(key)

    def is_undecided(self, key: Key) -> bool:
        """Return True if *key* is to be taken down, and the prune guard has yet to decide.

        A container of *key* also ends the claim of *key* on the containers of its earlier names.
        """
        view, observed, memory = self.view, self.observed, self.store.prune
        if observed is None:
            return False
        decided = view.prunable | {blocked.key for blocked in view.blocked}
        service = view.desired.service(key)
        earlier = () if service is None else service.moved
        return any(
            prune_guard.is_undecided(each, view.desired, observed, memory, decided)
            for each in (key, *earlier)
        )

    def record_result(self, key: Key, view: DesiredView, result: Result) -> tuple[Key, ...]:
        """Record the result of a pass of *key*; the caller holds the lock.

        Returns:
            The networks that are possibly unused since.
        """
        self.passed.add(key)
        state, unused = self.store.of(key), tuple[Key, ...]()
        state.crashes, state.failure = 0, result.failure
        if result.observed is not None and self.observed is not None:
            before, self.observed = (
                self.observed,
                service_tracker.merge_snapshot(self.observed, result.observed, key),
            )
            unused = possibly_unused(before, self.observed, key)
            state.plan = planner.part(result.plan, key) if self.view is view else None
        if result.outcome in {PassOutcome.DONE, PassOutcome.STALLED}:
            state.requested_by = ""
        if result.outcome is PassOutcome.DONE or isinstance(result.execution.error, OverShare):
            state.approved_plan = ""  # carried out, or the approval is used up
        return unused
