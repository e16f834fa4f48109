"""Requests of operators to the controller: overrides, exact plans, progress, history, convergence.

An exact plan waits for each of its barriers to open.

Passes never wait: a pass ends at a closed barrier, and the next pass observes again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from controller.core.drift.actions import is_denied
from controller.core.drift.failures import Readers
from controller.core.planning.deliveries import source_of
from controller.core.planning.images_networks_volumes import KnownImages, with_image_volumes
from controller.core.planning.pending_moves import present_key
from controller.core.service.desired_view import DesiredView
from controller.core.service.history import history
from controller.core.service.operator_actions import Decision, unknown
from controller.loop.controller import Controller
from controller.loop.executor import Execution, execute, never
from controller.loop.full_plan import Convergence, FullPlan, convergence_of, plan_changed
from controller.loop.passes import PassPolicy, claims, look_at
from controller.loop.reconciler import Reconciler
from controller.loop.state import service_state, service_tracker
from controller.loop.state.failed_runs import Logged
from controller.loop.state.overrides import retry_refused
from controller.loop.workqueue import Chore
from controller.model.container_output import FailedRun
from controller.model.desired.desired import NO_OVERRIDES, Service, ServiceAct
from controller.model.desired.plan import Barrier, NeedsOperator, Wait
from controller.model.errors import Act, Conflict
from controller.model.names import WORKLOADS, Key
from controller.model.observed import Observed
from controller.model.records import UNMET
from controller.ports import Engine, Timer

if TYPE_CHECKING:
    from controller.model.desired.field_changes import Review

#: How old actions are that ``done_since`` shows if there are no newer ones.
RECENT_S = 60.0
#: How long a plan waits for an observation of everything under way; then it observes everything.
OBSERVED_S = 600.0
#: More changed services than these are observed together with all others.
LOOKS_MAX = 32


class OperatorApi:
    """The requests of operators to one controller. Thread-safe."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._shared = controller.shared
        self._reconciler = controller.reconciler
        self._overrides = controller.overrides
        self._engine = controller.parts.engine
        self._store = controller.parts.store
        self._clock = controller.parts.clock

    # Overrides

    def act(self, act: ServiceAct, *, only_ask: bool = False) -> Decision:
        """Change the overrides of a service, as operators do. Durable once this method returns.

        With *only_ask* nothing changes; the decision says what would change.

        Raises:
            UsageError: the act isn't possible; the message names the reason and alternatives.
            StateError: the state can't be saved; nothing changed.
            EngineError: the containers to restart can't be observed.
        """
        controller, shared = self.controller, self._shared
        if shared.declared is None:
            controller.reload()
        fresh, rebuilt = None, None
        if act.verb == "restart":  # replaces the containers that exist now
            service = shared.view.desired.service(act.key)
            images = frozenset[str]() if service is None else frozenset({service.spec.image})
            fresh = self._engine.observe(images=images, only=act.key)
            rebuilt = None if service is None else KnownImages(fresh).rebuilt(service)
        with shared.lock:
            if fresh is not None and shared.observed is not None:
                shared.observed = service_tracker.merge_snapshot(shared.observed, fresh, act.key)
            observed = fresh or shared.observed
            assert shared.declared is not None, "the files were read"
            containers = () if observed is None else observed.of(act.key)
            decision = self._overrides.decide(
                act,
                shared.declared,
                containers,
                rebuilt="" if rebuilt is None else rebuilt.id,
                renamed=None
                if shared.observed is None
                else present_key(act.key, shared.declared, shared.observed),
            )
            if only_ask or not decision.changed:
                return decision
            self._overrides.save(act.key, decision)
            if act.verb in ("resume", "start"):
                self._reconciler.tracker.retry_rollout(act.key)
            controller.restart_convergence(act.key)
        controller.keys.add(act.key)
        controller.chores.add(Chore.OBSERVE)  # the prune guard decides again
        controller.changed()
        return decision

    def history(self, key: Key) -> dict[str, object]:
        """Return a service's revisions, in the form of ``history --json``.

        Raises:
            UsageError: the service is unknown.
        """
        shared = self._shared
        with shared.lock:
            observed, service = shared.observed, shared.view.desired.service(key)
            overrides = self._store.all_overrides().get(key, NO_OVERRIDES)
            declared = None if shared.declared is None else shared.declared.service(key)
        if service is None and overrides == NO_OVERRIDES:
            raise unknown(key)
        generation = self._store.of(key).generation
        containers = () if observed is None else observed.of(key)
        return history(
            key,
            overrides,
            declared="" if declared is None else declared.revision,
            limits=None if declared is None else declared.limits,
            generation=0 if generation is None else generation.number,
            pins={} if observed is None else observed.pins,
            running=Counter(container.revision for container in containers),
        )

    def state(self, key: Key) -> dict[str, object]:
        """Return all that the controller knows of a resource, for people who look for a fault.

        Raises:
            UsageError: the resource is unknown.
        """
        with self._shared.lock:
            state = self._store.states().get(key)
            if state is None:
                raise unknown(key)
            return service_state.to_json(state)

    def secret_contents(self) -> dict[str, object]:
        """Return the content id of each Secret that the broker has opened, by its source."""
        if self._shared.declared is None:
            self.controller.reload()
        with self._shared.lock:
            declared = self._shared.declared
        secrets = () if declared is None else declared.secrets
        return {"contents": {source_of(each): each.content for each in secrets if each.content}}

    # Plans

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

    def plan(self) -> FullPlan:
        """Return the plan of everything, by the present files, containers and policy.

        An observation of everything under way is waited for, and serves the plan: what changes
        meanwhile shows in the engine's list, or queues a key or another observation.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        self.controller.chores.await_done(Chore.OBSERVE, timeout_s=OBSERVED_S)
        return self._plan_by_looks() or self.controller.plan_everything()

    def _plan_by_looks(self) -> FullPlan | None:
        """Return the plan by the last snapshot, with a look at each service that changed since.

        None if many services changed, or anything else. Nothing is done by such a plan: who applies the
        plan observes everything first.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        with self._shared.lock:
            view, observed = self._shared.view, self._shared.observed
            followed = self._shared.followed
        if observed is None or not followed or self.controller.chores.is_queued(Chore.OBSERVE):
            return None
        full_plan, changed = self._plan_while_listing(observed)
        keys = changed | self.controller.keys.busy
        if len(keys) > LOOKS_MAX or any(key.kind not in WORKLOADS for key in keys):
            return None
        for key in sorted(keys):
            part = look_at(self._engine, key, view, observed)
            observed = service_tracker.merge_snapshot(observed, part, key)
        if keys:
            full_plan = self.controller.plan_everything(observed)
        return full_plan if self._has_same_inputs(full_plan) else None

    def plan_unchanged(self) -> FullPlan | None:
        """Return the plan of everything by the last snapshot; None if something changed since.

        A list of the containers replaces the inspection of each. The list shows no changed limit and
        no network: their events do, and queue a key or an observation.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        with self._shared.lock:
            observed, followed = self._shared.observed, self._shared.followed
        if observed is None or not followed:
            return None
        full_plan, changed = self._plan_while_listing(observed)
        return full_plan if not changed and self._is_current(full_plan) else None

    def _plan_while_listing(self, observed: Observed) -> tuple[FullPlan, frozenset[Key]]:
        """Return the plan by *observed*, and the services that the engine's list shows changed.

        Engine and broker make the list while this process plans: at 10,000 containers, both take
        long. The plan holds only if nothing changed.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        with ThreadPoolExecutor(1, "list") as pool:
            listing = pool.submit(self._engine.list_containers)
            full_plan = self.controller.plan_everything(observed)
            return full_plan, service_tracker.changed_services(observed, listing.result())

    def _is_current(self, full_plan: FullPlan) -> bool:
        """Return True if files, policy and snapshot are those of the last observation, and no hint waits."""
        with self._shared.lock:
            is_last = self._shared.observed is full_plan.observed
        return is_last and self.controller.keys.idle and self._has_same_inputs(full_plan)

    def _has_same_inputs(self, full_plan: FullPlan) -> bool:
        """Return True if files and policy are those of the last observation, and none is due."""
        shared = self._shared
        with shared.lock:
            return (
                shared.followed
                and shared.unreachable is None
                and shared.policy is not None
                and shared.policy.digest == full_plan.policy.digest
                and shared.declared == full_plan.declared
                and not self.controller.chores.is_queued(Chore.OBSERVE)
            )

    def apply_exactly(self, digest: str, *, approved: bool, requested_by: str) -> Execution:
        """Plan again and, if the plan's digest is *digest*, perform exactly its actions.

        No passes may run meanwhile.

        Raises:
            UsageError: the plan has changed.
            EngineError: engine or broker can't be reached.
        """
        controller = self.controller
        full_plan = controller.observe_everything(
            approved=approved, requested_by=requested_by, plan=digest if approved else ""
        )
        if not approved and full_plan.plan.digest != digest:
            raise plan_changed(full_plan.plan.digest, digest)

        engine, view = self._engine, full_plan.view

        def stopping() -> bool:
            with self._shared.lock:  # operators may have changed overrides after the plan
                changed = self._shared.view.desired.holds != view.desired.holds
            return changed or controller.parts.stopping()

        waiter = BarrierWaiter(
            engine, self._reconciler, self._clock, view, full_plan.policy, stopping
        )
        guard = self._reconciler.budget.remake_guard(
            full_plan.plan, full_plan.observed, wall=self._clock.now()
        )
        execution = execute(
            full_plan.plan.actions,
            is_deferred=never if approved else guard,
            engine=Logged(engine, self._reconciler.action_log),
            context=claims(view.desired, digest, requested_by),
            observe=lambda action: engine.observe(images=frozenset(), only=action.object),
            await_open=waiter.await_open,
            stopping=stopping,
        )
        with self._shared.lock:
            controller.record_downtime(execution)
        return execution

    # Answers

    def retry_refused(self, only: Key | None = None) -> None:
        """Try refused actions at once: a person who asks for a pass may have removed the cause."""
        retry_refused(self._store, self.controller.keys.add, only)

    def forget_denials(self, full_plan: FullPlan) -> None:
        """Forget why services stalled whose plan has actions now, and none is denied any more."""
        denied = {action.object for action in full_plan.plan.actions if is_denied(action)}
        with self._shared.lock:
            for key, failure in self._store.failures().items():
                if failure.act is Act.STALLED and key not in denied and full_plan.plan.of(key):
                    self._store.of(key).failure = None
        self.controller.changed()

    def convergence(self, only: Key | None = None) -> Convergence:
        """Observe everything, and return how far everything, or *only* one key, has converged.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        return self.convergence_of(self.controller.observe_everything(), only)

    def convergence_of(self, full_plan: FullPlan, only: Key | None = None) -> Convergence:
        """Return how far everything, or *only* one key, has converged by a plan of everything."""
        desired = full_plan.view.desired
        starting = full_plan.starting if only is None else full_plan.starting & {only}
        with self._shared.lock:
            if only is None:
                starting |= self._reconciler.tracker.settling(desired, full_plan.observed)
            convergence = convergence_of(full_plan.plan, self._store.failures(), only)
        return replace(convergence, starting=bool(starting))

    def progress(self, since: int) -> dict[str, object]:
        """Return the actions after number *since*, and the progress of long actions by object."""
        from controller.core.review.progress import acts_json  # a start shows no actions

        progress = self.controller.parts.triggers.progress()
        actions = self._reconciler.action_log.actions()
        last = actions[-1].number if actions else 0
        return {
            "acts": acts_json(actions, since=since),
            "last": last,
            "working": {str(key): text for key, text in progress.items()},
        }

    def done_since(self, number: int) -> dict[str, object]:
        """Return the actions after *number* with a summary; without any, the last minute's summary."""
        from controller.core.review.progress import acts_json, summary_of_acts

        actions = self._reconciler.action_log.actions()
        since = self._clock.now() - RECENT_S
        with self._shared.lock:
            desired = self._shared.view.desired
        newer = [action for action in actions if action.number > number]
        recent = [action for action in actions if action.at > since]
        done: dict[str, object] = {
            "summary": summary_of_acts(
                newer, desired, earlier=(each for each in recent if each.number <= number)
            ).to_json(),
            "acts": acts_json(actions, since=number),
        }
        if recent and not newer:
            done["recently"] = summary_of_acts(recent, desired).text
        return done

    def failed_runs(self, uid: int, *, owns_all: bool) -> tuple[FailedRun, ...]:
        """Return the failed runs whose output a user is allowed to read; with *owns_all* all runs."""
        with self._shared.lock:
            policy = self._shared.policy
        readers = Readers() if policy is None else policy.readers
        runs = self._reconciler.failure_log.runs()
        return tuple(run for run in runs if owns_all or readers.may_read(uid, run.owner))


#: How often a waiting plan observes its barrier.
GATE_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class _BarrierState:
    """A barrier in a single snapshot."""

    is_open: bool
    #: Why the barrier never opens, if that is certain.
    failed: str = ""
    #: When time alone opens the barrier, if it does.
    opens_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class BarrierWaiter:
    """The barriers of a plan for *view* under *policy*."""

    engine: Engine
    reconciler: Reconciler
    clock: Timer
    view: DesiredView
    policy: PassPolicy
    stopping: Callable[[], bool]

    def await_open(self, barrier: Barrier) -> bool:
        """Wait until a barrier opens; return True.

        Raises:
            Conflict: the barrier never opens, or not within the service's progress deadline.
            EngineError: the engine can't be observed.
        """
        service = self.view.desired.service(barrier.object)
        assert service is not None, f"a barrier of {barrier.object}, which isn't declared"
        deadline_s = service.spec.rollout.progress_deadline / 1000
        deadline = self.clock.monotonic() + deadline_s
        while True:
            state = (
                self._dependencies(barrier.object) if barrier.on else self._target(barrier, service)
            )
            if state.is_open:
                return True
            late = self.clock.monotonic() >= deadline
            if state.failed or late or self.stopping():
                why = state.failed or (f"not within {deadline_s:g} s" if late else "stopped")
                what = barrier.cause if barrier.on else f"{barrier.target} isn't available"
                raise Conflict(UNMET, f"{what}: {why}")
            pause_s = GATE_POLL_S if state.opens_in_s is None else state.opens_in_s + 0.01
            self.clock.pause(min(GATE_POLL_S, pause_s))

    def _target(self, barrier: Barrier, service: Service) -> _BarrierState:
        tracker = self.reconciler.tracker
        observed = self.engine.observe(images=frozenset(), only=barrier.object)
        facts = self.reconciler.jobs.hooks(self.view.desired, observed).facts(service)
        rollout = tracker.observe_rollout(service, observed, stalled=False, hooks=facts)
        return _BarrierState(
            tracker.is_available(service, observed, barrier.target),
            rollout.failed,
            tracker.available_in_s(service, observed),
        )

    def _dependencies(self, key: Key) -> _BarrierState:
        observed = self.engine.observe(images=frozenset())
        plan = self.reconciler.plan(self.view, observed, self.policy, only=key, known=observed)
        waits = [a for a in plan.of(key) if isinstance(a, Wait) and a.on]
        return _BarrierState(
            not waits, next((wait.cause for wait in waits if isinstance(wait, NeedsOperator)), "")
        )
