"""The controller without its threads: its chores and its passes.

Two queues feed the controller: chores (read the files, observe everything, save) and keys. The
supervisor drives it with threads, the simulation with a single one. Chores run one at a time; passes
of different keys run concurrently.

Invariant: ``DesiredView`` is replaced as one value. So no pass combines a desired state with the
prune guard's decision on another.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from controller.core.drift.classify import heals
from controller.core.planning import planner
from controller.core.planning.images_networks_volumes import image_references, with_image_volumes
from controller.core.planning.networks import services_cut_off
from controller.core.planning.service_order import Ordering
from controller.core.review.performed_actions import down_s
from controller.core.service import prune_guard
from controller.core.service.overrides import persistent_keys
from controller.core.service.prune_guard import DesiredView, PruneDecision
from controller.core.service.rollout_progress import RolloutProgress, is_of
from controller.core.status.facts import Report
from controller.loop.executor import Execution
from controller.loop.full_plan import FullPlan, approved_keys
from controller.loop.passes import PassOutcome, PassPolicy, Result, is_declared, next_runs
from controller.loop.reconciler import WAIT_S, Reconciler
from controller.loop.sampler import Sampler
from controller.loop.shared_state import ControllerParts, SharedState
from controller.loop.state import service_tracker
from controller.loop.state.overrides import AWAY_LONGEST_S, OverrideStore, delay_s
from controller.loop.state.service_state import followers_to_replace, released_by
from controller.loop.state.store import accept_desired
from controller.loop.status_reporter import Reporter
from controller.loop.workqueue import Chore
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import Plan, StopContainer
from controller.model.errors import EngineError, EngineUnavailable, Problem, Severity, StateError
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.quantities import format_instant
from controller.ports import EngineEvent

if TYPE_CHECKING:
    from controller.model.desired.plan import Review

FIRST_OBSERVE_S = 2.0
#: Events of containers that possibly serve no longer: their keys precede the others.
ENDS = frozenset({"destroy", "die", "kill", "oom", "pause", "stop"})
#: How often the engine's list is compared with the last snapshot.
LIST_S = 30.0
#: How often everything is observed.
OBSERVE_S = 300.0
SPREAD = 0.1
SAVE_AGAIN_S = 10.0


class Controller:
    """Converges the engine with the files, one chore or pass at a time."""

    def __init__(self, parts: ControllerParts) -> None:
        self.parts = parts
        self.shared = SharedState(parts.store)
        self.keys, self.chores = parts.triggers.keys, parts.triggers.chores
        self.prober = parts.engine.prober
        self.reconciler = Reconciler(parts)
        self.overrides = OverrideStore(parts.store, parts.clock)
        self._store = parts.store
        self._clock = parts.clock
        self._random = parts.random
        self.reporter = Reporter(self.reconciler, self.shared, parts)
        self.sampler = Sampler(parts.read_use, self._sampled, parts.clock)
        self.publish = self.reporter.publish
        self._lock = self.shared.lock
        #: Held while the files are read or everything is observed.
        self._observing = threading.Lock()

    # Events: they only queue keys and chores

    def begin(self, *, previous: object = None, problem: Problem | None = None) -> None:
        """Queue the first chores; ``subscribed`` queues an observation earlier than this method.

        *previous* is the last published status, *problem* the problem of a damaged state file.
        """
        self.reporter.recall(previous)
        if problem is not None:
            with self._lock:
                self.shared.problems["memory"] = replace(problem, severity=Severity.WARNING)
        self.chores.add(Chore.RELOAD)
        self.chores.add_after(Chore.OBSERVE, FIRST_OBSERVE_S)

    def files_changed(self) -> None:
        """Handle a change of the files."""
        self.chores.add(Chore.RELOAD)

    def subscribed(self, *, after_silence: bool = False) -> None:
        """Handle a new subscription to events: observe everything, since earlier events can be lost.

        *after_silence*: the previous one ended only for its silence. Then the engine's list is enough.
        """
        if not after_silence:
            self.events_lost()
        self.chores.add(Chore.LIST if after_silence else Chore.OBSERVE)

    def handle_event(self, event: EngineEvent) -> None:
        """Handle an event of the engine."""
        with self._lock:
            self.parts.engine.note(event)
            key, observed = event.key, self.shared.observed
        if key is None and observed is not None:
            key = service_tracker.owner_of(observed, event.id)
        if event.kind != "container":
            self.chores.add(Chore.OBSERVE)
        elif key is not None:
            # A pass that runs or waits replaces the snapshot, possibly by an older health.
            is_known = observed is not None and service_tracker.has_health(observed, key, event)
            if not is_known or self.keys.is_queued(key):
                self.parts.triggers.check(key, is_urgent=event.action in ENDS)
        elif event.action == "disconnect" and observed is not None:
            for displaced in service_tracker.displaced(observed):
                self.parts.triggers.check(displaced)

    def events_lost(self) -> None:
        """Handle the end of a subscription that wasn't only silent: no event until now counts."""
        with self._lock:
            self.parts.engine.follow_events(since_ns=round(self._clock.now() * 1e9))

    def connection_lost(self, error: EngineError) -> None:
        """Handle an unreachable engine or broker; everything is observed again soon."""
        self.events_lost()
        with self._lock:
            self.shared.unreachable = error
            self.reconciler.tracker.is_interrupted = True
            self.shared.unreachable_count += 1
            count = self.shared.unreachable_count
            wait_s = min(AWAY_LONGEST_S, delay_s(error, count, self._random))
        self.chores.add_after(Chore.OBSERVE, wait_s)
        self.changed()

    # Chores

    def run_chore(self, chore: Chore) -> None:
        """Run one chore. Engine and state errors are recorded, and queue another chore; none is raised."""
        try:
            match chore:
                case Chore.RELOAD:
                    self.reload()
                case Chore.OBSERVE:
                    self.observe_everything()
                case Chore.LIST:
                    self.list_containers()
                case Chore.SAVE:
                    self.save()
                case Chore.PUBLISH:
                    self.publish()
        except EngineError as error:
            self.connection_lost(error)
        except StateError as error:
            self._add_state_problem(error)
            self.chores.add_after(Chore.SAVE, SAVE_AGAIN_S)

    def reload(self) -> None:
        """Read the files, and queue the keys with another goal, and those with pending actions."""
        with self._observing:
            files, shared = self.parts.source.load(), self.shared
            with self._lock:
                observed, before = shared.observed, shared.view
                declared, desired = self.overrides.declare(files, observed)
                decision = self._guard(desired, observed, approved=False, looked=False)
                accepted = self._adopt(declared, observed, decision)
                view, policy = shared.view, shared.policy
            # The first observation of everything queues keys.
            if observed is not None and policy is not None and (accepted or view != before):
                self._queue_changed(accepted, before, view, observed, policy)
        self.changed()

    def _queue_changed(
        self,
        accepted: set[Key],
        before: DesiredView,
        view: DesiredView,
        observed: Observed,
        policy: PassPolicy,
    ) -> None:
        """Queue the keys with another goal than *before*, and all with actions by the last snapshot."""
        every = planner.keys(view.desired, observed)
        changed = {key for key in every if before.goal(key) != view.goal(key)}
        begun = view.able(changed | accepted | self._store.failures().keys()) & every
        for key in sorted(begun):
            self.keys.add(key)
        plan = self.reconciler.plan(view, observed, policy)
        with self._lock:
            if self.shared.view is view and self.shared.observed is observed:
                self._store.record_plan(plan, every - begun)
        for key in sorted(_acting(plan, view) - begun):
            self.keys.add(key)

    def observe_everything(
        self, *, approved: bool = False, requested_by: str = "", plan: str = ""
    ) -> FullPlan:
        """Observe and plan everything, and queue the keys with pending actions.

        Args:
            approved: an operator approves removals beyond the prune guard's limits.
            requested_by: the requesting user, if any.
            plan: the digest of the approved plan. The actions that follow claim it.

        Raises:
            EngineError: engine or broker can't be reached.
            UsageError: the plan has changed.
        """
        with self._observing, self.chores.replacing(Chore.OBSERVE):
            self.shared.passed.clear()
            try:
                shown = self._plan_everything(None, approved=False, record=False) if plan else None
                full_plan = self._plan_everything(None, approved=approved, record=True)
            finally:
                self.chores.add_after(Chore.OBSERVE, self._spread(OBSERVE_S))
                self.chores.add_after(Chore.LIST, self._spread(LIST_S))
            part = frozenset[Key]() if shown is None else approved_keys(plan, shown, full_plan)
            declared, observed = full_plan.declared, full_plan.observed
            with self._lock:
                shared = self.shared
                shared.observed = observed
                shared.policy = full_plan.policy
                shared.unreachable, shared.unreachable_count = None, 0
                shared.observed_at = self._clock.now()
                keys = self._adopt_planned(full_plan)
                for key in keys if requested_by else ():
                    self._store.of(key).requested_by = requested_by
                self._store.approve(part, plan)
                everything = planner.keys(declared, observed) | declared.blind_keys | keys
                for key in shared.passed:  # to see again what this observation can lack
                    self.keys.add(key)
            releases = frozenset(release.key for release in declared.releases)
            overridden = persistent_keys(declared, self._store.all_overrides())
            if declared.whole:
                self._store.keep_only(everything | releases | overridden)
                self.reconciler.failure_log.forget_all_but(everything)
        self.changed()
        return full_plan

    def plan_everything(self, last: Observed | None = None) -> FullPlan:
        """Plan everything by the snapshot *last*, else by a new one. Changes no saved state.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        with self._observing:
            return self._plan_everything(last, approved=False, record=False)

    def review(self, full_plan: FullPlan, *, reveal: bool = False) -> Review:
        """Return a plan with the changed fields; *reveal* includes secret values."""
        from controller.core.review.review import review  # a start shows no plan

        return review(
            full_plan.plan,
            declared=full_plan.declared,
            desired=with_image_volumes(
                full_plan.view.desired, full_plan.observed, full_plan.policy.volume_rule
            ),
            observed=full_plan.observed,
            all_overrides=self._store.all_overrides(),
            reveal=reveal,
        )

    def list_containers(self) -> None:
        """Compare the engine's list with the last snapshot, and queue services with differences.

        Observes everything instead if the policy changed.
        """
        self.chores.add_after(Chore.LIST, self._spread(LIST_S))
        policy, listed = self.parts.fetch_policy(), self.parts.engine.list_containers()
        with self._lock:
            self.shared.observed_at = self._clock.now()
            observed, before = self.shared.observed, self.shared.policy
        if observed is None or before is None or before.digest != policy.digest:
            self.chores.add(Chore.OBSERVE)
            return
        for key in sorted(service_tracker.changed_services(observed, listed)):
            self.keys.add(key)

    def save(self) -> None:
        """Save the state.

        Raises:
            StateError: a file can't be written.
        """
        self._store.save()
        self.reconciler.failure_log.save()
        with self._lock:
            self.shared.version += self.shared.problems.pop("state", None) is not None

    def status(self) -> Report:
        """Return the status of every resource, in the form of ``status --json``."""
        return self.reporter.report(now=self._clock.now())

    def _plan_everything(self, last: Observed | None, *, approved: bool, record: bool) -> FullPlan:
        policy, files = self.parts.fetch_policy(), self.parts.source.load()
        with self._lock:
            known = last or self.shared.observed
        declared, desired = self.overrides.declare(files, known)
        self.prober.declare(desired.services, policy.networks)
        observed = last or self.parts.engine.observe(images=image_references(desired, known))
        if observed is not known:
            declared, desired = self.overrides.declare(files, observed)
        decision = self._guard(desired, observed, approved=approved)
        if record:
            self.reconciler.tracker.count_exits(desired, observed)
            self.reconciler.tracker.is_interrupted = False
            self.reconciler.count_quarantine(observed, decision.prunable)
        # Removals that only wait for the guard's second observation are part of the plan.
        view = DesiredView(desired, decision.prunable | decision.settling, decision.blocked)
        plan = self.reconciler.plan(view, observed, policy)
        return FullPlan(view, observed, decision, policy, plan, declared)

    def _guard(
        self, desired: Desired, observed: Observed | None, *, approved: bool, looked: bool = True
    ) -> PruneDecision:
        before, now = self._store.prune, self.reconciler.guard_now()
        if observed is None:
            return PruneDecision(frozenset(), (), before)
        return prune_guard.guard(
            desired, observed, before, now=now, approved=approved, looked=looked
        )

    def _adopt(
        self, declared: Desired, observed: Observed | None, decision: PruneDecision
    ) -> set[Key]:
        """Make *declared* the desired state of passes; the caller holds the lock.

        Overrides are applied here, and before for the guard: operators can have acted between.

        Returns:
            The keys whose spec changed.
        """
        shared = self.shared
        self._store.prune = decision.memory
        for key in decision.prunable - shared.view.prunable:
            self._store.of(key).failure = None  # it waited for the guard; its pass comes only now
        if decision.recheck_at is not None:
            wait_s = max(0.05, decision.recheck_at - self.reconciler.guard_now())
            self.chores.add_after(Chore.OBSERVE, wait_s)
        now = format_instant(self._clock.now())
        accepted = accept_desired(declared, self._store, observed, now=now)
        for key in accepted:
            self._store.restart_passes(key)
        if (ends_in_s := self.overrides.end_scalings()) is not None:
            self.chores.add_after(Chore.RELOAD, ends_in_s)
        desired = self.overrides.apply(declared)
        shared.replace_view(DesiredView(desired, decision.prunable, decision.blocked))
        shared.declared = declared
        if observed is not None and shared.policy is not None:
            self.prober.declare(
                self.overrides.running_revisions(desired, observed), shared.policy.networks
            )
        return accepted

    def _adopt_planned(self, full_plan: FullPlan) -> frozenset[Key]:
        """Make the desired state of a plan that of passes, and queue the keys with actions.

        The caller holds the lock. Returns the keys.
        """
        observed, policy = full_plan.observed, full_plan.policy
        accepted = self._adopt(full_plan.declared, observed, full_plan.decision)
        view, plan = self.shared.view, full_plan.plan
        if accepted or view != full_plan.view:
            plan = self.reconciler.plan(view, observed, policy)
        planned = planner.keys(view.desired, observed) | view.prunable
        self._store.record_plan(plan, planned)
        acting = planned & _acting(plan, view)
        self._record_in_sync(planned - acting, view, observed, plan)
        for key in sorted(acting):
            self.keys.add(key)
        return acting

    def _record_in_sync(
        self, keys: frozenset[Key], view: DesiredView, observed: Observed, plan: Plan
    ) -> None:
        """Record that *keys*, without actions in *plan*, are acted on, and queue what is due later."""
        problems = (*view.desired.problems, *plan.problems)
        blocked = {p.key for p in problems if p.key and p.severity is Severity.ERROR}
        blocked |= {blocked.key for blocked in plan.blocked}
        held = view.desired.held
        for key in keys - blocked:
            if (generation := self._store.of(key).generation) is not None:
                self._store.of(key).failure = None
                if key not in held and is_declared(view.desired, key):
                    self._store.mark_acted_on(key, generation.number)
                if (service := view.desired.service(key)) is not None:
                    self._record_applied(service, view)
        tracker, hooks = self.reconciler.tracker, self.reconciler.jobs.hooks(view.desired, observed)
        for service in view.desired.services:
            if service.key in keys - blocked - view.desired.suspended:
                facts = hooks.facts(service)
                rollout = tracker.observe_rollout(service, observed, hooks=facts)
                self._record_rollout(service, rollout, observed)
                if (due_s := tracker.due_in_s(service, observed)) is not None:
                    self.keys.add_after(service.key, due_s)
        for job, due_s in next_runs(view.desired, observed, hooks):
            self.keys.add_after(job, due_s)

    # Passes

    def handle(self, key: Key) -> Result | None:
        """Run a pass of *key*, and queue the next; None before the first observation of everything."""
        with self._lock:
            view, policy, observed = self.shared.view, self.shared.policy, self.shared.observed
            if policy is None or observed is None:
                self.shared.passed.add(key)  # the first observation queues the key again
                return None
        began = self._clock.monotonic()
        result = self.reconciler.run(
            key,
            view,
            policy,
            known=observed,
            stopping=lambda: self.parts.stopping() or self.shared.is_superseded(key, view),
        )
        self._record_result(key, view, result)
        self._count_pass(result.outcome, self._clock.monotonic() - began)
        return result

    def crashed(self, key: Key, error: Exception) -> None:
        """Record an unexpected exception of a pass (a bug), and queue the key again."""
        count = self.shared.record_crash(key, error)
        self._count_pass("crashed", 0.0)
        failure = EngineError("internal.error", str(error))
        self.keys.add_after(key, delay_s(failure, count, self._random))
        self.changed()

    def _record_result(self, key: Key, view: DesiredView, result: Result) -> None:
        with self._lock:
            unused = self.shared.record_result(key, view, result)
            if result.observed is not None and (service := view.desired.service(key)) is not None:
                self._record_service(service, view, result, result.observed)
            self._wake(key, result, unused)
            if self.shared.is_undecided(key):
                self.chores.add(Chore.OBSERVE)
        if result.requeue_after_s is not None:
            self.keys.add_after(key, result.requeue_after_s)
        error = result.execution.error
        if result.observed is None or isinstance(error, EngineUnavailable):
            self.chores.add_after(
                Chore.OBSERVE, delay_s(EngineUnavailable("", ""), 1, self._random)
            )
        if error is not None and error.code == "proof.missing":
            self.chores.add(Chore.RELOAD)  # a reading uploads the proof
        self.changed()

    def _record_service(
        self, service: Service, view: DesiredView, result: Result, observed: Observed
    ) -> None:
        """Record a pass's effects on overrides and revisions; the caller holds the lock."""
        key = service.key
        self._count_heals(service, result, observed)
        if self.overrides.record_restart(key, observed.of(key)):
            self._apply_overrides()
        if result.rollout is not None and self.shared.view.goal(key) == view.goal(key):
            self._record_rollout(service, result.rollout, observed)
        if result.outcome is PassOutcome.DONE:
            self._record_applied(service, view)
        self.record_downtime(result.execution)

    def _count_pass(self, outcome: str, duration_s: float) -> None:
        with self._lock:
            self.shared.counted["trimtab_passes_total", outcome] += 1
            self.shared.pass_s += duration_s

    def _count_heals(self, service: Service, result: Result, observed: Observed) -> None:
        """Count the containers that a pass put back; the caller holds the lock."""
        done = [each.action for each in result.execution.done]
        is_good = self._store.of(service.key).rollout.good == service.revision
        for drift in heals(service, observed.of(service.key), done, is_good=is_good):
            self.shared.counted["trimtab_heals_total", drift] += 1

    def _sampled(self) -> tuple[Observed | None, frozenset[Key]]:
        """Return the last snapshot, and the declared services."""
        with self._lock:
            services = self.shared.view.desired.services
            return self.shared.observed, frozenset(service.key for service in services)

    def record_downtime(self, execution: Execution) -> None:
        """Record how long stopped slots were down; the caller holds the lock."""
        actions = [done.action for done in execution.done]
        for key in sorted({each.object for each in actions if isinstance(each, StopContainer)}):
            self.overrides.record_downtime(key, down_s(self.reconciler.action_log.actions(), key))

    def _record_applied(self, service: Service, view: DesiredView) -> None:
        """Record a service whose fields are all in force; the caller holds the lock."""
        if service.key not in view.desired.suspended:
            self.overrides.record_applied(service)

    def _record_rollout(self, service: Service, rollout: RolloutProgress, seen: Observed) -> None:
        """Record a rollout's outcome, and roll a failed one back; the caller holds the lock."""
        if outcome := self.overrides.record_outcome(service, rollout):
            self.shared.counted["trimtab_rollouts_total", outcome] += 1
        if not rollout.failed or not is_of(rollout, service):
            return
        declared = self.shared.declared
        try:
            rolled_back = self.overrides.roll_back(service, rollout.failed, declared, seen)
        except StateError as error:  # the next pass tries again
            self._add_state_problem(error)
            return
        if rolled_back:
            self.shared.counted["trimtab_rollouts_total", "rolled-back"] += 1
            self.restart_convergence(service.key)
            self.keys.add(service.key)

    def restart_convergence(self, key: Key) -> None:
        """Apply changed overrides of *key*, and forget its failures; the caller holds the lock."""
        self._apply_overrides()
        self._store.restart_passes(key)

    def _apply_overrides(self) -> None:
        """Replace the desired state of passes after overrides changed; the caller holds the lock."""
        declared = self.shared.declared
        assert declared is not None, "there is nothing to steer before the files were read"
        self.shared.replace_view(replace(self.shared.view, desired=self.overrides.apply(declared)))

    def _wake(self, key: Key, result: Result, unused: tuple[Key, ...]) -> None:
        """Queue *unused*, and the services that *key* releases, cuts off or waits for.

        The caller holds the lock.
        """

        def order() -> Ordering:
            assert self.shared.observed is not None, "there was a look before any pass"
            return self.reconciler.order(self.shared.view, self.shared.observed)

        self._store.of(key).waits = result.waits
        desired, now = self.shared.view.desired, self.parts.clock.now()
        after = followers_to_replace(key, desired, self.shared.observed, now)
        after += services_cut_off((d.action for d in result.execution.done), result.observed)
        released = released_by(self._store.waits(), key, order)
        for waiting in (*released, *after, *unused, *result.outdated):
            self.keys.add(waiting)
        if result.outcome is PassOutcome.WAIT:
            # The event that ends the wait can be lost.
            for other in {other for wait in result.waits for other in wait.on}:
                self.keys.add_after(other, 0.0 if other.kind == "Job" else WAIT_S)

    def _add_state_problem(self, error: StateError) -> None:
        with self._lock:
            self.shared.record_problem(error)
        self.parts.triggers.publish_soon()

    def changed(self) -> None:
        """Request a save of the state and a publication of the status."""
        with self._lock:
            self.shared.version += 1
        self.parts.triggers.save_soon()
        self.parts.triggers.publish_soon()

    def _spread(self, seconds: float) -> float:
        return seconds * (1 - SPREAD + 2 * SPREAD * self._random())


def _acting(plan: Plan, view: DesiredView) -> frozenset[Key]:
    """Return the keys that need a pass by a plan of everything.

    A pass of a failing key records the failure, for the services that wait for the key.
    """
    failing = {p.key for p in plan.problems if p.key and p.severity is Severity.ERROR}
    return view.able(failing) | {action.object for action in plan.actions}
