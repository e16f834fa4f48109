"""One pass for one key: observe, count failures, plan, execute, and decide when the next pass runs.

A pass takes nothing from the pass before but the contents of ``StateStore``, ``ServiceTracker`` and
``Retries``; the triggering event carries no facts. A pass never waits, and raises no engine
errors: they are part of its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from controller.core.drift import failures
from controller.core.drift.availability import FAILED
from controller.core.planning import planner, quarantine
from controller.core.planning.quarantine import AT_ONCE, Moment, Quarantine, QuarantineRules
from controller.core.planning.service_order import KnownServices, Ordering
from controller.core.service import prune_guard
from controller.core.service.desired_view import DesiredView
from controller.core.status.facts import Failure
from controller.loop import passes
from controller.loop.executor import Execution, execute, never
from controller.loop.passes import JobViews
from controller.loop.state.disruption_budget import DisruptionBudget, running_keys
from controller.loop.state.failed_runs import ActionLog, FailureLog, Logged
from controller.loop.state.overrides import Retries, delay_s, signature
from controller.loop.state.service_state import Attempt
from controller.loop.state.service_tracker import ServiceTracker, refreshed
from controller.loop.state.store import StateStore
from controller.loop.worker_slots import (
    OutsideSlot,
    OutsideSlotPerformer,
    SharedCreations,
    in_place,
)
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import (
    AnyAction,
    Barrier,
    ConnectNetwork,
    CreateContainer,
    DisconnectNetwork,
    NeedsOperator,
    Plan,
    QuarantineWait,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    Wait,
)
from controller.model.errors import (
    Act,
    EngineError,
    EngineUnavailable,
    Refused,
    ReplyLost,
    TooManyRequests,
)
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.records import Context
from controller.ports import Clock, Engine

#: How long a wait without a known end lasts at most; usually an event ends it sooner.
WAIT_S = 5.0
#: After one of these a container must run for a while before it keeps its service up.
ALTERING = (StartContainer, StopContainer, UnpauseContainer, DisconnectNetwork, ConnectNetwork)


class Reconciler:
    """Runs passes. Two passes of one key never run at the same time (``WorkQueue``)."""

    def __init__(
        self,
        engine: Engine,
        store: StateStore,
        *,
        clock: Clock,
        random: Callable[[], float],
        quarantine_rules: QuarantineRules = AT_ONCE,
        failure_log: FailureLog | None = None,
        outside_slot: OutsideSlot = in_place,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._random = random
        self.jobs = JobViews(store, clock)
        self._quarantine_rules = quarantine_rules
        self.outside_slot = outside_slot
        self.action_log = ActionLog(clock)
        self.tracker = ServiceTracker(store, clock)
        self.failure_log = FailureLog(clock) if failure_log is None else failure_log
        self._creations = SharedCreations()
        self._retries = Retries(store, clock, random)
        self.budget = DisruptionBudget(store, clock.monotonic)

    def run(
        self,
        key: Key,
        view: DesiredView,
        policy: passes.PassPolicy,
        *,
        known: Observed | None = None,
        stopping: Callable[[], bool] = never,
    ) -> passes.Result:
        """Run one pass.

        *known* is the last snapshot of everything, for resources other than *key*. *stopping* returns
        True if no further action is to begin.
        """
        state = self._store.of(key)
        generation, approved, by = state.generation, state.approved_plan, state.requested_by
        try:
            observed = passes.look_at(self._engine, key, view, known)
        except EngineError as error:
            return self._unobservable(key, error)
        state.unobserved = 0
        self.tracker.count_exits(view.desired, observed, only=key)
        self._log_failures(key, view, observed)
        self.count_quarantine(observed, view.prunable, only=key)
        # The rollout of a suspended service doesn't progress.
        suspended = key in view.desired.suspended
        service, rollout = None if suspended else view.desired.service(key), None
        moves = passes.moves_of(view.desired, observed, known)
        if service is not None and all(move.service.key != key for move in moves):
            rollout = self.tracker.observe_rollout(
                service,
                observed,
                stalled=state.is_stalled,
                hooks=self.jobs.hooks(view.desired, observed, known).facts(service),
            )
        plan = self.plan(view, observed, policy, only=key, known=known)
        guessed, others = plan, passes.dependencies_of_starts(key, plan, view.desired)
        if others and known is not None:
            # The event that a dependency is down can be lost: no start relies on it.
            try:
                known = refreshed(known, others, self._look)
            except EngineError as error:
                return self._unobservable(key, error)
            plan = self.plan(view, observed, policy, only=key, known=known)
        outdated = others if plan.actions != guessed.actions else ()
        self.budget.record_observation(key, observed.of(key))
        # An approved pass claims the plan that was shown, and is exempt from the disruption budget.
        context = passes.claims(view.desired, approved or plan.digest, by)
        take = _take_nothing if approved else self._budget_for(key, plan, observed, known)
        with self._store.remaking(plan):
            result = self._act(key, plan, others, observed, policy, context, take, stopping)
        self.tracker.record_pulls(view.desired.workload(key), *result.execution.attempted)
        result = self._with_deadline(result, service, observed)
        hooks = self.jobs.hooks(view.desired, observed, known)
        result = passes.with_next_run(result, view.desired.workload(key), observed, hooks)
        result = replace(result, rollout=rollout, plan=plan, outdated=outdated)
        done = result.outcome is passes.PassOutcome.DONE and not plan.holds
        if done and generation is not None and passes.is_declared(view.desired, key):
            self._store.mark_acted_on(key, generation.number)
        return result

    def _look(self, key: Key) -> Observed:
        return self._engine.observe(images=frozenset(), only=key)

    def _log_failures(self, key: Key, view: DesiredView, observed: Observed) -> None:
        """Log the output of failed containers of *key* before this pass can remove them."""
        service = view.desired.service(key)
        if service is None:
            return
        revisions = self._store.of(key).overrides.revisions
        self.failure_log.record(
            service,
            observed.of(key),
            controller_restarts=self.tracker.restarted_slots(service, self._clock.now()),
            rejected=passes.failure_reasons(revisions, service.revision),
        )

    def plan(
        self,
        view: DesiredView,
        observed: Observed,
        policy: passes.PassPolicy,
        *,
        only: Key | frozenset[Key] | None = None,
        known: Observed | None = None,
    ) -> Plan:
        """Return the plan of everything, or of *only* some keys. Changes nothing.

        *known* is the last snapshot of everything, for an *observed* of one key only.
        """
        observed, known, moves = passes.after_moves(view.desired, observed, known, only)
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
                quarantine=self._quarantine(),
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
            crash_looping=self.tracker.crash_looping(self._clock.now()),
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
            for key, failure in self._store.failures().items()
            if failure.act is Act.STALLED
            and (failure.code != FAILED or (own is not None and key not in own))
        }
        overdue = prune_guard.overdue(self._store.prune, now=self.guard_now())
        rollouts = self.jobs.standings(desired)
        return KnownServices(known, stalled, self._store.dependencies(), overdue, rollouts)

    # Quarantine

    def count_quarantine(
        self, observed: Observed, pruned: frozenset[Key], *, only: Key | None = None
    ) -> None:
        """Count the quarantine time of the containers in a snapshot of everything, or of *only* one key."""
        containers = observed.containers if only is None else observed.of(only)
        keep_s, ids = self._quarantine_rules.keep_s, {container.id for container in containers}
        with self._store.lock:
            known = self._store.quarantined
            watched = quarantine.watched(
                known,
                containers,
                pruned=pruned,
                keep_s=keep_s,
                now=Moment(self._clock.now(), self._clock.monotonic(), self._quarantine_rules.boot),
            )
            # A snapshot of everything lacks the containers that don't exist any more.
            others = {} if only is None else {i: c for i, c in known.items() if i not in ids}
            self._store.quarantined = others | {i: c for i, c in watched.items() if i in ids}

    def _quarantine(self) -> Quarantine:
        keep_s = self._quarantine_rules.keep_s
        now = Moment(self._clock.now(), self._clock.monotonic(), self._quarantine_rules.boot)
        return quarantine.quarantine_at(self._store.quarantined, keep_s=keep_s, now=now)

    def guard_now(self) -> float:
        """Return the prune guard's time: the wall clock's at the start, then without jumps.

        A jump would part two consecutive observations, and end the window in which the guard counts.
        """
        return self.jobs.steady_now()

    # Acting

    def _unobservable(self, key: Key, error: EngineError) -> passes.Result:
        state = self._store.of(key)
        state.unobserved += 1
        unavailable = isinstance(error, EngineUnavailable)
        requeue_after_s = delay_s(error, state.unobserved, self._random)
        return passes.Result(
            passes.PassOutcome.WAIT if unavailable else passes.PassOutcome.RETRY,
            requeue_after_s=requeue_after_s,
            failure=passes.failure_of(error, self._clock.now() + requeue_after_s),
        )

    def _budget_for(
        self, key: Key, plan: Plan, observed: Observed, known: Observed | None
    ) -> Callable[[AnyAction], Attempt | None]:
        """Return a function that takes an action's share of the disruption budget, or refuses."""
        running = partial(running_keys, known, observed, key, wall=self._clock.now())
        share = self.budget.share_of(key, plan, observed, running)

        def take(action: AnyAction) -> Attempt | None:
            error = share(action)
            return None if error is None else self._retries.attempt(error, self.budget.wait_s())

        return take

    def _contended(self, action: AnyAction) -> Attempt | None:
        """Return the pause of a creation whose object another client removes again and again."""
        wait_s = self._creations.wait_s(action, self._clock.now())
        if not wait_s:
            return None
        reason = f"{action.target} is repeatedly removed from outside"
        remedy = "find out who else removes it; trimtab creates it again after growing pauses"
        return self._retries.attempt(
            TooManyRequests("create.contended", reason, remedy=remedy), wait_s
        )

    def _act(
        self,
        key: Key,
        plan: Plan,
        dependencies: tuple[Key, ...],
        observed: Observed,
        policy: passes.PassPolicy,
        context: Callable[[AnyAction], Context],
        take: Callable[[AnyAction], Attempt | None],
        stopping: Callable[[], bool],
    ) -> passes.Result:
        deferring: list[Attempt] = []

        def is_deferred(action: AnyAction) -> bool:
            attempt = self._retries.deferred(key, signature(action, policy.digest))
            attempt = attempt or self._contended(action) or take(action)
            if attempt is not None:
                deferring.append(attempt)
            return attempt is not None

        execution = execute(
            passes.until_next_look(plan.actions, dependencies),
            engine=Logged(OutsideSlotPerformer(self._engine, self.outside_slot), self.action_log),
            creations=self._creations,
            context=context,
            observe=lambda _action: self._look(key),
            is_deferred=is_deferred,
            stopping=stopping,
        )
        altered = {done.id for done in execution.done if isinstance(done.action, ALTERING)}
        if isinstance(execution.failed, ALTERING):
            altered.add(execution.failed.precondition.id)
        self.budget.record_alterations(key, altered, observed)
        self._record(key, plan, execution, policy)
        return replace(
            self._result(key, plan, execution, deferring, policy),
            observed=observed,
            execution=execution,
        )

    def _with_deadline(
        self, result: passes.Result, service: Service | None, observed: Observed
    ) -> passes.Result:
        """Return a result with the time of the next pass, if time alone changes anything."""
        ending = [w for w in result.execution.waits if not isinstance(w, NeedsOperator)]
        if result.requeue_after_s is None and ending:
            wait_s = self._shortest_wait_s(ending, service, observed)
            result = replace(result, requeue_after_s=wait_s)
        if service is None:
            return result
        failure = result.failure
        state = self._store.of(service.key)
        is_helpless = failure is not None and failure.act is not Act.RETRY
        state.is_stalled = bool(result.waits) or is_helpless
        state.pass_error = "" if failure is None else failure.message
        due_s = self.tracker.due_in_s(service, observed)
        if due_s is not None and (result.requeue_after_s is None or due_s < result.requeue_after_s):
            result = replace(result, requeue_after_s=due_s)
        return result

    def _record(
        self, key: Key, plan: Plan, execution: Execution, policy: passes.PassPolicy
    ) -> None:
        """Record an execution: new containers, contention, and remaining failures."""
        for done in execution.done:
            # The broker remembers the runs of jobs; nothing starts a run again.
            is_run = done.action.object.kind == "Job"
            if not is_run:
                self.tracker.record_action(done.action)
            if not done.shared:
                self._creations.record_action(done.action, self._clock.now())
            if isinstance(done.action, CreateContainer) and not is_run:
                state = self._store.slot((done.action.object, done.action.slot))
                violations = (state.exit_cursor or failures.ExitCursor("")).violations
                state.exit_cursor = failures.ExitCursor(
                    done.id, name=done.action.target, violations=violations
                )
        # An action that succeeded isn't in the next plan, and so loses its failures there.
        planned = frozenset(signature(action, policy.digest) for action in plan.actions)
        self._retries.keep_only(key, planned)

    # Results

    def _result(
        self,
        key: Key,
        plan: Plan,
        execution: Execution,
        deferring: list[Attempt],
        policy: passes.PassPolicy,
    ) -> passes.Result:
        """Return how the pass ended: the first case that applies."""
        if execution.interrupted:
            return passes.Result(passes.PassOutcome.ACTED, requeue_after_s=0.0)
        if execution.failed is not None and execution.error is not None:
            stops = [d.action for d in execution.done if isinstance(d.action, StopContainer)]
            down = isinstance(execution.failed, StartContainer) and any(
                stop.slot == execution.failed.slot for stop in stops
            )
            return self._failed(key, execution.failed, execution.error, policy, down=down)
        if execution.done:
            return passes.Result(
                passes.PassOutcome.ACTED, requeue_after_s=self._pause_after_acting_s(key)
            )
        self._store.of(key).acting = 0
        if deferring:
            soonest = min(deferring, key=self._retries.remaining_s)
            return passes.Result(
                passes.OUTCOMES[soonest.error.act],
                requeue_after_s=self._retries.remaining_s(soonest),
                failure=passes.failure_of(soonest.error, soonest.retry_at),
            )
        if execution.waits:
            hopeless = next((w for w in execution.waits if isinstance(w, NeedsOperator)), None)
            if hopeless is not None:
                failure = Failure(Act.STALLED, FAILED, hopeless.cause)
                return passes.Result(passes.PassOutcome.STALLED, failure=failure)
            return passes.Result(passes.PassOutcome.WAIT)  # `_with_deadline` sets the time
        stalled = passes.stall_of(key, plan, execution)
        if stalled is not None:
            return passes.Result(passes.PassOutcome.STALLED, failure=stalled)
        return passes.Result(passes.PassOutcome.DONE)

    def _failed(
        self,
        key: Key,
        action: AnyAction,
        error: EngineError,
        policy: passes.PassPolicy,
        *,
        down: bool,
    ) -> passes.Result:
        """Return the result of a pass that failed at *action*.

        *down*: the pass stopped the running container of the action's slot.
        """
        if isinstance(error, Refused) and isinstance(action, CreateContainer):
            error = passes.refused_document(error, action.service, policy.networks)
        requeue_after_s = self._retries.record_failure(
            key, signature(action, policy.digest), error, down=down
        )
        failure = passes.failure_of(error)
        now = self._clock.now()
        starts = isinstance(action, StartContainer) and key.kind != "Job"
        if starts and passes.is_violation(error):
            # The next observation counts it as a failure of its slot.
            requeue_after_s, failure = 0.0, replace(failure, act=Act.RETRY)
        elif isinstance(action, StartContainer) and error.code == passes.MOUNT_CHANGED:
            cause = f"failed to start: {error.message}"
            requeue_after_s = self.tracker.record_changed_source(action, cause)
            failure = replace(failure, act=Act.RETRY)
        elif starts and passes.is_slot_failure(error, down=down):
            cause = f"failed to start: {failures.start_failure(error.message)}"
            if error.act is Act.RETRY:
                failure = replace(failure, message=f"{action.target} {cause}")
            state = self._store.slot((action.object, action.slot))
            state.history = history = failures.record_failure(state.history, now, cause=cause)
            requeue_after_s = max(requeue_after_s, failures.retry_not_before(history, now) - now)
        if down and not isinstance(error, EngineUnavailable | ReplyLost):
            requeue_after_s = 0.0  # start the stopped container again meanwhile
        failure = replace(failure, retry_at=now + requeue_after_s)
        return passes.Result(
            passes.OUTCOMES[failure.act], requeue_after_s=requeue_after_s, failure=failure
        )

    def _pause_after_acting_s(self, key: Key) -> float:
        state = self._store.of(key)
        state.acting += 1
        return passes.pause_after_acting_s(state.acting)

    def _shortest_wait_s(
        self, waits: Iterable[Wait], service: Service | None, observed: Observed
    ) -> float:
        """Return when the first of *waits* can end; usually an event ends it sooner."""
        now = self._clock.now()
        start_pauses, left = self.tracker.start_pauses(now), self._quarantine().left
        repair_pauses = self.tracker.repair_pauses(now)
        available_s = None if service is None else self.tracker.available_in_s(service, observed)

        def wait_s(wait: Wait) -> float:
            slot = (wait.object, wait.slot)
            if isinstance(wait, QuarantineWait) and wait.precondition.id in left:
                return left[wait.precondition.id].seconds
            if slot in start_pauses:
                return start_pauses[slot].until - now
            if slot in repair_pauses:
                return max(0.0, min(repair_pauses[slot].values()) - now)
            if isinstance(wait, Barrier) and not wait.on and available_s is not None:
                return available_s
            return WAIT_S

        return min(wait_s(wait) for wait in waits)


def _take_nothing(_action: AnyAction) -> Attempt | None:
    """Exempt an action from the disruption budget."""
    return None
