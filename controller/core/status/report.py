"""The status report of all resources, in the shape of ``trimtab status --json``.

Pure: ``since`` is copied from the report before while a condition's status is unchanged. No
decision depends on a report.

A report has ``unread`` (``{"since": INSTANT}``) until the files were read and the engine was asked: a missing
resource proves nothing before.

A resource, and each of its slots, has ``nextTry`` while it waits for an instant: ``{"at":
"2026-03-01T12:00:40Z", "reason": "failed 3 times in a row (it exited with 1)"}``. A resource shows
the earliest instant of its slots and failed actions. ``waitsFor`` has the keys of the resources that must change
before a planned action of the resource.

Adds failed runs to a status report, for a reader with permission to see container output.

A report itself has no output, because every user of the controller's socket can read the report.
``lastFailure`` is added to slots, and the last line of output to the condition about the failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from controller.core.drift.failures import last_line, run_json
from controller.core.encoding.text import quote_line
from controller.core.planning.context import SlotPause
from controller.core.review.flat_plan import blocked_json, problem_json
from controller.core.service.overrides import display_name
from controller.core.status.conditions import conditions_of
from controller.core.status.facts import (
    NO_TROUBLE,
    Facts,
    FactsMemo,
    Report,
    StatusInputs,
    all_facts,
    release_facts,
    split_projects,
)
from controller.model.container_output import FailedRun
from controller.model.desired.desired import Desired, Notification
from controller.model.desired.plan import Plan, Wait
from controller.model.names import Key
from controller.model.notifications import NoticeTarget
from controller.model.observed import Observed
from controller.model.quantities import format_instant


def notification_facts(desired: Desired) -> Iterator[Facts]:
    """Yield the facts of the Notifications, with the scope of the Git source that declares each."""
    scopes = {source.key.name: source.spec for source in desired.sources}
    for each in desired.notifications:
        origin = each.source.origin
        shown: Report = {
            "match": each.spec.match.model_dump(mode="json", exclude_none=True),
            "to": [*each.spec.to],
            "source": origin,
        }
        if origin:
            # A Source that isn't declared any more permits nothing.
            scope = scopes.get(origin)
            shown["namespaces"] = [] if scope is None else [*scope.namespaces]
            shown["owners"] = [] if scope is None else [*scope.owners]
        yield Facts(each.key, each.owner, desired=0, ready=0, details={"notification": shown})


def unsent(desired: Desired, targets: Iterable[NoticeTarget]) -> dict[Key, str]:
    """Return why a destination gets nothing of a Notification, by the Notification's key."""
    known = {target.name: target for target in targets}
    reasons = {each.key: _reason(each, known) for each in desired.notifications}
    return {key: reason for key, reason in reasons.items() if reason}


def _reason(notification: Notification, known: dict[str, NoticeTarget]) -> str:
    origin = notification.source.origin
    for name in notification.spec.to:
        if name not in known:
            have = f"they are {', '.join(known)}" if known else "there are none"
            return f"the settings have no destination {name}: {have} (write it to notify.destinations, or correct spec.to)"
        if origin and origin not in known[name].sources:
            return f"destination {name} doesn't list Source {origin} (write it to notify.destinations.{name}.sources, or correct spec.to)"
    return ""


def report(
    inputs: StatusInputs, *, previous: Report | None, now: str, memo: FactsMemo | None = None
) -> Report:
    """Return the report: every resource by key, and every problem.

    *previous* is the report before; *now* is the current instant as RFC 3339. *memo* has the facts
    of the report before.
    """
    before = _conditions_before(previous)
    resources = [
        _resource(facts, inputs, before, now) for facts in all_facts(inputs, memo or FactsMemo())
    ]
    ready = {str(r["key"]) for r in resources if _is_ready(r)}
    for release in inputs.desired.releases:
        facts = release_facts(release, ready)
        resources.append(_resource(facts, inputs, before, now))
    resources += [
        _resource(facts, inputs, before, now) for facts in notification_facts(inputs.desired)
    ]
    resources.sort(key=itemgetter("kind", "namespace", "name"))
    problems = dict.fromkeys((*inputs.problems, *inputs.desired.problems, *inputs.plan.problems))
    problems |= dict.fromkeys(split_projects(inputs.times, inputs.failed))
    sources: Report = {}
    if inputs.desired.scopes:
        # Imported only while a Source is declared, or was.
        from controller.core.status.sources import origins, source_problems, source_rows

        places = origins(inputs.desired)
        for resource in resources:
            if place := places.get(str(resource["key"])):
                resource["source"] = place
        sources = {"sources": source_rows(inputs.desired)}
        problems |= dict.fromkeys(source_problems(inputs.desired))
    for resource in resources:
        del resource["key"]
    return {
        "resources": resources,
        "problems": [
            *(blocked_json(blocked) for blocked in inputs.plan.blocked),
            *(problem_json(problem) for problem in problems),
        ],
        **sources,
        **({"unread": {"since": inputs.unread_since}} if inputs.unread_since else {}),
    }


def rows_of(report: Report) -> list[Report]:
    """Return the rows of a report."""
    rows = report["resources"]
    assert isinstance(rows, list), "a report's resources are a list"
    return rows


def _is_ready(resource: Report) -> bool:
    conditions = resource["conditions"]
    assert isinstance(conditions, list), "a resource's conditions are a list"
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _resource(
    facts: Facts, inputs: StatusInputs, before: Mapping[tuple[str, str], Report], now: str
) -> Report:
    key = facts.key
    generation, observed_generation = inputs.generations.get(key, (0, 0))
    conditions = []
    for condition in conditions_of(facts, inputs):
        was = before.get((str(key), condition.type))
        same = was is not None and was.get("status") == condition.status
        conditions.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "since": was["since"] if was is not None and same else now,
            }
        )
    return {
        "key": str(key),
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "owner": facts.owner,
        "desired": facts.desired,
        "ready": facts.ready,
        "revision": facts.revision,
        "image": facts.image,
        "digest": _digest(facts, inputs.observed),
        "generation": generation,
        "observedGeneration": observed_generation,
        **({"earlier": facts.earlier} if facts.earlier else {}),
        **({"rollout": facts.rollout} if facts.rollout else {}),
        **({"revisionSince": inputs.times[key].in_force} if key in inputs.times else {}),
        **facts.details,
        "conditions": conditions,
        **_next_try(_pauses(facts, inputs)),
        **({"waitsFor": waits} if (waits := _waits_for(key, inputs.plan)) else {}),
        "slots": [_recalled(row, key, inputs) for row in facts.slots],
    }


def _waits_for(key: Key, plan: Plan) -> list[str]:
    waits = (action for action in plan.of(key) if isinstance(action, Wait))
    return sorted({str(other) for wait in waits for other in wait.on})


def _pauses(facts: Facts, inputs: StatusInputs) -> Iterator[SlotPause]:
    """Yield the pauses of a resource: those of its slots, and the retry of a failed action."""
    troubles = inputs.troubles_of(facts.key)
    for row in facts.slots if troubles else ():
        pause = troubles.get(int(str(row["slot"])), NO_TROUBLE).pause
        if pause is not None:
            yield pause
    failure = inputs.failures.get(facts.key)
    if failure is not None and failure.retry_at is not None:
        yield SlotPause(f"{failure.code}: {failure.message}", failure.retry_at)


def _next_try(pauses: Iterable[SlotPause]) -> Report:
    first = min(pauses, key=lambda pause: pause.until, default=None)
    if first is None:
        return {}
    return {"nextTry": {"at": format_instant(first.until), "reason": first.reason}}


def _recalled(row: Report, key: Key, inputs: StatusInputs) -> Report:
    """Return a slot's row with the cause of its last failure, unless the row has a current cause."""
    trouble = inputs.troubles.get((key, int(str(row["slot"]))), NO_TROUBLE)
    row = {"cause": trouble.cause, **row} if trouble.cause else row
    return row if trouble.pause is None else {**row, **_next_try([trouble.pause])}


def _digest(facts: Facts, observed: Observed | None) -> str:
    """Return the resolved image: a digest, or the id of a local image."""
    if observed is None:
        return ""
    image = observed.pins.get(facts.revision) or observed.images.get(facts.image)
    return "" if image is None else image.digest or image.id


def _conditions_before(previous: Report | None) -> dict[tuple[str, str], Report]:
    conditions: dict[tuple[str, str], Report] = {}
    resources = (previous or {}).get("resources")
    for resource in resources if isinstance(resources, list) else ():
        key = f"{resource['kind']}/{resource['namespace']}/{resource['name']}"
        for condition in resource["conditions"]:
            conditions[key, condition["type"]] = condition
    return conditions


LINE_MAX = 120
#: The output of a program that lacks a right.
_LACKS_RIGHTS = re.compile(r"operation not permitted|permission denied", re.IGNORECASE)
RIGHTS_REMEDY = "an image that starts as root needs spec.user or spec.security.capAdd"


def with_last_lines(report: Report, runs: Iterable[FailedRun]) -> Report:
    """Return a copy of a report with *runs* added to its resources."""
    by_key: dict[Key, list[FailedRun]] = {}
    for run in runs:
        by_key.setdefault(run.key, []).append(run)
    return {**report, "resources": [_explained(each, by_key) for each in rows_of(report)]}


def _explained(resource: dict[str, Any], by_key: Mapping[Key, list[FailedRun]]) -> dict[str, Any]:
    runs = by_key.get(Key(resource["kind"], resource["namespace"], resource["name"]))
    if not runs:
        return resource
    last = {run.slot: run for run in runs}
    return {
        **resource,
        "conditions": _with_line(resource, runs),
        "slots": [
            {**row, "lastFailure": run_json(last[row["slot"]])} if row["slot"] in last else row
            for row in resource["slots"]
        ],
    }


def _with_line(resource: dict[str, Any], runs: list[FailedRun]) -> list[dict[str, str]]:
    """Return the conditions, with the last line of a failed run at the end of the condition about
    it.
    """
    conditions: list[dict[str, str]] = resource["conditions"]
    true = {c["type"]: c for c in conditions if c["status"] == "True"}
    for name in ("CrashLoop", "Stalled", "RolledBack", "Degraded"):
        condition = true.get(name)
        if condition is None or not _is_about_failures(condition):
            continue
        # After a rollback, the failed revision is not the running one.
        of_it = [
            run
            for run in runs
            if (run.revision == resource["revision"]) is not (name == "RolledBack")
        ]
        if of_it:
            suffixed = {**condition, "message": f"{condition['message']}{_suffix(of_it[-1])}"}
            return [suffixed if c is condition else c for c in conditions]
    return conditions


def _is_about_failures(condition: Mapping[str, str]) -> bool:
    match condition:
        case {"type": "Stalled", "reason": reason}:
            return reason == "rollout.failed"
        case {"type": "Degraded", "message": message}:
            return "; " in message  # after the count of replicas, what failed
        case _:
            return True


def _suffix(run: FailedRun) -> str:
    hints = [RIGHTS_REMEDY] if any(_LACKS_RIGHTS.search(line.text) for line in run.lines) else []
    hint = f"({'; '.join([*hints, f'trimtab logs --previous {display_name(run.key)}'])})"
    if line := last_line(run):
        return f": {quote_line(line, limit=LINE_MAX)} {hint}"
    return f" {hint}"
