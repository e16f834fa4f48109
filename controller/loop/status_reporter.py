"""The status of all resources, and versions of the view for readers. Never an input of a decision."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from controller.core.engine_api.engine_objects import REMEDY, UNTESTED
from controller.core.planning import planner
from controller.core.planning.images_networks_volumes import Prerequisites, with_image_volumes
from controller.core.planning.planner import KeyPlan
from controller.core.planning.slot_plan import hypothetical_create
from controller.core.service.history import history
from controller.core.status import report as status
from controller.core.status.facts import FactsMemo, Report, StatusInputs, revision_times
from controller.core.status.report import unsent
from controller.core.view.attention import attended
from controller.loop.passes import PassPolicy
from controller.loop.reconciler import Reconciler
from controller.loop.shared_state import ControllerParts, SharedState
from controller.loop.workqueue import PUBLISH_S
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import Plan
from controller.model.errors import EngineError, Problem, Severity, StateError
from controller.model.names import Key, NetworkNames
from controller.model.observed import Observed
from controller.model.quantities import format_instant
from controller.model.records import Verdict, ViewerScope

if TYPE_CHECKING:
    from controller.core.view.view import FieldsMemo, View, ViewInputs


#: How long after a reader's last request views are made with each status.
WATCHED_S = 180.0
#: The answers that are kept about one version: readers can name any version as theirs.
RENDERED_MAX = 16
EVERYBODY: Final = ViewerScope(owners=None)


class Views:
    """The view of everything, and a view for each scope that viewers read. Thread-safe."""

    def __init__(self, run: str, make: Callable[[str, ViewerScope], ViewPublisher]) -> None:
        self._run = run
        self._make = make
        #: The number of views made for scopes: a version of one means nothing in another.
        self._made = 0
        self._lock = threading.Lock()
        self._facts: Callable[[], ViewInputs] | None = None
        self._by_owners = {EVERYBODY.owners: make(run, EVERYBODY)}

    def publish(self, facts: Callable[[], ViewInputs]) -> None:
        """Take the facts of a new status. Forget the scopes that nobody reads any more."""
        with self._lock:
            self._facts = facts
            self._by_owners = {
                owners: view
                for owners, view in self._by_owners.items()
                if owners is None or view.is_watched()
            }
            views = [*self._by_owners.values()]
        for view in views:
            view.publish(facts)

    def answer(
        self, have: str, *, wait_s: float, owners: frozenset[str] | None = None
    ) -> bytes | None:
        """Return what a reader about *owners* (None: all) lacks, as ``ViewPublisher.answer``."""
        with self._lock:
            view = self._by_owners.get(owners)
            if view is None:
                self._made += 1
                view = self._make(f"{self._run}.{self._made}", ViewerScope(owners))
                self._by_owners[owners] = view
                if self._facts is not None:
                    view.publish(self._facts)
        return view.answer(have, wait_s=wait_s)


class ViewPublisher:
    """Makes versions of the view of a scope, and renders what readers lack: once for all of them. Thread-safe.

    *run* names the life of this process. *host* returns the member ``host``, and *verified* the content of
    ``verified.json``.
    """

    def __init__(
        self,
        run: str,
        monotonic: Callable[[], float],
        *,
        host: Callable[[], Report] = dict,
        verified: Callable[[], object] = lambda: None,
        scope: ViewerScope = EVERYBODY,
    ) -> None:
        self._scope = scope
        self._run = run
        self._monotonic = monotonic
        self._host = host
        self._verified = verified
        self._hidden = frozenset[str]()
        self._changed = threading.Condition()
        self._memo: FieldsMemo | None = None
        #: Returns the facts of the last status; None before the first one.
        self._facts: Callable[[], ViewInputs] | None = None
        self._view: View | None = None
        #: The view was made of the last facts.
        self._is_current = False
        #: The answers about the present view, by the version that readers have.
        self._rendered: dict[str, bytes] = {}
        self._asked_at: float | None = None

    def publish(self, facts: Callable[[], ViewInputs]) -> None:
        """Take the facts of a new status, and make a version of the view if anybody reads it."""
        with self._changed:
            self._facts, self._is_current = facts, False
            if self.is_watched():
                self._make(facts)

    def is_watched(self) -> bool:
        """Return True if a reader asked within the last minutes."""
        asked = self._asked_at
        return asked is not None and self._monotonic() - asked < WATCHED_S

    def answer(self, have: str, *, wait_s: float) -> bytes | None:
        """Return what a reader with the version *have* lacks, as JSON; None before the first status.

        A reader of the present version waits for the next one, at most *wait_s* seconds.
        """
        with self._changed:
            self._asked_at = self._monotonic()
            if self._facts is None:
                return None
            view = self._make(self._facts)
            if view.version == have:
                self._changed.wait_for(lambda: self._is_over(have), wait_s)
                self._asked_at = self._monotonic()
                view = self._make(self._facts)
            if have not in self._rendered:
                from controller.core.view.view import answer, blanked

                if len(self._rendered) >= RENDERED_MAX:
                    self._rendered.clear()
                lacks = answer(view, have)
                shown = blanked(lacks, self._hidden) if self._hidden else lacks
                self._rendered[have] = json.dumps(shown).encode()
            return self._rendered[have]

    def _is_over(self, have: str) -> bool:
        """Return True if a reader with the version *have* waits no longer."""
        return self._view is None or self._view.version != have

    def _make(self, facts: Callable[[], ViewInputs]) -> View:
        """Return the view of the last facts, made at most once."""
        if self._view is not None and self._is_current:
            return self._view
        from controller.core.view.view import FieldsMemo, hidden_names, next_view, scoped

        self._memo = self._memo or FieldsMemo()
        inputs = facts()
        inputs = replace(inputs, host={**self._host(), **inputs.host}, verified=self._verified())
        if self._scope.owners is not None:
            self._hidden = hidden_names(inputs, self._scope)
            inputs = replace(scoped(inputs, self._scope), verified=None)
        self._view = next_view(self._view, inputs, self._memo, run=self._run)
        self._is_current, self._rendered = True, {}
        self._changed.notify_all()
        return self._view


#: The maximum age of a report while nothing changes: ``status --watch`` asks twice a second.
FRESH_S = 5.0
#: Reports take at most a twentieth of one CPU while much changes.
PUBLISH_SHARE = 20


class Reporter:
    """Makes reports. Conditions keep their instants from report to report. Thread-safe."""

    def __init__(self, reconciler: Reconciler, shared: SharedState, parts: ControllerParts) -> None:
        self._reconciler = reconciler
        self._shared = shared
        self._parts = parts
        self._triggers = parts.triggers
        self._prober = parts.engine.prober
        self._lock = threading.Lock()
        self._previous: Report | None = None
        self._memo = FactsMemo()
        #: The desired state of the previous report.
        self._desired = Desired()
        self.views = Views(
            parts.run,
            lambda run, scope: ViewPublisher(
                run,
                parts.clock.monotonic,
                host=parts.host,
                verified=parts.verified,
                scope=scope,
            ),
        )
        self._published: Report | None = None
        #: The number of published reports.
        self._number = 0
        self._changed = threading.Condition()
        #: The version and the instant of the previous report.
        self._made: tuple[int, float] | None = None
        self._began = format_instant(parts.clock.now())

    def recall(self, previous: object) -> None:
        """Take the instants of a published report; a value of another form is ignored."""
        with self._lock:
            self._previous = _validate(previous)

    def report(self, *, now: float) -> Report:
        """Return the status in the form of ``status --json``."""
        return self._report(now=now)[0]

    def last(self) -> Report | None:
        """Return the last status that was made; None before the first one."""
        with self._lock:
            return None if self._made is None else self._previous

    def _report(self, *, now: float) -> tuple[Report, Desired]:
        """Return the status, and the desired state that it is about."""
        with self._lock:
            # Copied, so that passes don't wait for the report.
            with self._shared.lock:
                shared = replace(self._shared, problems=dict(self._shared.problems))
                plans = self._parts.store.plans()
            version = shared.version + self._triggers.version
            if self._previous is not None and self._is_fresh(version, now):
                return self._previous, self._desired
            self._made = (version, now)
            inputs = self._inputs(shared, plans, now)
            instant = format_instant(now)
            report = status.report(inputs, previous=self._previous, now=instant, memo=self._memo)
            report["resources"] = [attended(row) for row in status.rows_of(report)]
            self._previous, self._desired = report, inputs.desired
            self.views.publish(partial(self._view_inputs, report, inputs, instant))
            return report, inputs.desired

    def _view_inputs(self, report: Report, inputs: StatusInputs, instant: str) -> ViewInputs:
        """Return the facts of a view, from a report and what it was made of."""
        from controller.core.view.view import ViewInputs  # loaded for readers of the view

        return ViewInputs(
            report,
            desired=inputs.desired,
            observed=inputs.observed,
            plan=inputs.plan,
            acts=self._reconciler.action_log.actions(),
            revisions={
                service.key: self._revisions(service, inputs) for service in inputs.desired.services
            },
            host=self._host(inputs),
            at=instant,
        )

    def _host(self, inputs: StatusInputs) -> Report:
        with self._shared.lock:
            policy = self._shared.policy
        return {
            "instance": "" if inputs.observed is None else inputs.observed.instance,
            "engine": "" if inputs.observed is None else inputs.observed.engine_version,
            "policy": "" if policy is None else policy.digest,
        }

    def _revisions(self, service: Service, inputs: StatusInputs) -> object:
        containers = inputs.containers(service.key)
        return history(
            service.key,
            self._parts.store.of(service.key).overrides,
            declared=service.revision,
            limits=service.limits,
            generation=inputs.generations.get(service.key, (0, 0))[0],
            pins={} if inputs.observed is None else inputs.observed.pins,
            running=Counter(container.revision for container in containers),
        )["revisions"]

    def published(self) -> int:
        """Return the number of published reports."""
        with self._changed:
            return self._number

    def await_published(self, number: int, *, timeout_s: float) -> None:
        """Wait until more than *number* reports were published, at most *timeout_s* seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number, timeout_s)

    def publish(self) -> None:
        """Publish a changed status, and what became of commits: holds without a record are tried again.

        Raises:
            StateError: a file can't be written. The other files are written.
        """
        clock = self._parts.clock
        began = clock.monotonic()
        report, desired = self._report(now=clock.now())
        cost_s = clock.monotonic() - began
        self._triggers.publish_delay_s = max(PUBLISH_S, PUBLISH_SHARE * cost_s)
        try:
            if report != self._published:
                with self._changed:  # who waits needs no file
                    self._number += 1
                    self._changed.notify_all()
                if "unread" not in report:  # the last known state stays until it is replaced
                    with _writing("the status"):
                        self._parts.publish(report)
                self._published = report
        finally:
            with _writing("the holds or outcomes of commits"):
                self._parts.publish_commits(desired, report)

    def _inputs(self, shared: SharedState, plans: dict[Key, KeyPlan], now: float) -> StatusInputs:
        tracker = self._reconciler.tracker
        view, policy, unreachable = shared.view, shared.policy, shared.unreachable
        observed = shared.observed if unreachable is None else None
        plan, desired = Plan(problems=view.desired.problems, blocked=view.blocked), view.desired
        if policy is not None and observed is not None:
            desired = with_image_volumes(desired, observed, policy.volume_rule)
            every = planner.keys(desired, observed)
            if missing := every - plans.keys():
                made = self._reconciler.plan(view, observed, policy, only=missing)
                plans |= {key: planner.part(made, key) for key in missing}
                with self._shared.lock:
                    if self._shared.view is view and self._shared.observed is observed:
                        self._parts.store.record_plan(made, missing)
            plan = planner.joined({key: plans[key] for key in every}, view.blocked)
        states = self._parts.store.states().items()
        has_looked = shared.observed is not None or unreachable is not None
        problems = (*shared.problems.values(), *self._prober.problems())
        targets = self._parts.read_targets() if desired.notifications else None
        return StatusInputs(
            desired=desired,
            observed=observed,
            plan=plan,
            networks=NetworkNames() if policy is None else policy.networks,
            generations={k: (g.number, g.observed) for k, s in states if (g := s.generation)},
            troubles=tracker.troubles(now),
            times={
                service.key: times
                for service in view.desired.services
                if (times := revision_times(self._parts.store.of(service.key).overrides))
            },
            failed=tracker.failed_rollouts(view.desired.services),
            failures=self._parts.store.failures(),
            progress=self._triggers.progress(),
            violations=dict(self._violations(view.desired, observed, policy)),
            problems=(*problems, *_unreachable(unreachable), *_untested(observed)),
            looked=has_looked,
            unread_since="" if has_looked and shared.declared is not None else self._began,
            now=self._reconciler.jobs.time(view.desired),
            rollouts=self._reconciler.jobs.standings(view.desired),
            unsent={} if targets is None else unsent(desired, targets),
        )

    def _violations(
        self, desired: Desired, observed: Observed | None, policy: PassPolicy | None
    ) -> Iterator[tuple[Key, Verdict]]:
        """Yield the services denied by the current policy, enforced or not.

        A changed policy makes no service stale: nothing is stopped, but the status shows the verdict.
        """
        if policy is None or observed is None:
            return
        prerequisites = Prerequisites(desired, observed, policy.networks)
        for service in desired.services:
            state = self._parts.store.of(service.key)
            if state.verdict is None or state.verdict[:2] != (policy.digest, service):
                verdict = policy.judge(hypothetical_create(service, prerequisites))
                state.verdict = (policy.digest, service, verdict)
            if state.verdict[2].decision in {"deny", "audit-deny"}:
                yield service.key, state.verdict[2]

    def _is_fresh(self, version: int, now: float) -> bool:
        """Return True if nothing changed since the previous report, except by time alone."""
        if self._made is None:
            return False
        made_version, made_at = self._made
        return made_version == version and 0 <= now - made_at < FRESH_S


@contextmanager
def _writing(subject: str) -> Iterator[None]:
    """Raise a StateError about *subject* for an OSError."""
    try:
        yield
    except OSError as error:
        raise StateError("state.unwritable", f"{subject} can't be written: {error}") from error


def _validate(value: object) -> Report | None:
    """Return the parts of a published report for the next report; None if any is missing."""
    resources = value.get("resources") if isinstance(value, dict) else None
    if not isinstance(resources, list) or not all(map(_is_resource, resources)):
        return None
    return {"resources": resources, "problems": []}


def _is_resource(value: object) -> bool:
    match value:
        case {"kind": str(), "namespace": str(), "name": str(), "conditions": list(conditions)}:
            members = ("type", "status", "since")
            return all(
                isinstance(each, dict) and all(isinstance(each.get(m), str) for m in members)
                for each in conditions
            )
        case _:
            return False


def _untested(observed: Observed | None) -> tuple[Problem, ...]:
    if observed is None or not observed.untested:
        return ()
    problem = Problem(UNTESTED, observed.untested, remedy=REMEDY, severity=Severity.WARNING)
    return (problem,)


def _unreachable(error: EngineError | None) -> tuple[Problem, ...]:
    if error is None:
        return ()
    remedy = error.remedy or "trimtab keeps trying to connect; running containers are not affected"
    # A warning: the files are valid.
    return (Problem(error.code, error.message, remedy=remedy, severity=Severity.WARNING),)
