"""The control API: answers the requests of the control socket, among them passes on request."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace

from controller import __version__
from controller.core.drift import failures
from controller.core.drift.actions import is_denied
from controller.core.drift.failures import Readers
from controller.core.metrics.samples import stats
from controller.core.planning.context import present_key
from controller.core.planning.deliveries import source_of
from controller.core.planning.images_networks_volumes import KnownImages
from controller.core.service.history import history, with_failures
from controller.core.service.operator_actions import Decision, unknown
from controller.core.status.facts import Report
from controller.core.status.report import with_last_lines
from controller.core.status.standing import ENDED, unmet
from controller.loop.control_socket import (
    ActRequest,
    Bare,
    BareRequest,
    HistoryRequest,
    KeyRequest,
    PassRequest,
    ProgressRequest,
    ReportRequest,
    ReviewRequest,
    ViewRequest,
    denied_to_viewers,
    malformed,
    raise_if_not_allowed,
    raise_if_partial,
    read_request,
    unknown_viewer,
)
from controller.loop.controller import Controller
from controller.loop.executor import Execution
from controller.loop.full_plan import (
    Convergence,
    FullPlan,
    PlanExecutor,
    convergence_of,
    plan_changed,
)
from controller.loop.metrics import ControllerMetrics
from controller.loop.passes import observe_key
from controller.loop.state import service_state, service_tracker
from controller.loop.state.overrides import retry_refused
from controller.loop.workqueue import Chore, PassLock
from controller.model.container_output import FailedRun
from controller.model.desired.desired import NO_OVERRIDES, ServiceAct
from controller.model.errors import Act, EngineError, EngineUnavailable, TrimtabError, UsageError
from controller.model.names import WORKLOADS, Key
from controller.model.observed import Observed
from controller.model.records import ViewerScope
from controller.system.conversation import AnswerLine, failure, requester

#: How often a waiting request checks the convergence, besides after each action.
CONVERGENCE_S = 1.0
#: How old actions are that ``done_since`` shows if there are no newer ones.
RECENT_S = 60.0
#: How long a plan waits for an observation of everything under way; then it observes everything.
OBSERVED_S = 600.0
#: More changed services than these are observed together with all others.
LOOKS_MAX = 32
_KNOWN_TO_BROKER = frozenset({"Job", "Network", "Volume"})
_UNCHANGED: Mapping[str, object] = {"unchanged": True}


class ControlApi:
    """The requests of operators to one controller. Thread-safe.

    *stopped* is set once the process stops: waiting requests then end. *directory* is the DIR of the
    controller, and *settings* the digest of its settings. Users of the uids *trusted* are allowed to act, and to read all output.
    """

    def __init__(
        self,
        controller: Controller,
        pass_lock: PassLock,
        stopped: threading.Event,
        *,
        directory: str = "",
        settings: str = "",
        trusted: frozenset[int] = frozenset({0}),
        metrics: ControllerMetrics | None = None,
    ) -> None:
        self._controller = controller
        self._shared = controller.shared
        self._reconciler = controller.reconciler
        self._overrides = controller.overrides
        self._engine = controller.parts.engine
        self._store = controller.parts.store
        self._clock = controller.parts.clock
        self._pass_lock = pass_lock
        self._stopped = stopped
        self._directory = directory
        self._settings = settings
        self._trusted = trusted
        self._metrics = metrics or ControllerMetrics(controller, self._clock.now())

    def answer(self, question: Mapping[str, object], peer_uid: int) -> AnswerLine:
        """Return the answer to one question; a TrimtabError becomes ``{"error": …}``."""
        try:
            return self._answer(question, peer_uid)
        except TrimtabError as error:
            return failure(error.code, error.message, remedy=error.remedy)

    def _answer(self, question: Mapping[str, object], uid: int) -> AnswerLine:
        raise_if_not_allowed(question, uid, trusted=uid in self._trusted)
        match read_request(question):
            case BareRequest(do=do):
                return self._answer_bare(do, uid)
            case ReportRequest() as request:
                return self._report(request, uid)
            case ViewRequest(have=have, wait_s=wait_s):
                return self._view(have, wait_s if uid in self._trusted else 0.0)
            case ReviewRequest(version=version, directory=directory):
                return self._review(version, directory)
            case HistoryRequest() as request:
                revisions = self.history(request.key)
                runs = self._failed_runs(uid)
                return with_failures(revisions, runs) if request.output else revisions
            case KeyRequest() as request:
                is_state = request.do == "state"
                return self._state(request.key) if is_state else self._samples(request.key)
            case ProgressRequest(since=since):
                return self.progress(since)
            case PassRequest() as request:
                return self.run_pass(request, uid)
            case ActRequest() as request:
                return self._act(request, uid)

    def answer_viewer(self, question: Mapping[str, object], peer_uid: int) -> AnswerLine:
        """Return the answer to a viewer, or to a user who isn't in the group of the socket."""
        try:
            return self._answer_viewer(question, peer_uid)
        except TrimtabError as error:
            return failure(error.code, error.message, remedy=error.remedy)

    def has_viewer(self, uid: int) -> bool:
        """Return True if the policy that was read last lists a viewer."""
        policy = self._shared.policy  # without the lock: accepts of others wait for this answer
        return policy is not None and uid in policy.readers.viewers

    def _answer_viewer(self, question: Mapping[str, object], uid: int) -> AnswerLine:
        scope = self._scope_of(uid)
        match read_request(question):
            case ViewRequest(have=have, wait_s=wait_s):
                view = self._view(have, wait_s, scope.owners)
                if self._scope_of(uid) != scope:  # the policy changed during the wait
                    raise unknown_viewer(uid)
                return view
            case BareRequest(do="metrics"):
                raise_if_partial(scope)
                report = self._controller.reporter.last()
                if report is None:
                    raise _starting("has not made a status yet")
                return {"text": self._metrics.text(report)}
            case BareRequest(do="ping"):
                return {"pong": True}
            case request:
                raise denied_to_viewers(request.do)

    def _scope_of(self, uid: int) -> ViewerScope:
        """Return the scope of a viewer by the policy that was read last. Raises TrimtabError."""
        with self._shared.lock:
            policy = self._shared.policy
        if policy is None:
            raise _starting("has not read the policy yet")
        scope = policy.readers.viewers.get(uid)
        if scope is None:
            raise unknown_viewer(uid)
        return scope

    def _answer_bare(self, do: Bare, uid: int) -> dict[str, object]:
        match do:
            case "ping":
                return {"pong": True}
            case "plan":
                return self._plan_shown()
            case "metrics":
                return {"text": self._metrics.text()}
            case "stats":
                return self._stats()
            case "failures":
                return {"runs": [failures.FORM.to_json(run) for run in self._failed_runs(uid)]}
            case "secrets":
                return self._secret_contents()
            case "observe":
                return self._observe()

    def _samples(self, key: Key) -> dict[str, object]:
        """Return the samples of a service; an empty list for another resource."""
        return {"samples": self._controller.sampler.samples_of(key)}

    def _stats(self) -> dict[str, object]:
        """Return the present use of the running containers. Causes no observation."""
        look = self._controller.sampler.look()
        with self._shared.lock:
            observed = self._shared.observed
        return stats(observed, look)

    # Status

    def _report(self, request: ReportRequest, uid: int) -> dict[str, object]:
        """Return the status; a trusted user can wait for a changed one."""
        reporter = self._controller.reporter
        number = reporter.published()
        reply = self._report_now(request, uid)
        if request.wait_s and uid in self._trusted and reply == _UNCHANGED:
            reporter.await_published(number, timeout_s=request.wait_s)
            reply = self._report_now(request, uid)
        return reply

    def _view(self, have: str, wait_s: float, owners: frozenset[str] | None = None) -> bytes:
        """Return what changed in the view since a version, or wait for the next one.

        Raises:
            EngineUnavailable: there is no view yet.
        """
        view = self._controller.reporter.views.answer(have, wait_s=wait_s, owners=owners)
        if view is None:
            raise _starting("has not made a status yet")
        return view

    def _report_now(self, request: ReportRequest, uid: int) -> dict[str, object]:
        report = self._with_output(self._controller.status(), request, uid)
        if self._settings:
            report = {**report, "settings": self._settings}
        if request.unless is None:
            return report
        # The controller makes equal reports in the same order, and canonical JSON takes four times as long.
        version = hashlib.sha256(json.dumps(report).encode()).hexdigest()
        return dict(_UNCHANGED) if version == request.unless else {**report, "version": version}

    def _with_output(
        self, report: Report, request: ReportRequest | PassRequest, uid: int
    ) -> Report:
        """Return a report, with the last lines of failed containers if the request asks for them."""
        return with_last_lines(report, self._failed_runs(uid)) if request.output else report

    def _failed_runs(self, uid: int) -> tuple[FailedRun, ...]:
        """Return the failed runs whose output a user is allowed to read."""
        with self._shared.lock:
            policy = self._shared.policy
        readers = Readers() if policy is None else policy.readers
        runs = self._reconciler.failure_log.runs()
        return tuple(
            run for run in runs if uid in self._trusted or readers.may_read(uid, run.owner)
        )

    def progress(self, since: int) -> dict[str, object]:
        """Return the actions after number *since*, and the progress of long actions by object."""
        from controller.core.review.progress import acts_json  # a start shows no actions

        progress = self._controller.parts.triggers.progress()
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

    def _state(self, key: Key) -> dict[str, object]:
        """Return all that the controller knows of a resource, for people who look for a fault.

        Raises:
            UsageError: the resource is unknown.
        """
        with self._shared.lock:
            state = self._store.states().get(key)
            if state is None:
                raise unknown(key)
            return service_state.to_json(state)

    def _secret_contents(self) -> dict[str, object]:
        """Return the content id of each Secret that the broker has opened, by its source."""
        if self._shared.declared is None:
            self._controller.reload()
        with self._shared.lock:
            declared = self._shared.declared
        secrets = () if declared is None else declared.secrets
        return {"contents": {source_of(each): each.content for each in secrets if each.content}}

    # Overrides

    def act(self, act: ServiceAct, *, only_ask: bool = False) -> Decision:
        """Change the overrides of a service, as operators do. Durable once this method returns.

        With *only_ask* nothing changes; the decision says what would change.

        Raises:
            UsageError: the act isn't possible; the message names the reason and alternatives.
            StateError: the state can't be saved; nothing changed.
            EngineError: the containers to restart can't be observed.
        """
        controller, shared = self._controller, self._shared
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
                is_signed=shared.policy is not None and act.key.namespace in shared.policy.signed,
            )
            if only_ask or not decision.changed:
                return decision
            self._overrides.save(act.key, decision)
            if act.verb in ("resume", "start", "restart"):
                self._reconciler.tracker.retry_rollout(act.key)
            controller.restart_convergence(act.key)
        controller.keys.add(act.key)
        controller.chores.add(Chore.OBSERVE)  # the prune guard decides again
        controller.changed()
        return decision

    def _act(self, request: ActRequest, uid: int) -> dict[str, object]:
        """Change an override of a service; passes carry it out later.

        The answer to a suspension or a stop waits until earlier actions have ended, at most
        until the request's timeout; ``quiet`` is False on timeout.
        """
        deadline = self._clock.monotonic() + request.timeout_s
        by = requester(request.on_behalf_of, uid)
        if request.do == "scale" and request.replicas is None:
            raise malformed("replicas")
        act = ServiceAct(
            request.do,
            request.key,
            by,
            to=request.to,
            reason=request.note,
            replicas=request.replicas or 0,
            until=None if request.for_s is None else self._clock.now() + request.for_s,
        )
        decision = self.act(act, only_ask=request.only_ask)
        quiet = True
        if request.do in ("suspend", "stop") and not request.only_ask:
            quiet = self._controller.keys.await_done(request.key, timeout_s=request.timeout_s)
            left_s = max(0.0, deadline - self._clock.monotonic())
            quiet = self._pass_lock.await_shared(timeout_s=left_s) and quiet
        return {
            "changed": decision.changed,
            "text": decision.text,
            "revision": decision.revision,
            "anew": decision.anew,
            "quiet": quiet,
        }

    # Plans

    def _plan_shown(self) -> dict[str, object]:
        """Return the plan of everything, and the removals permitted by an approval."""
        # A start prints no plan.
        from controller.core.enforcement import approvals
        from controller.core.review.plan_json import review_json

        full_plan = self.plan()
        going = approvals.planned_removals(full_plan.plan, full_plan.observed)
        shown = review_json(self._controller.review(full_plan))
        return {"plan": shown, "going": [asdict(each) for each in going]}

    def _review(self, version: str, directory: str) -> dict[str, object]:
        """Return the review of everything for a command of a version about a DIR.

        Reads the files at each request, and observes everything unless nothing changed.

        Raises:
            UsageError: the command has another version than this process, or is about another DIR.
        """
        if (version, directory) != (__version__, self._directory):
            raise UsageError(
                "control.differs",
                f"trimtab {__version__} runs here on {self._directory or 'no directory'}",
                remedy="name this directory, or restart the controller after an update",
            )
        from controller.core.review.plan_json import answer_json  # a start prints no plan

        return answer_json(self._controller.review(self.plan()))

    def plan(self) -> FullPlan:
        """Return the plan of everything, by the present files, containers and policy.

        An observation of everything under way is waited for, and serves the plan: what changes
        meanwhile shows in the engine's list, or queues a key or another observation.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        self._controller.chores.await_done(Chore.OBSERVE, timeout_s=OBSERVED_S)
        return self._plan_by_looks() or self._controller.plan_everything()

    def _plan_by_looks(self, *, looks_max: int = LOOKS_MAX) -> FullPlan | None:
        """Return the plan by the last snapshot, with a look at each service that changed since.

        None if more than *looks_max* services changed, or anything else. Nothing is done by such a plan:
        who applies the plan observes everything first.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        controller = self._controller
        with self._shared.lock:
            view, observed = self._shared.view, self._shared.observed
            followed = self._shared.followed
        if observed is None or not followed or controller.chores.is_queued(Chore.OBSERVE):
            return None
        full_plan, changed = self._plan_while_listing(observed)
        keys = changed | controller.keys.busy
        if len(keys) > looks_max or any(key.kind not in WORKLOADS for key in keys):
            return None
        for key in sorted(keys):
            part = observe_key(self._engine, key, view, observed)
            observed = service_tracker.merge_snapshot(observed, part, key)
        if keys:
            full_plan = controller.plan_everything(observed)
        return full_plan if self._has_same_inputs(full_plan) else None

    def _plan_unchanged(self) -> FullPlan | None:
        """Return the plan of everything by the last snapshot; None if something changed since.

        A list of the containers replaces the inspection of each. The list shows no changed limit and
        no network: their events do, and queue a key or an observation.
        """
        with suppress(EngineError):
            full_plan = self._plan_by_looks(looks_max=0)
            with self._shared.lock:
                is_last = full_plan is not None and self._shared.observed is full_plan.observed
            return full_plan if is_last and self._controller.keys.idle else None
        return None

    def _plan_while_listing(self, observed: Observed) -> tuple[FullPlan, frozenset[Key]]:
        """Return the plan by *observed*, and the services that the engine's list shows changed.

        Engine and broker make the list while this process plans: at 10,000 containers, both take
        long. The plan holds only if nothing changed.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        with ThreadPoolExecutor(1, "list") as pool:
            listing = pool.submit(self._engine.list_containers)
            full_plan = self._controller.plan_everything(observed)
            return full_plan, service_tracker.changed_services(observed, listing.result())

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
                and not self._controller.chores.is_queued(Chore.OBSERVE)
            )

    def apply_exactly(self, digest: str, *, approved: bool, requested_by: str) -> Execution:
        """Plan again and, if the plan's digest is *digest*, perform exactly its actions.

        No passes may run meanwhile.

        Raises:
            UsageError: the plan has changed.
            EngineError: engine or broker can't be reached.
        """
        controller = self._controller
        full_plan = controller.observe_everything(
            approved=approved, requested_by=requested_by, plan=digest if approved else ""
        )
        if not approved and full_plan.plan.digest != digest:
            raise plan_changed(full_plan.plan.digest, digest)
        holds = full_plan.view.desired.holds

        def stopping() -> bool:
            with self._shared.lock:  # operators may have changed overrides after the plan
                changed = self._shared.view.desired.holds != holds
            return changed or controller.parts.stopping()

        run = PlanExecutor(
            self._reconciler,
            full_plan,
            digest,
            approved=approved,
            requested_by=requested_by,
            stopping=stopping,
            clock=self._clock,
        )
        execution = run.execute(full_plan.plan.actions)
        with self._shared.lock:
            controller.record_downtime(execution)
        return execution

    # Passes on request

    def _observe(self) -> dict[str, object]:
        """Observe everything by the policy of now, and try at once what was refused.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        full_plan = self._controller.observe_everything()
        self._retry_refused()  # by the policy that was just read
        # Forget why services stalled whose plan has actions now, and none is denied any more.
        denied = {action.object for action in full_plan.plan.actions if is_denied(action)}
        with self._shared.lock:
            for key, stall in self._store.failures().items():
                if stall.act is Act.STALLED and key not in denied and full_plan.plan.of(key):
                    self._store.of(key).failure = None
        self._controller.changed()
        return {}

    def run_pass(self, request: PassRequest, uid: int) -> dict[str, object]:
        """Converge until everything is as desired, no action is possible, or the timeout passes.

        The answer has all actions meanwhile, including the actions of other passes. A pass of everything
        has converged only if no resource stays otherwise than declared: a rolled back or suspended one
        does. ``unmet`` has the resources that aren't as declared.
        """
        began, before = self._clock.monotonic(), self._controller.reconciler.action_log.last
        deadline, requested_by = began + request.timeout_s, requester(request.on_behalf_of, uid)
        if request.plan:
            convergence = self._apply(request, requested_by, deadline)
        else:
            with self._pass_lock.open():
                convergence = self._converge(request, requested_by, deadline)
        status = self._controller.status()
        left = unmet(status) if request.key is None else []
        ended = convergence.converged and any(each["standing"] in ENDED for each in left)
        return {
            "converged": convergence.converged and not ended,
            "stuck": convergence.stuck or ended,
            "seconds": round(self._clock.monotonic() - began, 1),
            "unmet": left,
            **self.done_since(before),
            "status": self._with_output(status, request, uid),
        }

    def _apply(self, request: PassRequest, requested_by: str, deadline: float) -> Convergence:
        """Perform one plan while no pass runs."""
        wait_s = max(0.0, deadline - self._clock.monotonic())
        with self._pass_lock.exclusive(timeout_s=wait_s) as granted:
            if not granted:
                raise UsageError(
                    "controller.busy",
                    "passes that run already didn't end in time",
                    remedy="try again, or with a longer --timeout",
                )
            execution = self.apply_exactly(
                request.plan, approved=request.approve_prune, requested_by=requested_by
            )
            if execution.error is not None:
                raise execution.error
            convergence = self.convergence()
            while convergence.converged and convergence.starting and not self._is_over(deadline):
                self._pass_lock.wait_for(self._stopped.is_set, timeout_s=CONVERGENCE_S)
                convergence = self.convergence()
            converged = convergence.converged and not execution.refused
            return replace(convergence, converged=converged and not convergence.starting)

    def _is_over(self, deadline: float) -> bool:
        """Return True if a request must be answered now."""
        return self._clock.monotonic() >= deadline or self._stopped.is_set()

    def _converge(self, request: PassRequest, requested_by: str, deadline: float) -> Convergence:
        keys, approved = self._controller.keys, request.approve_prune
        log, is_first, was_stuck = self._controller.reconciler.action_log, True, False
        # A requested run of a job, or an adopted object, changes nothing but what the broker knows.
        is_known_there = request.key is not None and request.key.kind in _KNOWN_TO_BROKER
        unchanged = None if approved or is_known_there else self._plan_unchanged()
        if unchanged is not None:
            convergence = self.convergence_of(unchanged, request.key)
            if convergence.settled:
                return convergence
        self._retry_refused(request.key)
        while True:
            acted, convergence = log.last, Convergence(converged=False, stuck=False)
            try:
                full_plan = self._controller.observe_everything(
                    approved=approved,
                    requested_by=requested_by,
                    plan=request.approved if approved else "",
                )
                approved = False
                convergence = self.convergence_of(full_plan, request.key)
                if (
                    is_first and not convergence.settled
                ):  # the prune guard removes after a second look
                    convergence = self.convergence(request.key)
                is_first = False
                # A pass that still runs records the snapshot from before its actions.
                if convergence.settled and not self._is_busy(request.key):
                    return convergence
                # Observing queues the keys with actions, so the queue is busy right afterwards.
                # Only a key that is still stuck after its pass waits for a person.
                if convergence.stuck and (was_stuck or keys.idle):
                    return convergence
                was_stuck = convergence.stuck
            except EngineError as error:
                self._controller.connection_lost(error)
            if self._is_over(deadline):
                return Convergence(converged=False, stuck=False)
            left_s = deadline - self._clock.monotonic()
            self._wait_for_news(convergence, acted, min(CONVERGENCE_S, left_s))
            # A look queues each container in quarantine, so the queue is never idle right after it.
            if convergence.settled and log.last == acted and not self._is_busy(request.key):
                return convergence

    def _retry_refused(self, only: Key | None = None) -> None:
        """Try refused actions at once: a person who asks for a pass may have removed the cause."""
        retry_refused(self._store, self._controller.keys.add, only)

    def convergence(self, only: Key | None = None) -> Convergence:
        """Observe everything, and return how far everything, or *only* one key, has converged.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        return self.convergence_of(self._controller.observe_everything(), only)

    def convergence_of(self, full_plan: FullPlan, only: Key | None = None) -> Convergence:
        """Return how far everything, or *only* one key, has converged by a plan of everything."""
        desired = full_plan.view.desired
        starting = full_plan.starting if only is None else full_plan.starting & {only}
        with self._shared.lock:
            if only is None:
                starting |= self._reconciler.tracker.settling(desired, full_plan.observed)
            convergence = convergence_of(full_plan.plan, self._store.failures(), only)
        return replace(convergence, starting=bool(starting))

    def _is_busy(self, only: Key | None) -> bool:
        """Return True if a pass of any key, or of *only* one key, runs or is due."""
        keys = self._controller.keys
        return keys.is_queued(only) if only is not None else not keys.idle

    def _wait_for_news(self, convergence: Convergence, acted: int, longest_s: float) -> None:
        """Wait until passes have changed something since action *acted*, at most *longest_s*.

        Each look queues the keys with actions. While these wait for a health check or for time, their
        passes find nothing to do: a look after each of these passes would keep a processor busy.
        """
        keys, log, shared = (
            self._controller.keys,
            self._controller.reconciler.action_log,
            self._controller.shared,
        )
        is_over, version = convergence.settled or convergence.stuck, shared.version

        def has_news() -> bool:
            if self._stopped.is_set():
                return True
            # Without actions no look queued a key: then a pass follows an event, such as a new health.
            is_passed = convergence.starting and convergence.converged and shared.version != version
            return keys.idle and (is_over or is_passed or log.last != acted)

        self._pass_lock.wait_for(has_news, timeout_s=longest_s)


def _starting(reason: str) -> EngineUnavailable:
    return EngineUnavailable(
        "controller.starting",
        f"the controller has just started, and {reason}",
        remedy="ask again in a second",
    )
