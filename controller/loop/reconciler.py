"""One pass for one key: observe, count failures, plan, execute, and decide when the next pass runs.

A pass takes nothing from the pass before but the contents of ``StateStore``, ``ServiceTracker`` and
``Retries``; the triggering event carries no facts. A pass never waits, and raises no engine
errors: they are part of its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import takewhile

from controller.core.drift import failures
from controller.core.drift.actions import atomic_groups
from controller.core.drift.availability import FAILED
from controller.core.jobs.rollout_hooks import RolloutHooks
from controller.core.manifests.job_checks import dependencies_of
from controller.core.planning import planner, quarantine
from controller.core.planning.quarantine import Moment, Quarantine
from controller.core.planning.service_order import KnownServices, Ordering
from controller.core.policy.refusals import with_document_fields
from controller.core.service import prune_guard
from controller.core.service.prune_guard import DesiredView
from controller.core.service.rollout_progress import RolloutProgress
from controller.core.status.facts import Failure
from controller.loop.executor import Execution, Executor, never
from controller.loop.passes import (
    OUTCOMES,
    JobViews,
    PassOutcome,
    PassPolicy,
    Result,
    after_moves,
    claims,
    is_declared,
    moves_of,
    next_run_s,
    observe_key,
)
from controller.loop.shared_state import ControllerParts
from controller.loop.state.disruption_budget import DisruptionBudget, running_keys
from controller.loop.state.failed_runs import ActionLog, FailureLog
from controller.loop.state.overrides import Retries, delay_s, signature
from controller.loop.state.service_state import Attempt
from controller.loop.state.service_tracker import ServiceTracker, refreshed
from controller.loop.workqueue import SharedCreations
from controller.model.desired.desired import Desired
from controller.model.desired.plan import (
    AnyAction,
    Barrier,
    ConnectNetwork,
    CreateContainer,
    DisconnectNetwork,
    NeedsOperator,
    Plan,
    PullImage,
    QuarantineWait,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    Wait,
)
from controller.model.errors import (
    Act,
    Conflict,
    EngineError,
    EngineUnavailable,
    Refused,
    ReplyLost,
    Severity,
    TooManyRequests,
)
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.records import Context

#: How long a wait without a known end lasts at most; usually an event ends it sooner.
WAIT_S = 5.0
#: A rollout takes up to this many acting passes in a row; more are probably contention.
ACTING_FREELY = 5
#: The broker's code for an object that is locked until recovery has settled its last mutation.
LOCKED = "held"
#: The rule against a start if a source of the container's mounts was replaced on the host, for example
#: by an editor that writes a new file. The new container is admitted with the new source.
MOUNT_CHANGED = "mount.changed"
#: The rules by which the broker ends a container that doesn't run as admitted.
VIOLATION = "effective."
#: After one of these a container must run for a while before it keeps its service up.
ALTERING = (StartContainer, StopContainer, UnpauseContainer, DisconnectNetwork, ConnectNetwork)


class Reconciler:
    """Runs passes. Two passes of one key never run at the same time (``WorkQueue``)."""

    def __init__(self, parts: ControllerParts) -> None:
        self.engine, self.store, self.clock = parts.engine, parts.store, parts.clock
        self.random = parts.random
        self.outside_slot = parts.outside_slot
        self._quarantine_rules = parts.quarantine_rules
        self.jobs = JobViews(parts.store, parts.clock)
        self.action_log = ActionLog(parts.clock)
        self.tracker = ServiceTracker(parts.store, parts.clock)
        self.failure_log = parts.failure_log or FailureLog(parts.clock)
        self.creations = SharedCreations()
        self.retries = Retries(parts.store, parts.clock, parts.random)
        self.budget = DisruptionBudget(parts.store, parts.clock.monotonic)

    def run(
        self,
        key: Key,
        view: DesiredView,
        policy: PassPolicy,
        *,
        known: Observed,
        stopping: Callable[[], bool] = never,
    ) -> Result:
        """Run one pass.

        *known* is the last snapshot of everything, for resources other than *key*. *stopping* returns
        True if no further action is to begin.
        """
        return Pass(self, key, view, policy, known, stopping).run()

    def plan(
        self,
        view: DesiredView,
        observed: Observed,
        policy: PassPolicy,
        *,
        only: Key | frozenset[Key] | None = None,
        known: Observed | None = None,
    ) -> Plan:
        """Return the plan of everything, or of *only* some keys. Changes nothing.

        *known* is the last snapshot of everything, for an *observed* of one key only.
        """
        observed, known, moves = after_moves(view.desired, observed, known, only)
        return planner.plan(
            view.desired,
            observed,
            networks=policy.networks,
            judge=policy.judge,
            prunable=view.prunable,
            blocked=view.blocked,
            policy_digest=policy.digest,
            only=only,
            context=replace(
                self.tracker.plan_context(view.desired, observed, only=only, known=known),
                quarantine=self.quarantine(),
                known_services=self._known_services(view.desired, known, only),
                now=self.jobs.time(view.desired),
            ),
            volume_rule=policy.volume_rule,
            moves=moves,
        )

    def order(self, view: DesiredView, known: Observed) -> Ordering:
        """Return the order among services in the last snapshot."""
        return Ordering(
            view.desired,
            known,
            self._known_services(view.desired, known, frozenset()),
            crash_looping=self.tracker.crash_looping(self.clock.now()),
            prunable=view.prunable,
            blocked=frozenset(blocked.key for blocked in view.blocked),
            now=self.jobs.time(view.desired),
        )

    def _known_services(
        self, desired: Desired, known: Observed | None, planned: Key | frozenset[Key] | None
    ) -> KnownServices:
        # A plan of several keys determines by itself which dependencies of these fail.
        own = frozenset[Key]() if isinstance(planned, Key) else planned
        stalled = {
            key: failure.message
            for key, failure in self.store.failures().items()
            if failure.act is Act.STALLED
            and (failure.code != FAILED or (own is not None and key not in own))
        }
        overdue = prune_guard.overdue(self.store.prune, now=self.guard_now())
        rollouts = self.jobs.standings(desired)
        return KnownServices(known, stalled, self.store.dependencies(), overdue, rollouts)

    # Quarantine

    def count_quarantine(
        self, observed: Observed, pruned: frozenset[Key], *, only: Key | None = None
    ) -> None:
        """Count the quarantine time of the containers in a snapshot of everything, or of *only* one key."""
        containers = observed.containers if only is None else observed.of(only)
        keep_s, ids = self._quarantine_rules.keep_s, {container.id for container in containers}
        with self.store.lock:
            known = self.store.quarantined
            watched = quarantine.watched(
                known,
                containers,
                pruned=pruned,
                keep_s=keep_s,
                now=self._moment(),
            )
            # A snapshot of everything lacks the containers that don't exist any more.
            others = {} if only is None else {i: c for i, c in known.items() if i not in ids}
            self.store.quarantined = others | {i: c for i, c in watched.items() if i in ids}

    def quarantine(self) -> Quarantine:
        """Return what is left of the quarantine of each container."""
        keep_s = self._quarantine_rules.keep_s
        return quarantine.quarantine_at(self.store.quarantined, keep_s=keep_s, now=self._moment())

    def _moment(self) -> Moment:
        return Moment(self.clock.now(), self.clock.monotonic(), self._quarantine_rules.boot)

    def guard_now(self) -> float:
        """Return the prune guard's time: the wall clock's at the start, then without jumps.

        A jump would part two consecutive observations, and end the window in which the guard counts.
        """
        return self.jobs.steady_now()


class Pass(Executor):
    """One pass of one key. The last snapshot of everything has the resources other than the key."""

    def __init__(
        self,
        loop: Reconciler,
        key: Key,
        view: DesiredView,
        policy: PassPolicy,
        known: Observed,
        stopping: Callable[[], bool],
    ) -> None:
        super().__init__(loop.engine, loop.action_log, loop.creations, loop.outside_slot)
        self._loop = loop
        self._key = key
        self._view = view
        self._policy = policy
        self._known = known
        self._stopping = stopping
        self._state = loop.store.of(key)
        #: The approved plan that the pass is part of, and the user who requested the pass; '' for none.
        #: An approved pass claims the plan that was shown, and is exempt from the disruption budget.
        self._approved, self._requested_by = self._state.approved_plan, self._state.requested_by
        self._workload = view.desired.workload(key)
        # The rollout of a suspended service doesn't progress.
        is_suspended = key in view.desired.suspended
        self._service = None if is_suspended else view.desired.service(key)
        self._observed = known
        self._plan = Plan()
        #: The services whose state allows a start in the plan.
        self._dependencies: tuple[Key, ...] = ()
        #: Why actions are deferred.
        self._attempts: list[Attempt] = []

    def run(self) -> Result:
        """Observe, plan, execute, and decide when the next pass runs."""
        loop, desired, generation = self._loop, self._view.desired, self._state.generation
        try:
            self._observed = observe_key(loop.engine, self._key, self._view, self._known)
            self._state.unobserved = 0
            rollout = self._record_observation()
            outdated = self._make_plan()
        except EngineError as error:
            return self._unobservable(error)
        loop.budget.record_observation(self._key, self._observed.of(self._key))
        with loop.store.remaking(self._plan):
            execution = self.execute(self._until_next_look())
            self._record(execution)
            result = self._ending(execution)
        loop.tracker.record_pulls(self._workload, *execution.attempted)
        result = replace(
            result,
            observed=self._observed,
            plan=self._plan,
            outdated=outdated,
            rollout=rollout,
            execution=execution,
        )
        result = replace(result, requeue_after_s=self._next_pass_s(result))
        is_done = result.outcome is PassOutcome.DONE and self._key not in desired.held
        if is_done and generation is not None and is_declared(desired, self._key):
            loop.store.mark_acted_on(self._key, generation.number)
        return result

    # Observing and planning

    def _record_observation(self) -> RolloutProgress | None:
        """Record the snapshot; return the progress of the rollout, if any."""
        loop, key, desired = self._loop, self._key, self._view.desired
        loop.tracker.count_exits(desired, self._observed, only=key)
        if (service := desired.service(key)) is not None:
            # Before this pass can remove failed containers.
            earlier = (r for r in self._state.overrides.revisions if r.revision != service.revision)
            loop.failure_log.record(
                service,
                self._observed.of(key),
                controller_restarts=loop.tracker.restarted_slots(service, loop.clock.now()),
                rejected={r.revision: r.reason for r in earlier if r.outcome == "failed"},
            )
        loop.count_quarantine(self._observed, self._view.prunable, only=key)
        moves = moves_of(desired, self._observed, self._known)
        if self._service is None or any(move.service.key == key for move in moves):
            return None
        return loop.tracker.observe_rollout(
            self._service,
            self._observed,
            awaits_others=self._state.awaits_others,
            hooks=self._hooks().facts(self._service),
        )

    def _hooks(self) -> RolloutHooks:
        return self._loop.jobs.hooks(self._view.desired, self._observed, self._known)

    def _make_plan(self) -> tuple[Key, ...]:
        """Plan; return the dependencies that changed since the last snapshot of everything.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        guessed = self._planned()
        self._plan, self._dependencies = guessed, self._dependencies_of_starts(guessed)
        if not self._dependencies:
            return ()
        # The event that a dependency is down can be lost: no start relies on it.
        self._known = refreshed(self._known, self._dependencies, self._observe)
        self._plan = self._planned()
        return self._dependencies if self._plan.actions != guessed.actions else ()

    def _planned(self) -> Plan:
        return self._loop.plan(
            self._view, self._observed, self._policy, only=self._key, known=self._known
        )

    def _observe(self, key: Key) -> Observed:
        return self._loop.engine.observe(images=frozenset(), only=key)

    def _dependencies_of_starts(self, plan: Plan) -> tuple[Key, ...]:
        """Return the services whose state allows a start in the plan of a service or job.

        A start behind a barrier isn't allowed yet.
        """
        at_once = takewhile(lambda action: not isinstance(action, Barrier), plan.actions)
        starts = any(isinstance(action, StartContainer) for action in at_once)
        if self._workload is None or not starts:
            return ()
        wanted = dependencies_of(self._key, self._workload.spec)
        return tuple(other for other in wanted if other.kind == "Service")

    def _until_next_look(self) -> tuple[AnyAction, ...]:
        """Return the actions that a pass performs after its observation of dependencies of starts.

        A pull takes minutes. A service that starts behind a pull does so in the next pass, which observes
        again. A job runs at once: its next pass starts a created run, whatever became of the dependencies.
        """
        kept: tuple[AnyAction, ...] = ()
        for group in atomic_groups(self._plan.actions):
            pulled = any(isinstance(action, PullImage) for action in kept)
            starts = any(
                isinstance(a, StartContainer) and a.object.kind == "Service" for a in group
            )
            if self._dependencies and pulled and starts:
                break
            kept += group
        return kept

    def _unobservable(self, error: EngineError) -> Result:
        self._state.unobserved += 1
        unavailable = isinstance(error, EngineUnavailable)
        requeue_after_s = delay_s(error, self._state.unobserved, self._loop.random)
        return Result(
            PassOutcome.WAIT if unavailable else PassOutcome.RETRY,
            requeue_after_s=requeue_after_s,
            failure=failure_of(error, self._loop.clock.now() + requeue_after_s),
        )

    # Acting

    def context(self, action: AnyAction) -> Context:
        plan = self._approved or self._plan.digest
        return claims(self._view.desired, action, plan, self._requested_by)

    def stopping(self) -> bool:
        return self._stopping()

    def is_deferred(self, action: AnyAction) -> bool:
        found = self._loop.retries.deferred(self._key, signature(action, self._policy.digest))
        found = found or self._contended(action) or self._over_budget(action)
        if found is not None:
            self._attempts.append(found)
        return found is not None

    def _contended(self, action: AnyAction) -> Attempt | None:
        """Return the pause of a creation whose object another client removes again and again."""
        wait_s = self._loop.creations.wait_s(action, self._loop.clock.now())
        if not wait_s:
            return None
        reason = f"{action.target} is repeatedly removed from outside"
        remedy = "find out who else removes it; trimtab creates it again after growing pauses"
        error = TooManyRequests("create.contended", reason, remedy=remedy)
        return self._loop.retries.attempt(error, wait_s)

    def _over_budget(self, action: AnyAction) -> Attempt | None:
        """Take the share of an action from the disruption budget, or return the refusal."""
        budget = self._loop.budget
        if self._approved:
            return None
        error = budget.take_for(self._key, action, self._plan, self._observed, self._running)
        return None if error is None else self._loop.retries.attempt(error, budget.wait_s())

    def _running(self) -> frozenset[Key]:
        wall = self._loop.clock.now()
        return running_keys(self._known, self._observed, self._key, wall=wall)

    def _record(self, execution: Execution) -> None:
        """Record alterations, new containers, contention, and remaining failures."""
        loop, key = self._loop, self._key
        altered = {done.id for done in execution.done if isinstance(done.action, ALTERING)}
        if isinstance(execution.failed, ALTERING):
            altered.add(execution.failed.precondition.id)
        loop.budget.record_alterations(key, altered, self._observed)
        for done in execution.done:
            # The broker remembers the runs of jobs; nothing starts a run again.
            is_run = done.action.object.kind == "Job"
            if not is_run:
                loop.tracker.record_action(done.action)
            if not done.shared:
                loop.creations.record_action(done.action, loop.clock.now())
            if isinstance(done.action, CreateContainer) and not is_run:
                state = loop.store.slot((done.action.object, done.action.slot))
                violations = (state.exit_cursor or failures.ExitCursor("")).violations
                state.exit_cursor = failures.ExitCursor(
                    done.id, name=done.action.target, violations=violations
                )
        # An action that succeeded isn't in the next plan, and so loses its failures there.
        planned = frozenset(signature(a, self._policy.digest) for a in self._plan.actions)
        loop.retries.keep_only(key, planned)

    # Results

    def _ending(self, execution: Execution) -> Result:
        """Return how the pass ended: the first case that applies."""
        if execution.interrupted:
            return Result(PassOutcome.ACTED, requeue_after_s=0.0)
        if execution.failed is not None and execution.error is not None:
            return self._failed(execution.failed, execution.error, execution)
        if execution.done:
            return Result(PassOutcome.ACTED, requeue_after_s=self._pause_after_acting_s())
        self._state.acting = 0
        if self._attempts:
            soonest = min(self._attempts, key=self._loop.retries.remaining_s)
            return Result(
                OUTCOMES[soonest.error.act],
                requeue_after_s=self._loop.retries.remaining_s(soonest),
                failure=failure_of(soonest.error, soonest.retry_at),
            )
        if execution.waits:
            hopeless = next((w for w in execution.waits if isinstance(w, NeedsOperator)), None)
            if hopeless is not None:
                failure = Failure(Act.STALLED, FAILED, hopeless.cause)
                return Result(PassOutcome.STALLED, failure=failure)
            return Result(PassOutcome.WAIT)  # `_next_pass_s` has the time
        stall = self._stall(execution)
        return Result(PassOutcome.DONE if stall is None else PassOutcome.STALLED, failure=stall)

    def _stall(self, execution: Execution) -> Failure | None:
        """Return why only a person can help after a pass without actions; None if time can."""
        for action in execution.refused:
            verdict = action.verdict
            return Failure(Act.STALLED, ", ".join(verdict.rules) or "denied", verdict.reason)
        for problem in self._plan.problems:
            if problem.key == self._key and problem.severity is Severity.ERROR:
                return Failure(Act.STALLED, problem.code, problem.message)
        for blocked in self._plan.blocked:
            if blocked.key == self._key:
                return Failure(Act.STALLED, blocked.code, blocked.reason)
        return None

    def _failed(self, action: AnyAction, error: EngineError, execution: Execution) -> Result:
        """Return the result of a pass that failed at *action*."""
        loop, key = self._loop, self._key
        if isinstance(error, Refused) and isinstance(action, CreateContainer):
            # The document's fields in place of those of the Engine API.
            message = with_document_fields(
                error.message, error.code, action.service, self._policy.networks
            )
            error = Refused(error.code, message, remedy=error.remedy, status=error.status)
        starts = isinstance(action, StartContainer) and key.kind != "Job"
        # The pass stopped the running container of the action's slot.
        down = isinstance(action, StartContainer) and any(
            isinstance(done.action, StopContainer) and done.action.slot == action.slot
            for done in execution.done
        )
        requeue_after_s = loop.retries.record_failure(
            key, signature(action, self._policy.digest), error, down=down
        )
        failure, now = failure_of(error), loop.clock.now()
        if starts and isinstance(error, Refused) and error.code.startswith(VIOLATION):
            # The next observation counts it as a failure of its slot.
            requeue_after_s, failure = 0.0, replace(failure, act=Act.RETRY)
        elif isinstance(action, StartContainer) and error.code == MOUNT_CHANGED:
            cause = f"failed to start: {error.message}"
            requeue_after_s = loop.tracker.record_changed_source(action, cause)
            failure = replace(failure, act=Act.RETRY)
        elif starts and is_slot_failure(error, down=down):
            cause = f"failed to start: {failures.start_failure(error.message)}"
            if error.act is Act.RETRY:
                failure = replace(failure, message=f"{action.target} {cause}")
            state = loop.store.slot((action.object, action.slot))
            state.history = history = failures.record_failure(state.history, now, cause=cause)
            requeue_after_s = max(requeue_after_s, failures.retry_not_before(history, now) - now)
        if down and not isinstance(error, EngineUnavailable | ReplyLost):
            requeue_after_s = 0.0  # start the stopped container again meanwhile
        failure = replace(failure, retry_at=now + requeue_after_s)
        return Result(OUTCOMES[failure.act], requeue_after_s=requeue_after_s, failure=failure)

    def _pause_after_acting_s(self) -> float:
        """Return the pause after an acting pass.

        Each acting pass is followed by another one. A key whose passes never stop acting slows down.
        """
        self._state.acting += 1
        more = self._state.acting - ACTING_FREELY
        return 0.0 if more <= 0 else float(min(300.0, 2.0 ** min(more - 1, 20)))

    def _next_pass_s(self, result: Result) -> float | None:
        """Return when the next pass runs at the latest; None if time alone changes nothing."""
        tracker, observed = self._loop.tracker, self._observed
        times = [result.requeue_after_s]
        ending = [w for w in result.execution.waits if not isinstance(w, NeedsOperator)]
        if result.requeue_after_s is None and ending:
            times.append(self._shortest_wait_s(ending))
        if self._service is not None:
            failure = result.failure
            is_helpless = failure is not None and failure.act is not Act.RETRY
            self._state.awaits_others = bool(result.waits) or is_helpless
            self._state.pass_error = "" if failure is None else failure.message
            times.append(tracker.due_in_s(self._service, observed))
        if self._workload is not None and result.outcome is not PassOutcome.ACTED:
            times.append(next_run_s(self._workload, observed, self._hooks()))
        return min((each for each in times if each is not None), default=None)

    def _shortest_wait_s(self, waits: Iterable[Wait]) -> float:
        """Return when the first of *waits* can end; usually an event ends it sooner."""
        now, tracker = self._loop.clock.now(), self._loop.tracker
        pauses, left = tracker.pauses(now), self._loop.quarantine().left
        service = self._service
        available_s = None if service is None else tracker.available_in_s(service, self._observed)

        def wait_s(wait: Wait) -> float:
            slot = (wait.object, wait.slot)
            if isinstance(wait, QuarantineWait) and wait.precondition.id in left:
                return left[wait.precondition.id].seconds
            if slot in pauses:
                return pauses[slot].until - now
            if isinstance(wait, Barrier) and not wait.on and available_s is not None:
                return available_s
            return WAIT_S

        return min(wait_s(wait) for wait in waits)


def is_slot_failure(error: EngineError, *, down: bool) -> bool:
    """Return True if a failed start counts as a failure of its slot.

    Only failures of the engine count: not a locked object, a lost reply, an unmet precondition, or
    an unavailable engine. *down*: a running container was stopped for the start. Then all but
    temporary failures count, to avoid another stop soon.
    """
    if isinstance(error, EngineUnavailable | ReplyLost) or error.code == LOCKED:
        return False
    return down or (error.act is Act.RETRY and not isinstance(error, Conflict))


def failure_of(error: EngineError, retry_at: float | None = None) -> Failure:
    """Return an engine error as the failure of a pass; *retry_at* is on the wall clock."""
    remedy = f" ({error.remedy})" if error.remedy else ""
    return Failure(error.act, error.code, f"{error.message}{remedy}", retry_at)
