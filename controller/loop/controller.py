"""The controller without its threads: what each chore and each pass does, and what is shared.

Two queues feed it: chores (read the files, look at everything, glance, save) and keys. Whoever
drives it takes from them, the supervisor with threads, the simulation with one. Chores run one at
a time; passes of different keys run side by side.

Invariant: ``DesiredView`` is swapped as one value, so that no pass ever sees desired resources with
another desired state's word of the prune guard.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from controller.core.drift.failed_runs import Readers
from controller.core.planning import planner
from controller.core.planning.image_volumes import with_image_volumes
from controller.core.planning.ordering import Ordering
from controller.core.planning.prerequisites import image_references
from controller.core.planning.quarantine import AT_ONCE, QuarantineRules
from controller.core.review.progress import acts_json, down_s, summary_of_acts
from controller.core.review.review import review
from controller.core.service import prune_guard
from controller.core.service.history import HistoryInputs, history
from controller.core.service.operator_actions import Decision, unknown
from controller.core.service.overrides import persistent_keys
from controller.core.service.prune_guard import PruneDecision
from controller.core.service.rollout_progress import RolloutProgress
from controller.core.status.details import Report
from controller.core.status.facts import Failure
from controller.loop.executor import Execution, execute, not_stopping
from controller.loop.full_plan import Convergence, FullPlan, convergence_of
from controller.loop.passes import (
    DesiredView,
    PassOutcome,
    PassPolicy,
    Result,
    claims,
    declared_keys,
)
from controller.loop.plan_gates import PlanGates
from controller.loop.probes.prober import ProbedEngine
from controller.loop.reconciler import WAIT_S, Reconciler
from controller.loop.state import snapshot
from controller.loop.state.action_log import Logged
from controller.loop.state.failed_runs import FailureLog
from controller.loop.state.generations import accept_desired
from controller.loop.state.overrides import OverrideStore
from controller.loop.state.retries import AWAY_LONGEST_S, delay_s
from controller.loop.state.store import StateStore
from controller.loop.state.waiters import Waiters
from controller.loop.status_reporter import Reporter, ReportInputs
from controller.loop.workers.worker_slots import OutsideSlot
from controller.loop.workers.workqueue import WorkQueue
from controller.model.container_output import FailedRun
from controller.model.desired.desired import Desired, Service
from controller.model.desired.field_changes import Review
from controller.model.desired.overrides import NO_OVERRIDES, ServiceAct
from controller.model.desired.plan import Plan, StopContainer
from controller.model.errors import (
    Act,
    EngineError,
    EngineUnavailable,
    OverShare,
    Problem,
    Severity,
    StateError,
    UsageError,
)
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.quantities import format_instant
from controller.ports import DesiredSource, EngineEvent, Timer

FIRST_LOOK_S = 2.0
GLANCE_S = 30.0
LOOK_S = 300.0
SPREAD = 0.1
SAVE_S = 0.5
SAVE_AGAIN_S = 10.0
PUBLISH_S = 0.2
PUBLISH_SHARE = 20
RECENT_S = 60.0


class Chore(StrEnum):
    """What is done beside passes, one at a time."""

    RELOAD = "reload"  # read the files
    LOOK = "look"  # read the files, look at everything, plan all
    GLANCE = "glance"  # compare the engine's list with what is known
    SAVE = "save"  # the memory
    PUBLISH = "publish"  # the status, for when nobody runs to be asked


@dataclass(slots=True)
class _Shared:
    """What chores and passes share, under one lock."""

    declared: Desired | None = None  # as the files say; ``view`` has it as people want it
    view: DesiredView = field(default_factory=DesiredView)
    known: Observed | None = None
    rules: PassPolicy | None = None
    away: EngineError | None = None
    aways: int = 0
    version: int = 0  # counts changes of all that a report shows
    failures: dict[Key, Failure] = field(default_factory=dict)
    progress: dict[Key, str] = field(default_factory=dict)  # of what takes long, and runs now
    crashes: dict[Key, int] = field(default_factory=dict)  # exceptions in a row
    asked: dict[Key, str] = field(default_factory=dict)  # who asked for a pass of it
    approved: dict[Key, str] = field(default_factory=dict)  # the approved plan that it is part of
    problems: dict[str, Problem] = field(default_factory=dict)  # the controller's own
    waits: Waiters = field(default_factory=Waiters)


class Controller:
    """Converges the engine with the files, one chore or pass at a time."""

    def __init__(
        self,
        *,
        source: DesiredSource,
        engine: ProbedEngine,
        store: StateStore,
        clock: Timer,
        random: Callable[[], float],
        fetch_rules: Callable[[], PassPolicy],
        publish: Callable[[Report], None],
        keeping: QuarantineRules = AT_ONCE,
    ) -> None:
        self.keys: WorkQueue[Key] = WorkQueue(clock.monotonic)
        self.chores: WorkQueue[Chore] = WorkQueue(clock.monotonic)
        self._source = source
        self._engine = engine
        self.prober = engine.prober
        self.prober.hint = self._suspect
        self._store = store
        self._clock = clock
        self._random = random
        self._fetch_rules = fetch_rules
        self._publish = publish
        self._reconciler = Reconciler(
            engine, store, clock=clock, random=random, quarantine_rules=keeping
        )
        self.acts = self._reconciler.action_log
        self._overrides = OverrideStore(store, clock)
        self._reporter = Reporter(self._reconciler, store)
        self._lock = threading.RLock()
        self._surveying = threading.Lock()
        self._shared = _Shared()
        self._published: Report | None = None
        self._publish_s = PUBLISH_S
        self.stopping: Callable[[], bool] = not_stopping

    def sideline(self, aside: OutsideSlot) -> None:
        """Perform pulls beside other passes from now on."""
        self._reconciler.outside_slot = aside

    def keep_failures(self, log: FailureLog) -> None:
        """Keep failed runs there from now on."""
        self._reconciler.failure_log = log

    # Hints: they carry no facts, and only put something into a queue

    def begin(self, *, previous: object = None, problem: Problem | None = None) -> None:
        """Ask for the first chores. *previous* is the last published status, if it can be read,
        *problem* what is wrong with the memory.

        The first look comes with the subscription to events (``subscribed``), or soon without it.
        """
        self._reporter.recall(previous)
        with self._lock:
            if problem is not None:
                self._shared.problems["memory"] = replace(problem, severity=Severity.WARNING)
        self.chores.add(Chore.RELOAD)
        self.chores.add_after(Chore.LOOK, FIRST_LOOK_S)

    def files_changed(self) -> None:
        """Take a hint that the files changed."""
        self.chores.add(Chore.RELOAD)

    def subscribed(self, *, after_silence: bool = False) -> None:
        """Take note that events come (again): what happened before is only seen by a look.

        After mere silence nothing is missing but, perhaps, what a list shows.
        """
        self.chores.add(Chore.GLANCE if after_silence else Chore.LOOK)

    def hint(self, event: EngineEvent) -> None:
        """Take an event of the engine's."""
        with self._lock:
            known = self._shared.known
        if event.kind != "container":
            self.chores.add(Chore.LOOK)
            return
        key = event.key or (snapshot.owner_of(known, event.id) if known is not None else None)
        if key is not None:
            self._suspect(key)

    def _suspect(self, key: Key) -> None:
        if not self.keys.add(key):
            self.chores.add(Chore.LOOK)

    def lost(self, error: EngineError) -> None:
        """Take note that the engine or the broker doesn't answer; a look is tried soon."""
        with self._lock:
            self._shared.away = error
            self._shared.aways += 1
            wait_s = min(AWAY_LONGEST_S, delay_s(error, self._shared.aways, self._random))
        self.chores.add_after(Chore.LOOK, wait_s)
        self._changed()

    def progressed(self, key: Key, text: str) -> None:
        """Take note of how far an action is that takes long; '' once it is over."""
        with self._lock:
            if text:
                self._shared.progress[key] = text
            else:
                self._shared.progress.pop(key, None)
            self._shared.version += 1
        self.chores.add_after(Chore.PUBLISH, self._publish_s)

    # Chores

    def do(self, chore: Chore) -> None:
        """Do one chore; errors of the engine's are noted and tried again, not raised."""
        try:
            match chore:
                case Chore.RELOAD:
                    self.reload()
                case Chore.LOOK:
                    self.look()
                case Chore.GLANCE:
                    self.glance()
                case Chore.SAVE:
                    self.save()
                case Chore.PUBLISH:
                    self.publish()
        except EngineError as error:
            self.lost(error)
        except StateError as error:
            self._own_problem("state", error.code, error.message, error.remedy)
            self.chores.add_after(Chore.SAVE, SAVE_AGAIN_S)

    def reload(self) -> None:
        """Read the files, and ask for passes of what they change."""
        with self._surveying:
            declared = self._source.load()
            with self._lock:
                known = self._shared.known
                steered = self._overrides.apply(declared)
                decision = self._decide(steered, known, approved=False, looked=False)
                self._take(declared, known, decision)
        self._changed()

    def look(self, *, approved: bool = False, asked_by: str = "", plan: str = "") -> FullPlan:
        """Look at everything, and ask for passes of what isn't as desired.

        *approved* is an operator's approval of what the prune guard holds back at this look,
        *plan* the digest of the plan that was shown for it: what is done of it is told with that.

        Raises:
            EngineError: it can't be looked at.
            UsageError: the plan is another one now.
        """
        with self._surveying:
            self.chores.forget(Chore.LOOK)  # this is the one that was to come
            try:
                shown = self._survey(approved=False, keep=False) if plan else None
                survey = self._survey(approved=approved, keep=True)
            finally:
                self.chores.add_after(Chore.LOOK, self._spread(LOOK_S))
                self.chores.add_after(Chore.GLANCE, self._spread(GLANCE_S))
            part = frozenset[Key]() if shown is None else _part_of(plan, shown, survey)
            declared, observed = survey.declared, survey.observed
            with self._lock:
                self._shared.known = observed
                self._shared.rules = survey.policy
                self._shared.away, self._shared.aways = None, 0
                keys = self._take(declared, observed, survey.decision)
                if asked_by:
                    self._shared.asked |= dict.fromkeys(keys, asked_by)
                self._shared.approved |= dict.fromkeys(part, plan)
                everything = planner.keys(declared, observed) | declared.blind_keys
                for gone in self._shared.failures.keys() - everything:
                    del self._shared.failures[gone]
                self._shared.waits.forget_all_but(everything)
            releases = frozenset(release.key for release in declared.releases)
            steered = persistent_keys(declared, self._store.all_overrides())
            if declared.whole:
                self._store.forget_all_but(everything | releases | steered)
                self._reconciler.tracker.forget_all_but(everything)
                self._reconciler.failure_log.forget_all_but(everything)
        self._changed()
        return survey

    def survey(self) -> FullPlan:
        """Look at everything and plan, changing nothing, not even what is remembered.

        Raises:
            EngineError: it can't be looked at.
        """
        with self._surveying:
            return self._survey(approved=False, keep=False)

    def review(self, survey: FullPlan, *, reveal: bool = False) -> Review:
        """Return a survey's plan with the fields that it changes; *reveal* includes secret values."""
        return review(
            survey.plan,
            declared=survey.declared,
            desired=with_image_volumes(
                survey.view.desired, survey.observed, survey.policy.volume_rule
            ),
            observed=survey.observed,
            all_overrides=self._store.all_overrides(),
            reveal=reveal,
        )

    def glance(self) -> None:
        """Compare the engine's list with what is known; look at all if the policy changed."""
        self.chores.add_after(Chore.GLANCE, self._spread(GLANCE_S))
        rules, seen = self._fetch_rules(), self._engine.list_containers()
        with self._lock:
            known, before = self._shared.known, self._shared.rules
        if known is None or before is None or before.digest != rules.digest:
            self.chores.add(Chore.LOOK)
            return
        for key in sorted(snapshot.changed_services(known, seen)):
            self.keys.add(key)

    def publish(self) -> None:
        """Publish the status, if it is another than the last one published.

        Raises:
            StateError: it can't be written.
        """
        began = self._clock.monotonic()
        report = self.status()
        # While much happens, a twentieth of one CPU is enough for telling of it.
        cost_s = self._clock.monotonic() - began
        self._publish_s = max(PUBLISH_S, PUBLISH_SHARE * cost_s)
        if report != self._published:
            try:
                self._publish(report)
            except OSError as error:
                raise StateError(
                    "state.unwritable", f"the status can't be written: {error}"
                ) from error
            self._published = report

    def save(self) -> None:
        """Save the memory.

        Raises:
            StateError: it can't be written.
        """
        self._store.save()
        self._reconciler.failure_log.save()
        with self._lock:
            if self._shared.problems.pop("state", None) is not None:
                self._shared.version += 1

    def _survey(self, *, approved: bool, keep: bool) -> FullPlan:
        rules, declared = self._fetch_rules(), self._source.load()
        desired = self._overrides.apply(declared)
        with self._lock:
            known, failures = self._shared.known, dict(self._shared.failures)
        self.prober.declare(desired.services, rules.networks)
        observed = self._engine.observe(images=image_references(desired, known))
        if keep:
            self._reconciler.tracker.count_exits(desired, observed)
        decision = self._decide(desired, observed, approved=approved)
        if keep:
            self._reconciler.count_quarantine(observed, decision.prunable)
        # What would go after a second look is shown as going.
        shown = DesiredView(desired, decision.prunable | decision.settling, decision.blocked)
        plan = self._reconciler.plan(shown, observed, rules, failures=failures)
        return FullPlan(shown, observed, decision, rules, plan, declared)

    def _decide(
        self, desired: Desired, observed: Observed | None, *, approved: bool, looked: bool = True
    ) -> PruneDecision:
        memory = self._store.prune
        if observed is None:
            return PruneDecision(frozenset(), (), memory)
        now = self._reconciler.guard_now()
        return prune_guard.guard(
            desired, observed, memory, now=now, approved=approved, looked=looked
        )

    def _take(
        self, declared: Desired, observed: Observed | None, decision: PruneDecision
    ) -> frozenset[Key]:
        """Make *declared* the one that passes see, and ask for passes; the lock is held.

        It is steered here, as it was for the guard: people may have acted since then.
        """
        self._store.prune = decision.memory
        if decision.recheck_at is not None:
            wait_s = decision.recheck_at - self._reconciler.guard_now()
            self.chores.add_after(Chore.LOOK, max(0.05, wait_s))
        for key in accept_desired(
            declared, self._store, observed, now=format_instant(self._clock.now())
        ):
            self._reconciler.reset(key)
            self._shared.failures.pop(key, None)
        desired = self._overrides.apply(declared)
        view = DesiredView(desired, decision.prunable, decision.blocked)
        self._shared.declared, self._shared.view = declared, view
        if observed is None or self._shared.rules is None:
            return frozenset()  # the first look asks for passes
        there = self._overrides.running_revisions(desired, observed)
        self.prober.declare(there, self._shared.rules.networks)
        plan = self._reconciler.plan(
            view, observed, self._shared.rules, failures=self._shared.failures
        )
        wanting = frozenset(action.object for action in plan.actions)
        self._note_in_sync(planner.keys(desired, observed) - wanting, view, observed, plan)
        for key in sorted(wanting):
            self.keys.add(key)
        return wanting

    def _note_in_sync(
        self, keys: frozenset[Key], view: DesiredView, observed: Observed, plan: Plan
    ) -> None:
        """Note of *keys*, on which nothing is to be done, that their generation is acted on."""
        blocked = {blocked.key for blocked in plan.blocked}
        blocked |= {p.key for p in plan.problems if p.key and p.severity is Severity.ERROR}
        as_declared = declared_keys(view.desired) - {hold.key for hold in plan.holds}
        for key in keys - blocked:
            generation = self._store.generation(key)
            if generation is not None:
                self._shared.failures.pop(key, None)
                if key in as_declared:
                    self._store.mark_acted_on(key, generation.number)
                if (service := view.desired.service(key)) is not None:
                    self._note_applied(service, view)
        tracker = self._reconciler.tracker
        for service in view.desired.services:
            if service.key in keys - blocked - view.desired.suspended:
                self._judge(
                    service, tracker.observe_rollout(service, observed, stalled=False), observed
                )
                due_s = tracker.due_in_s(service, observed)
                if due_s is not None:
                    self.keys.add_after(service.key, due_s)

    # Passes

    def handle(self, key: Key) -> Result | None:
        """Run a pass of *key* and ask for the next one; None: nothing can be looked at yet."""
        with self._lock:
            view, rules, known = self._shared.view, self._shared.rules, self._shared.known
            asked_by = self._shared.asked.get(key, "")
            approved = self._shared.approved.get(key, "")
            failures = dict(self._shared.failures)
        if rules is None or known is None:
            return None  # the first look asks for it again
        result = self._reconciler.run(
            key,
            view,
            rules,
            known=known,
            failures=failures,
            on_behalf_of=asked_by,
            approved=approved,
            stopping=lambda: self.stopping() or self._is_superseded(key, view),
        )
        self._learn(key, view, result)
        return result

    def _is_superseded(self, key: Key, view: DesiredView) -> bool:
        """Tell whether a pass of *key* works for what isn't wanted, or may not be, any more.

        What is blind elsewhere ends no pass but one that takes down by the guard's leave.
        """
        with self._lock:
            now = self._shared.view
        if now is view:
            return False
        return key in view.prunable - now.prunable or _wanted(now, key) != _wanted(view, key)

    def crashed(self, key: Key, error: Exception) -> None:
        """Take note that a pass raised: a bug, or a world that nobody thought of. Try again."""
        with self._lock:
            count = self._shared.crashes[key] = self._shared.crashes.get(key, 0) + 1
            message = f"a pass ended in {type(error).__name__}; the log has more"
            self._shared.failures[key] = Failure(Act.RETRY, "internal.error", message)
        cause = EngineError("internal.error", str(error))
        self.keys.add_after(key, delay_s(cause, count, self._random))
        self._changed()

    def _learn(self, key: Key, view: DesiredView, result: Result) -> None:
        with self._lock:
            shared = self._shared
            shared.crashes.pop(key, None)
            if result.observed is not None and shared.known is not None:
                shared.known = snapshot.merge(shared.known, result.observed, key)
            if result.failure is not None:
                shared.failures[key] = result.failure
            else:
                shared.failures.pop(key, None)
            if result.outcome in {PassOutcome.DONE, PassOutcome.STALLED}:
                shared.asked.pop(key, None)
            if result.outcome is PassOutcome.DONE or isinstance(result.execution.error, OverShare):
                shared.approved.pop(key, None)  # it is done, or the approval is used up
            service = view.desired.service(key)
            if result.observed is not None and service is not None:
                if self._overrides.record_restart(key, result.observed.of(key)):
                    self._see_anew()
                if result.rollout is not None and _wanted(shared.view, key) == _wanted(view, key):
                    self._judge(service, result.rollout, result.observed)
                self._note_done(service, view, result)
            self._wake(key, result)
        if result.requeue_after_s is not None:
            self.keys.add_after(key, result.requeue_after_s)
        error = result.execution.error
        if result.observed is None or isinstance(error, EngineUnavailable):
            self.chores.add_after(Chore.LOOK, delay_s(EngineUnavailable("", ""), 1, self._random))
        self._changed()

    def _note_done(self, service: Service, view: DesiredView, result: Result) -> None:
        """Note what a pass did of that later plans are compared with; the lock is held."""
        if result.outcome is PassOutcome.DONE:
            self._note_applied(service, view)
        self._note_downtime(result.execution)

    def _note_downtime(self, execution: Execution) -> None:
        """Note how long slots were down that an execution stopped; the lock is held."""
        stops = (each.action for each in execution.done if isinstance(each.action, StopContainer))
        for key in sorted({stop.object for stop in stops}):
            self._overrides.record_downtime(key, down_s(self.acts.actions(), key))

    def _note_applied(self, service: Service, view: DesiredView) -> None:
        """Note which fields of a service as a whole are in force; the lock is held."""
        if service.key not in view.desired.suspended:
            self._overrides.record_applied(service)

    def _judge(self, service: Service, course: RolloutProgress, observed: Observed) -> None:
        """Note what became of a revision, and go back from one that failed; the lock is held."""
        self._overrides.record_outcome(service, course)
        if not course.failed or course.revision != service.revision:
            return
        try:
            gone_back = self._overrides.roll_back(
                service, course.failed, self._shared.declared, observed
            )
        except StateError as error:  # the next pass tries again
            self._own_problem("state", error.code, error.message, error.remedy)
            return
        if gone_back:
            self._see_anew()
            self._reconciler.reset(service.key)
            self._shared.failures.pop(service.key, None)
            self.keys.add(service.key)

    # What people want beside the files

    def act(self, act: ServiceAct, *, only_ask: bool = False) -> Decision:
        """Do what somebody wants of a service; it is durable once this returns.

        With *only_ask* nothing is done: the decision says what would be.

        Raises:
            UsageError: it can't be done; why, and what can.
            StateError: it can't be saved, and so isn't done.
            EngineError: what is to be replaced can't be looked at.
        """
        if self._shared.declared is None:
            self.reload()
        there = None
        if act.verb == "restart":  # what is to be replaced is what is there now
            there = self._engine.observe(images=frozenset(), only=act.key)
        with self._lock:
            if there is not None and self._shared.known is not None:
                self._shared.known = snapshot.merge(self._shared.known, there, act.key)
            known = there or self._shared.known
            declared = self._shared.declared
            assert declared is not None, "the files were read"
            containers = () if known is None else known.of(act.key)
            decision = self._overrides.decide(act, declared, containers)
            if only_ask or not decision.changed:
                return decision
            self._overrides.save(act.key, decision)
            if act.verb == "resume":
                self._reconciler.tracker.retry_rollout(act.key)
            self._see_anew()
            self._reconciler.reset(act.key)
            self._shared.failures.pop(act.key, None)
        self.keys.add(act.key)
        self.chores.add(Chore.LOOK)  # the guard has its say on what may go now
        self._changed()
        return decision

    def history(self, key: Key) -> dict[str, object]:
        """Return a service's revisions, in the shape of ``history --json``.

        Raises:
            UsageError: there is no such service.
        """
        with self._lock:
            known, service = self._shared.known, self._shared.view.desired.service(key)
            steering = self._store.overrides(key)
            declared = None if self._shared.declared is None else self._shared.declared.service(key)
        if service is None and steering == NO_OVERRIDES:
            raise unknown(key)
        generation = self._store.generation(key)
        return history(
            HistoryInputs(
                key=key,
                overrides=steering,
                declared="" if declared is None else declared.revision,
                generation=0 if generation is None else generation.number,
                pins={} if known is None else known.pins,
                running=Counter(() if known is None else (c.revision for c in known.of(key))),
            )
        )

    def _see_anew(self) -> None:
        """Have passes see what people want now; the lock is held."""
        declared = self._shared.declared
        assert declared is not None, "there is nothing to steer before the files were read"
        self._shared.view = replace(self._shared.view, desired=self._overrides.apply(declared))

    def _wake(self, key: Key, result: Result) -> None:
        """Ask for passes of what need wait no more, and of what is waited for; the lock is held."""
        waits = self._shared.waits
        waits.set_waits(key, result.waits)
        for waiting in waits.released_by(key, self._order):
            self.keys.add(waiting)
        if result.outcome is PassOutcome.WAIT:
            # The event that ends the wait may be lost.
            for other in {each for wait in result.waits for each in wait.on}:
                self.keys.add_after(other, WAIT_S)

    def _order(self) -> Ordering:
        """Return the order among services as it is known now; the lock is held."""
        shared = self._shared
        assert shared.known is not None, "there was a look before any pass"
        return self._reconciler.order(shared.view, shared.known, failures=shared.failures)

    # One plan, exactly

    def apply_exactly(self, digest: str, *, approved: bool, asked_by: str) -> Execution:
        """Plan again and, if it is the plan of *digest*, perform exactly its actions or stop.

        Nobody else may run passes meanwhile.

        Raises:
            UsageError: the plan is another one now.
            EngineError: it can't be looked at.
        """
        survey = self.look(approved=approved, asked_by=asked_by, plan=digest if approved else "")
        if not approved and survey.plan.digest != digest:
            raise _changed_to(survey.plan.digest, digest)

        def stopping() -> bool:
            return self.stopping() or self._is_another(survey.view)

        engine, view = self._engine, survey.view
        gates = PlanGates(engine, self._reconciler, self._clock, view, survey.policy, stopping)
        done = execute(
            survey.plan.actions,
            engine=Logged(engine, self.acts),
            context=claims(view.desired, digest, asked_by),
            observe=lambda action: engine.observe(images=frozenset(), only=action.object),
            await_open=gates.await_open,
            stopping=stopping,
        )
        with self._lock:
            self._note_downtime(done)
        return done

    def _is_another(self, view: DesiredView) -> bool:
        """Tell whether people want something else than when a plan was made."""
        with self._lock:
            return self._shared.view.desired.holds != view.desired.holds

    # What is shown

    def standing(self, only: Key | None = None) -> Convergence:
        """Look at everything and say how far it, or one key of it, is.

        Raises:
            EngineError: it can't be looked at.
        """
        survey = self.look()
        starting = survey.starting if only is None else survey.starting & {only}
        with self._lock:
            standing = convergence_of(survey.plan, self._shared.failures, only)
        return replace(standing, starting=bool(starting))

    def progress(self, since: int) -> dict[str, object]:
        """Return the acts after number *since*, and how far what takes long is, by its object."""
        with self._lock:
            working = {str(key): text for key, text in self._shared.progress.items()}
        acts = self.acts.actions()
        last = acts[-1].number if acts else 0
        return {"acts": acts_json(acts, since=since), "last": last, "working": working}

    def done_since(self, number: int) -> dict[str, object]:
        """Return the acts after *number* and what they came to; if none, those of the last minute."""
        acts, since = self.acts.actions(), self._clock.now() - RECENT_S
        with self._lock:
            desired = self._shared.view.desired
        mine = [act for act in acts if act.number > number]
        recent = [act for act in acts if act.at > since]
        done: dict[str, object] = {
            "summary": summary_of_acts(mine, desired).to_json(),
            "acts": acts_json(acts, since=number),
        }
        if recent and not mine:
            done["recently"] = summary_of_acts(recent, desired).text
        return done

    def status(self) -> Report:
        """Return the status of every resource, in the shape of ``status --json``."""
        with self._lock:
            known = ReportInputs(
                version=self._shared.version,
                view=self._shared.view,
                observed=self._shared.known,
                rules=self._shared.rules,
                away=self._shared.away,
                failures=dict(self._shared.failures),
                problems=(*self._shared.problems.values(), *self.prober.problems()),
                progress=dict(self._shared.progress),
            )
        return self._reporter.report(known, now=self._clock.now())

    def failed_runs(self, uid: int, *, owns_all: bool) -> tuple[FailedRun, ...]:
        """Return the failed runs that a user may read the output of; *owns_all*: whatever it is."""
        with self._lock:
            rules = self._shared.rules
        readers = Readers() if rules is None else rules.readers
        runs = self._reconciler.failure_log.runs()
        return tuple(run for run in runs if owns_all or readers.may_read(uid, run.owner))

    def _own_problem(self, name: str, code: str, message: str, remedy: str) -> None:
        problem = Problem(code, message, remedy=remedy, severity=Severity.WARNING)
        with self._lock:
            self._shared.problems[name] = problem
            self._shared.version += 1
        self.chores.add_after(Chore.PUBLISH, self._publish_s)

    def _changed(self) -> None:
        with self._lock:
            self._shared.version += 1
        self.chores.add_after(Chore.SAVE, SAVE_S)
        self.chores.add_after(Chore.PUBLISH, self._publish_s)

    def _spread(self, seconds: float) -> float:
        return seconds * (1 - SPREAD + 2 * SPREAD * self._random())


def _wanted(view: DesiredView, key: Key) -> tuple[object, ...]:
    """Return what makes a pass of a key another one."""
    desired = view.desired
    left_alone = (key in desired.suspended, key in desired.blind_keys)
    service = desired.service(key)
    if service is None:
        return left_alone
    spec = service.spec
    return (*left_alone, service.revision, service.restarting, spec.state, spec.replicas)


def _part_of(digest: str, shown: FullPlan, survey: FullPlan) -> frozenset[Key]:
    """Return what is part of an approved plan: as it is shown, with what it holds back, or done.

    Raises:
        UsageError: it is another plan now.
    """
    same = shown.view.desired.digest == survey.view.desired.digest
    if digest not in {shown.plan.digest, survey.plan.digest} or not same:
        raise _changed_to(shown.plan.digest, digest)
    blocked = {each.key for each in shown.plan.blocked}
    return frozenset({action.object for action in survey.plan.actions} | blocked)


def _changed_to(now: str, digest: str) -> UsageError:
    return UsageError(
        "plan.changed",
        f"the plan is {now} now, not {digest}",
        remedy="look at it again with 'trimtab plan'",
    )
