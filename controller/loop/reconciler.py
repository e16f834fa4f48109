"""One pass for one key: look, count exits, plan, execute, and say what comes next.

A pass carries nothing from the one before but what ``StateStore`` and ``Retries`` hold; whatever woke
it brought no facts. It never waits, and raises nothing of the engine's: errors are its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from controller.core.drift import backoff
from controller.core.drift import failures as exits
from controller.core.enforcement import disruption_budget
from controller.core.planning import planner, quarantine
from controller.core.planning.dependency_state import FAILED
from controller.core.planning.ordering import KnownServices, Ordering
from controller.core.planning.quarantine import AT_ONCE, Moment, Quarantine, QuarantineRules
from controller.core.policy.refusals import with_document_fields
from controller.core.service import prune_guard
from controller.core.status.facts import Failure
from controller.loop.executor import Execution, execute, not_stopping
from controller.loop.passes import OUTCOMES, DesiredView, PassOutcome, PassPolicy, Result
from controller.loop.request_claims import claims, declared_keys, images_for
from controller.loop.state.action_log import ActionLog, Logged
from controller.loop.state.disruption_budget import DisruptionBudget, running_keys
from controller.loop.state.failed_runs import FailureLog
from controller.loop.state.retries import Attempt, Retries, delay_s, signature
from controller.loop.state.service_tracker import ServiceTracker
from controller.loop.state.store import StateStore
from controller.loop.workers.shared_creations import SharedCreations
from controller.loop.workers.worker_slots import OutsideSlot, OutsideSlotPerformer, in_place
from controller.model.desired.desired import Service
from controller.model.desired.plan import (
    AnyAction,
    Barrier,
    CreateContainer,
    NeedsOperator,
    Plan,
    QuarantineWait,
    StartContainer,
    StopContainer,
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
from controller.ports import Clock, Engine

#: How long a wait without a known end lasts at most; events usually end it sooner.
WAIT_S = 5.0
#: The broker's word for what it lets nobody change until recovery has settled what became of it.
HELD = "held"
NO_FAILURES: Mapping[Key, Failure] = {}
#: So many acting passes in a row are normal for a rollout; more look like a contention with somebody.
ACTING_FREELY = 5


class Reconciler:
    """Runs passes. Two passes of one key never run at the same time (``queue``)."""

    def __init__(
        self,
        engine: Engine,
        store: StateStore,
        *,
        clock: Clock,
        random: Callable[[], float],
        keeping: QuarantineRules = AT_ONCE,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._began = clock.now() - clock.monotonic()
        self._random = random
        self._keeping = keeping
        self.acts = ActionLog(clock)
        self.aside: OutsideSlot = in_place  # how pulls are performed beside other passes
        self._creations = SharedCreations()
        self._retries = Retries(clock, random)
        self._budget = DisruptionBudget(clock.monotonic)
        self.tracker = ServiceTracker(store, clock)
        self.failure_log = FailureLog(clock)
        self._stalled: set[Key] = set()  # for what is no fault of their rollout
        self._acting: dict[Key, int] = {}  # acting passes in a row
        self._away: dict[Key, int] = {}  # looks in a row that found nobody

    def reset(self, key: Key) -> None:
        """Start anew with a key: its spec changed, so that earlier failures say nothing."""
        self._retries.reset(key)
        self._store.clear_failures(key)
        self._acting.pop(key, None)

    def run(
        self,
        key: Key,
        view: DesiredView,
        rules: PassPolicy,
        *,
        known: Observed | None = None,
        failures: Mapping[Key, Failure] = NO_FAILURES,
        on_behalf_of: str = "",
        approved: str = "",
        stopping: Callable[[], bool] = not_stopping,
    ) -> Result:
        """Run one pass.

        Args:
            key: the resource to look after.
            view: what is desired, all of it.
            rules: the policy.
            known: the last snapshot of everything, for what this look doesn't show.
            failures: how the last passes of services ended, where they didn't end well.
            on_behalf_of: who asked for this pass, if somebody did.
            approved: the plan that an operator approved, if this pass is part of one.
            stopping: tells that no further action is to be begun.
        """
        generation = self._store.generation(key)
        try:
            observed = self._engine.observe(images=images_for(key, view, known), only=key)
        except EngineError as error:
            return self._nobody_there(key, error)
        self._away.pop(key, None)
        self.tracker.count_exits(view.desired, observed, only=key)
        self._keep_failures(key, view, observed)
        self.count_kept(observed, view.prunable, only=key)
        # What becomes of a suspended service is no rollout's doing.
        suspended = key in view.desired.suspended
        service = None if suspended else view.desired.service(key)
        course = None
        if service is not None:
            course = self.tracker.observe_rollout(service, observed, stalled=key in self._stalled)
        plan = self.plan(view, observed, rules, only=key, known=known, failures=failures)
        running = running_keys(known, observed, key)
        self._budget.record_observation(key, running=key in running)
        # What an operator approved is told by the plan that was shown, and is beyond the share.
        context = claims(view.desired, approved or plan.digest, on_behalf_of)
        take = self._nothing if approved else self._taking(key, plan, observed, running)
        result = self._act(key, plan, observed, rules, context, take, stopping)
        result = replace(self._timed(result, service, observed), course=course)
        done = result.outcome is PassOutcome.DONE and not plan.holds
        if done and generation is not None and key in declared_keys(view.desired):
            self._store.mark_acted_on(key, generation.number)
        return result

    def _keep_failures(self, key: Key, view: DesiredView, observed: Observed) -> None:
        """Keep what failed containers of *key* printed: this pass may remove them."""
        service = view.desired.service(key)
        if service is None:
            return
        revisions = self._store.overrides(key).revisions
        self.failure_log.record(
            service,
            observed.of(key),
            controller_restarts=frozenset(
                slot for each, slot in self.tracker.crash_looping(self._clock.now()) if each == key
            ),
            rejected={
                each.revision: each.reason
                for each in revisions
                if each.outcome == "failed" and each.revision != service.revision
            },
        )

    def plan(
        self,
        view: DesiredView,
        observed: Observed,
        rules: PassPolicy,
        *,
        only: Key | None = None,
        known: Observed | None = None,
        failures: Mapping[Key, Failure] = NO_FAILURES,
    ) -> Plan:
        """Return the plan of everything, or of one key, with what is known of failures.

        *known* is the last snapshot of everything, where *observed* shows only the one key.
        """
        return planner.plan(
            view.desired,
            observed,
            networks=rules.networks,
            judge=rules.judge,
            prunable=view.prunable,
            blocked=view.blocked,
            policy_digest=rules.digest,
            only=only,
            context=replace(
                self.tracker.plan_context(view.desired, observed),
                quarantine=self._quarantine(),
                known_services=self._around(known, failures, all_planned=only is None),
            ),
            volume_rule=rules.volume_rule,
        )

    def order(
        self, view: DesiredView, known: Observed, *, failures: Mapping[Key, Failure]
    ) -> Ordering:
        """Return the order among services as the last snapshot shows it."""
        around = self._around(known, failures, all_planned=False)
        looping = self.tracker.crash_looping(self._clock.now())
        return Ordering(
            view.desired,
            known,
            around,
            crash_looping=looping,
            prunable=view.prunable,
            blocked=frozenset(each.key for each in view.blocked),
        )

    def _around(
        self, known: Observed | None, failures: Mapping[Key, Failure], *, all_planned: bool
    ) -> KnownServices:
        # A plan of everything finds out itself which dependencies fail.
        stalled = {
            key: failure.message
            for key, failure in failures.items()
            if failure.act is Act.STALLED and not (all_planned and failure.code == FAILED)
        }
        overdue = prune_guard.overdue(self._store.prune, now=self.guard_now())
        return KnownServices(known, stalled, self._store.dependencies(), overdue)

    def count_kept(
        self, observed: Observed, pruned: frozenset[Key], *, only: Key | None = None
    ) -> None:
        """Count the quarantine of what a look at everything, or at *only* one key, shows."""
        mine = observed.containers if only is None else observed.of(only)
        before = self._store.quarantined
        kept = quarantine.watched(
            before, mine, pruned=pruned, keep_s=self._keeping.keep_s, now=self._moment()
        )
        there = frozenset(container.id for container in mine)
        if only is None:  # what isn't there any more needs no counting
            kept = {identifier: each for identifier, each in kept.items() if identifier in there}
        self._store.set_quarantined(kept, only=there if only is not None else None)

    def _quarantine(self) -> Quarantine:
        keep_s, now = self._keeping.keep_s, self._moment()
        return quarantine.quarantine_at(self._store.quarantined, keep_s=keep_s, now=now)

    def guard_now(self) -> float:
        """Return the time by the prune guard's clock: the wall's, but nobody can set it meanwhile.

        A jump would make two looks in a row two seconds apart, and end the window in which the
        guard counts.
        """
        return self._began + self._clock.monotonic()

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic(), self._keeping.boot)

    def _nobody_there(self, key: Key, error: EngineError) -> Result:
        count = self._away[key] = self._away.get(key, 0) + 1
        away = isinstance(error, EngineUnavailable)
        requeue_after_s = delay_s(error, count, self._random)
        return Result(
            PassOutcome.WAIT if away else PassOutcome.RETRY,
            requeue_after_s=requeue_after_s,
            failure=_failure(error, self._clock.now() + requeue_after_s),
        )

    def _taking(
        self, key: Key, plan: Plan, observed: Observed, running: frozenset[Key]
    ) -> Callable[[AnyAction], Attempt | None]:
        """Return what holds an action back that would leave too many services without a slot."""
        last = disruption_budget.last_slots(plan.of(key), observed.of(key))

        def take(action: AnyAction) -> Attempt | None:
            error = (
                self._budget.take(key, running)
                if disruption_budget.takes_down(action, last)
                else None
            )
            if error is None:
                return None
            return self._retries.attempt(error, self._budget.wait_s())

        return take

    def _contended(self, action: AnyAction) -> Attempt | None:
        """Return what holds back the creation of what somebody removes again and again."""
        wait_s = self._creations.wait_s(action, self._clock.now())
        if not wait_s:
            return None
        reason = f"{action.target} is removed again and again by somebody else"
        remedy = "look who removes it beside trimtab; it is created after growing pauses"
        return self._retries.attempt(
            TooManyRequests("create.contended", reason, remedy=remedy), wait_s
        )

    @staticmethod
    def _nothing(_action: AnyAction) -> Attempt | None:
        return None

    def _act(
        self,
        key: Key,
        plan: Plan,
        observed: Observed,
        rules: PassPolicy,
        context: Callable[[AnyAction], Context],
        take: Callable[[AnyAction], Attempt | None],
        stopping: Callable[[], bool],
    ) -> Result:
        holding: list[Attempt] = []

        def held(action: AnyAction) -> bool:
            attempt = self._retries.deferred(key, signature(action, rules.digest))
            attempt = attempt or self._contended(action) or take(action)
            if attempt is not None:
                holding.append(attempt)
            return attempt is not None

        done = execute(
            plan.actions,
            engine=Logged(OutsideSlotPerformer(self._engine, self.aside), self.acts),
            creations=self._creations,
            context=context,
            look=lambda _action: self._engine.observe(images=frozenset(), only=key),
            observed=observed,
            held=held,
            stopping=stopping,
        )
        self._settle(key, plan, done, rules)
        return replace(
            self._next(key, plan, done, holding, rules), observed=observed, execution=done
        )

    def _timed(self, result: Result, service: Service | None, observed: Observed) -> Result:
        """Return a result that says when to look again at the latest, where time changes something."""
        if result.requeue_after_s is None and result.outcome is PassOutcome.WAIT:
            requeue_after_s = self._until(result.execution.waits, service, observed)
            result = replace(result, requeue_after_s=requeue_after_s)
        if service is None:
            return result
        failure = result.failure
        if result.waits or (failure is not None and failure.act is not Act.RETRY):
            self._stalled.add(service.key)
        else:
            self._stalled.discard(service.key)
        self.tracker.record_failure(service.key, "" if failure is None else failure.message)
        due_s = self.tracker.due_in_s(service, observed)
        if due_s is not None and (result.requeue_after_s is None or due_s < result.requeue_after_s):
            result = replace(result, requeue_after_s=due_s)
        return result

    def _settle(self, key: Key, plan: Plan, done: Execution, rules: PassPolicy) -> None:
        """Remember what the execution tells: new containers, and which failures still count."""
        for each in done.done:
            self.tracker.record_action(each.action)
            if not each.shared:
                self._creations.note(each.action, self._clock.now())
            if isinstance(each.action, CreateContainer):
                slot = (each.action.object, each.action.slot)
                violations = (self._store.exit_cursor(slot) or exits.ExitCursor("")).violations
                made = exits.ExitCursor(each.id, name=each.action.target, violations=violations)
                self._store.set_exit_cursor(slot, made)
        # What succeeded isn't in the next plan any more.
        wanted = frozenset(signature(action, rules.digest) for action in plan.actions)
        self._retries.keep_only(key, wanted)

    def _next(
        self, key: Key, plan: Plan, done: Execution, holding: list[Attempt], rules: PassPolicy
    ) -> Result:
        """Return how the pass ended; the first that holds."""
        if done.interrupted:
            return Result(PassOutcome.ACTED, requeue_after_s=0.0)
        if done.failed is not None and done.error is not None:
            stops = (each.action for each in done.done if isinstance(each.action, StopContainer))
            down = isinstance(done.failed, StartContainer) and any(
                stop.slot == done.failed.slot for stop in stops
            )
            return self._failed(key, done.failed, done.error, rules, down=down)
        if done.done:
            return Result(PassOutcome.ACTED, requeue_after_s=self._after_acting(key))
        self._acting.pop(key, None)
        if holding:
            soonest = min(holding, key=self._retries.remaining_s)
            requeue_after_s = self._retries.remaining_s(soonest)
            outcome = OUTCOMES[soonest.error.act]
            return Result(
                outcome,
                requeue_after_s=requeue_after_s,
                failure=_failure(soonest.error, soonest.retry_at),
            )
        if done.waits:
            failed = next((w for w in done.waits if isinstance(w, NeedsOperator)), None)
            if failed is not None:
                failure = Failure(Act.STALLED, FAILED, failed.cause)
                return Result(PassOutcome.STALLED, failure=failure)
            return Result(PassOutcome.WAIT)  # until when, `_timed` says
        stalled = _stalled(key, plan, done)
        if stalled is not None:
            return Result(PassOutcome.STALLED, failure=stalled)
        return Result(PassOutcome.DONE)

    def _failed(
        self, key: Key, action: AnyAction, error: EngineError, rules: PassPolicy, *, down: bool
    ) -> Result:
        """Return how a pass ended that failed at *action*; *down*: its slot was taken down for it."""
        requeue_after_s = self._retries.record_failure(
            key, signature(action, rules.digest), error, down=down
        )
        failure = _failure(error)
        if isinstance(error, Refused) and isinstance(action, CreateContainer):
            told = with_document_fields(failure.message, error.code, action.service, rules.networks)
            failure = replace(failure, message=told)
        now = self._clock.now()
        starts = isinstance(action, StartContainer)
        if starts and _is_violation(error):
            # It counts as a failure of its slot, once the next look shows it.
            requeue_after_s, failure = 0.0, replace(failure, act=Act.RETRY)
        elif starts and _counts(error, down=down):
            slot = (action.object, action.slot)
            cause = f"failed to start: {exits.start_failure(error.message)}"
            if error.act is Act.RETRY:
                failure = replace(failure, message=f"{action.target} {cause}")
            history = backoff.failed(self._store.history(slot), now, cause=cause)
            self._store.set_history(slot, history)
            requeue_after_s = max(requeue_after_s, backoff.not_before(history, now) - now)
        if down and not isinstance(error, EngineUnavailable | ReplyLost):
            requeue_after_s = 0.0  # what was stopped for it is to serve again meanwhile
        failure = replace(failure, retry_at=now + requeue_after_s)
        return Result(OUTCOMES[failure.act], requeue_after_s=requeue_after_s, failure=failure)

    def _after_acting(self, key: Key) -> float:
        # Every acting pass is followed by a look; one that acts for ever slows down by itself.
        count = self._acting[key] = self._acting.get(key, 0) + 1
        if count <= ACTING_FREELY:
            return 0.0
        return float(min(300.0, 2.0 ** min(count - ACTING_FREELY - 1, 20)))

    def _until(self, waits: Iterable[Wait], service: Service | None, observed: Observed) -> float:
        """Return when the first of *waits* may be over; events usually tell sooner."""
        now = self._clock.now()
        held, left = self.tracker.start_pauses(now), self._quarantine().left
        spared = self.tracker.repair_pauses(now)
        settles_s = None if service is None else self.tracker.available_in_s(service, observed)

        def until_s(wait: Wait) -> float:
            slot = (wait.object, wait.slot)
            if isinstance(wait, QuarantineWait) and wait.precondition.id in left:
                return left[wait.precondition.id].seconds
            if slot in held:
                return held[slot].until - now
            if slot in spared:
                return max(0.0, min(spared[slot].values()) - now)
            settles = isinstance(wait, Barrier) and not wait.on and settles_s is not None
            return settles_s if settles and settles_s is not None else WAIT_S

        return min(until_s(wait) for wait in waits)


def _counts(error: EngineError, *, down: bool) -> bool:
    """Tell whether a start that failed so counts as a failure of its slot.

    Only what the engine tried does: not a held object, a lost reply, a precondition, or an engine
    that is away. Where something was stopped for it, which isn't to be again and again, all counts
    but what passes by itself.
    """
    if isinstance(error, EngineUnavailable | ReplyLost) or error.code == HELD:
        return False
    return down or (error.act is Act.RETRY and not isinstance(error, Conflict))


def _is_violation(error: EngineError) -> bool:
    """Return True if the broker ended a container, since it didn't run as admitted."""
    return isinstance(error, Refused) and error.code.startswith("effective.")


def _failure(error: EngineError, retry_at: float | None = None) -> Failure:
    remedy = f" ({error.remedy})" if error.remedy else ""
    return Failure(error.act, error.code, f"{error.message}{remedy}", retry_at)


def _stalled(key: Key, plan: Plan, done: Execution) -> Failure | None:
    """Return why a pass that did nothing can't go on by itself, if so."""
    for action in done.refused:
        verdict = action.verdict
        return Failure(Act.STALLED, ", ".join(verdict.rules) or "denied", verdict.reason)
    for problem in plan.problems:
        if problem.key == key and problem.severity is Severity.ERROR:
            return Failure(Act.STALLED, problem.code, problem.message)
    for blocked in plan.blocked:
        if blocked.key == key:
            return Failure(Act.STALLED, blocked.code, blocked.reason)
    return None
