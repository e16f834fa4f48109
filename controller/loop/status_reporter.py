"""Reporting: the status of everything, from what is known now. Never an input for a decision."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from controller.core.planning.image_volumes import with_image_volumes
from controller.core.status import report as status
from controller.core.status.details import Report
from controller.core.status.facts import Failure, StatusInputs
from controller.loop.passes import DesiredView, PassPolicy
from controller.loop.reconciler import Reconciler
from controller.loop.state.store import StateStore
from controller.loop.status_verdicts import StatusVerdicts
from controller.model.desired.plan import Plan
from controller.model.errors import EngineError, Problem, Severity
from controller.model.names import Key, NetworkNames
from controller.model.observed import Observed
from controller.model.quantities import format_instant

#: How old a report may be when nothing changed: somebody who watches asks twice a second.
FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """What is known now. ``away``: why the engine can't be looked at, if so. ``version`` counts
    its changes.
    """

    version: int
    view: DesiredView
    observed: Observed | None
    rules: PassPolicy | None
    away: EngineError | None
    failures: Mapping[Key, Failure]
    progress: Mapping[Key, str]
    problems: tuple[Problem, ...]


class Reporter:
    """Makes reports, each with the one before in mind. Safe to use from several threads."""

    def __init__(self, reconciler: Reconciler, store: StateStore) -> None:
        self._reconciler = reconciler
        self._store = store
        self._admissions = StatusVerdicts()
        self._lock = threading.Lock()
        self._previous: Report | None = None
        self._made: tuple[int, float] | None = None  # version and instant of the report before

    def recall(self, previous: object) -> None:
        """Take up a report that was published earlier, for its instants; anything else is ignored."""
        with self._lock:
            self._previous = _checked(previous)

    def report(self, known: ReportInputs, *, now: float) -> Report:
        """Return the status in the shape of ``status --json``."""
        with self._lock:
            if self._previous is not None and self._is_fresh(known, now):
                return self._previous
            self._made = (known.version, now)
            view, rules = known.view, known.rules
            observed = known.observed if known.away is None else None
            plan, desired = Plan(problems=view.desired.problems, blocked=view.blocked), view.desired
            if rules is not None and observed is not None:
                desired = with_image_volumes(desired, observed, rules.volume_rule)
                plan = self._reconciler.plan(view, observed, rules, failures=known.failures)
            generations = self._store.generations().items()
            world = StatusInputs(
                desired=desired,
                observed=observed,
                plan=plan,
                networks=NetworkNames() if rules is None else rules.networks,
                generations={key: (each.number, each.observed) for key, each in generations},
                breaches=self._reconciler.tracker.violations(now),
                pauses=self._reconciler.tracker.pauses(now),
                causes={slot: each.cause for slot, each in self._store.histories().items()},
                crash_looping=self._reconciler.tracker.crash_frequencies(now),
                contended=self._reconciler.tracker.contended_fields(now),
                failed=self._reconciler.tracker.failed_rollouts(view.desired),
                failures=known.failures,
                progress=known.progress,
                violations=self._admissions.violations(view.desired, observed, rules),
                problems=(*known.problems, *_away(known.away)),
                looked=known.observed is not None or known.away is not None,
            )
            report = status.report(world, previous=self._previous, now=format_instant(now))
            self._previous = report
            return report

    def _is_fresh(self, known: ReportInputs, now: float) -> bool:
        """Tell whether nothing changed since the report before but, perhaps, what time changes."""
        if self._made is None:
            return False
        version, at = self._made
        return version == known.version and 0 <= now - at < FRESH_S


def _checked(value: object) -> Report | None:
    """Return a report that was read from a file, if all that the next one takes from it is there."""
    match value:
        case {"resources": list(resources)}:
            pass
        case _:
            return None
    for resource in resources:
        match resource:
            case {"kind": str(), "namespace": str(), "name": str(), "conditions": list(found)}:
                pass
            case _:
                return None
        for condition in found:
            match condition:
                case {"type": str(), "status": str(), "since": str()}:
                    pass
                case _:
                    return None
    return {"resources": resources, "problems": []}


def _away(error: EngineError | None) -> tuple[Problem, ...]:
    if error is None:
        return ()
    remedy = error.remedy or "it is looked for again and again; what runs keeps running"
    # A warning: nothing is wrong with what users wrote.
    return (Problem(error.code, error.message, remedy=remedy, severity=Severity.WARNING),)
