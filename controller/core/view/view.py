"""The view: one JSON value about everything, in versions, of which a reader takes what changed.

Pure. docs/view.md describes the value. A version is ``RUN-NUMBER``: a run is one life of the controller, and
numbers rise within it. A reader with an unknown version gets everything.

Values that can be secret are left out: variables, arguments, commands of checks, labels of containers.

A view is made of the scoped facts, so versions, waits, counts and the state tell of nothing else. Sources and the
verification of the journal are about everybody's documents and records, and left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Final

from controller.core.drift.actions import is_denied
from controller.core.engine_api.comparable_fields import SETTINGS, UNSET, Setting
from controller.core.manifests.job_checks import needs_of
from controller.core.review.field_changes import written_fields
from controller.core.review.flat_plan import blocked_json, problem_json
from controller.core.review.performed_actions import PerformedAction
from controller.core.review.progress import acts_json
from controller.core.status.facts import Report
from controller.core.status.report import rows_of
from controller.core.view.attention import attended, state_of
from controller.model.desired.desired import Desired, OverrideReason, Service, SourceLocation
from controller.model.desired.plan import AnyAction, Plan, Wait
from controller.model.errors import UNREACHABLE_CODES, Problem, Severity
from controller.model.names import Key
from controller.model.observed import Container, Observed, Settings
from controller.model.records import ViewerScope

#: The settings that a document can have.
_IN_DOCUMENTS: Final = tuple(each for each in SETTINGS if each.path.startswith("spec."))
#: The line of the policy with the value of an unset limit.
_OF_POLICY: Final[Mapping[str, str]] = {
    f"spec.resources.{limit}": f"resources.{limit}.default" for limit in ("memory", "cpus", "pids")
}


def fields_of(
    service: Service, containers: Iterable[Container], scaled: OverrideReason | None = None
) -> list[Report]:
    """Return the fields of a service by path: ``field``, ``desired``, ``running``, ``admitted``, ``origin``.

    ``desired`` is None for an unset field, and for a value that isn't shown: then ``hidden`` is True.
    ``running`` and ``admitted`` are None where the engine's value isn't compared. Both name every value
    if containers differ. *scaled* says why the replicas aren't those of the document.
    """
    current = [each for each in containers if each.revision == service.revision]
    written = {change.path: change for change in written_fields(service.spec)}
    settings = {setting.path: setting for setting in _IN_DOCUMENTS}
    shown = [path for path in settings if path in written or _is_set(settings[path], current)]
    return [
        {
            "field": path,
            "desired": written[path].new if path in written else None,
            **({"hidden": True} if path in written and written[path].sensitive else {}),
            "running": _running(path, settings.get(path), current),
            "admitted": _admitted(settings.get(path), current),
            "origin": {"from": "operator", "reason": scaled.reason}
            if scaled is not None and path == "spec.replicas"
            else _origin(path, service.source, is_written=path in written),
        }
        for path in sorted({*written, *shown})
    ]


def _is_set(setting: Setting, containers: Iterable[Container]) -> bool:
    return any(
        getattr(each, setting.name) != UNSET.get(setting.name)
        for container in containers
        for each in (container.settings, container.admitted)
        if each is not None
    )


def _running(path: str, setting: Setting | None, containers: Iterable[Container]) -> str | None:
    if path == "spec.image":
        return _texts(each.image for each in containers)
    if setting is None:
        return None
    return _texts(_value(setting, each.settings) for each in containers)


def _admitted(setting: Setting | None, containers: Iterable[Container]) -> str | None:
    if setting is None:
        return None
    return _texts(_value(setting, each.admitted) for each in containers if each.admitted)


def _value(setting: Setting, settings: Settings) -> str:
    return setting.show(getattr(settings, setting.name))


def _texts(values: Iterable[str]) -> str | None:
    """Return the distinct values in one text; None without any."""
    return " / ".join(dict.fromkeys(values)) or None


def _origin(path: str, source: SourceLocation, *, is_written: bool) -> Report:
    """Return the origin of a value: ``document`` with a place, ``policy`` with a rule, or ``default``."""
    if is_written:
        line = next(_lines(path.removeprefix("spec."), source), source.line)
        return {"from": "document", **place_of(source), "line": line}
    rule = _OF_POLICY.get(path)
    return {"from": "policy", "rule": rule} if rule else {"from": "default"}


def _lines(path: str, source: SourceLocation) -> Iterator[int]:
    """Yield the line of a field, then those of the fields around it."""
    lines = dict(source.lines)
    while path:
        if path in lines:
            yield lines[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]


def place_of(source: SourceLocation) -> Report:
    """Return the member ``declared``: the place of a document."""
    return {
        "file": source.file,
        "line": source.line,
        "commit": source.commit,
        "source": source.origin,
    }


FORMAT: Final = 1
#: The acts of a view, the newest ones.
ACTS_MAX: Final = 100
#: The pending actions of a view.
PLAN_MAX: Final = 1000
#: The removed resources that a view remembers. A reader with an older version gets everything.
GONE_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class ViewInputs:
    """The facts of a view: a status report, and the values that it was made of."""

    #: In the shape of ``status --json``, with attended rows (``core.view.attention``).
    report: Report
    desired: Desired = field(default_factory=Desired)
    #: None if the engine is unreachable or was not observed yet.
    observed: Observed | None = None
    plan: Plan = field(default_factory=Plan)
    acts: tuple[PerformedAction, ...] = ()
    #: The member ``revisions`` of each service.
    revisions: Mapping[Key, object] = field(default_factory=dict)
    #: The member ``host``.
    host: Report = field(default_factory=dict)
    #: The content of ``verified.json``; None without one.
    verified: object = None
    #: The instant of the report, as RFC 3339.
    at: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """One version of the view."""

    run: str
    number: int
    #: The members that each answer has in full.
    head: Report
    #: The rows by key, in order.
    rows: Mapping[str, Report]
    #: The number of the version in which each row changed last.
    changed: Mapping[str, int]
    #: Removed rows by key: the number of the version without it, and the owner.
    gone: Mapping[str, tuple[int, str]]
    #: The version from which on every removal is remembered.
    since: int = 1

    @property
    def version(self) -> str:
        return f"{self.run}-{self.number}"


class FieldsMemo:
    """The fields of the services in the last view: a view after one change works out those of one service."""

    def __init__(self) -> None:
        self._known: dict[Key, tuple[object, list[Report]]] = {}

    def fields_of(
        self, desired: Desired, observed: Observed | None
    ) -> Iterator[tuple[Key, list[Report]]]:
        """Yield the fields of all services."""
        before, self._known = self._known, {}
        scaled = {hold.key: hold for hold in desired.holds if hold.word == "scaled"}
        for service in desired.services:
            containers: tuple[Container, ...] = () if observed is None else observed.of(service.key)
            given = (service, containers, scaled.get(service.key))
            known = before.get(service.key)
            if known is None or known[0] != given:
                known = (given, fields_of(*given))
            self._known[service.key] = known
            yield service.key, known[1]


def next_view(previous: View | None, inputs: ViewInputs, memo: FieldsMemo, *, run: str) -> View:
    """Return the version after *previous*; the same number if nothing changed but the instant."""
    rows = _rows(inputs, memo)
    head = _head(inputs)
    if previous is None or previous.run != run:
        return View(run, 1, head, rows, dict.fromkeys(rows, 1), {})
    number = previous.number + 1
    changed = {
        key: previous.changed[key] if previous.rows.get(key) == row else number
        for key, row in rows.items()
    }
    left = {
        key: (number, str(row["owner"]))
        for key, row in previous.rows.items()
        if key not in rows or rows[key]["owner"] != row["owner"]
    }
    is_same = number not in changed.values() and not left
    if is_same and {**head, "at": ""} == {**previous.head, "at": ""}:
        number = previous.number
    gone, since = _remembered({**previous.gone, **left}, previous.since)
    return View(run, number, head, rows, changed, gone, since)


def _remembered(
    gone: Mapping[str, tuple[int, str]], since: int
) -> tuple[Mapping[str, tuple[int, str]], int]:
    surplus = len(gone) - GONE_MAX
    if surplus <= 0:
        return gone, since
    oldest = sorted(gone.items(), key=lambda item: item[1][0])
    return dict(oldest[surplus:]), oldest[surplus - 1][1][0]


def answer(view: View, have: str) -> dict[str, object]:
    """Return what a reader with the version *have* lacks: the changed rows, or all of them.

    ``gone`` is applied first: a key in both was made anew.
    """
    run, _, number = have.rpartition("-")
    is_known = run == view.run and number.isdecimal() and view.since <= int(number) <= view.number
    after = int(number) if is_known else 0
    return {
        "format": FORMAT,
        "version": view.version,
        "full": not is_known,
        **view.head,
        "resources": [row for key, row in view.rows.items() if view.changed[key] > after],
        "gone": [key for key, (left, _) in view.gone.items() if is_known and left > after],
    }


def merged(older: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the full view of two answers in a row, the newer one about what changed since the older."""
    if newer["full"]:
        return {**newer}
    rows = {key_of(row): row for row in older["resources"] if key_of(row) not in newer["gone"]}
    rows |= {key_of(row): row for row in newer["resources"]}
    ordered = [rows[key] for key in sorted(rows, key=Key.parse)]
    return {**newer, "full": True, "resources": ordered, "gone": []}


def key_of(row: Mapping[str, Any]) -> str:
    """Return the key of a row: ``KIND/NAMESPACE/NAME``."""
    return f"{row['kind']}/{row['namespace']}/{row['name']}"


def _rows(inputs: ViewInputs, memo: FieldsMemo) -> dict[str, Report]:
    places = _places(inputs.desired)
    fields = dict(memo.fields_of(inputs.desired, inputs.observed))
    rows: dict[str, Report] = {}
    for row in rows_of(inputs.report):
        key = Key.parse(key_of(row))
        source = places.get(key)
        rows[str(key)] = {
            **row,
            "declared": None if source is None else place_of(source),
            **({"fields": fields[key]} if key in fields else {}),
            **({"revisions": inputs.revisions[key]} if key in inputs.revisions else {}),
        }
    return rows


def _places(desired: Desired) -> dict[Key, SourceLocation]:
    places = {each.key: each.source for each in desired.workloads}
    places |= {each.key: each.source for each in desired.networks}
    places |= {each.key: each.source for each in desired.volumes}
    places |= {each.key: each.source for each in desired.configs}
    places |= {each.key: each.source for each in desired.secrets}
    places |= {each.key: each.source for each in desired.releases}
    places |= {each.key: each.source for each in desired.notifications}
    return places


def _head(inputs: ViewInputs) -> Report:
    report = inputs.report
    return {
        "at": inputs.at,
        "host": inputs.host,
        "state": state_of(report),
        "problems": report["problems"],
        "sources": report.get("sources", []),
        **({"unread": report["unread"]} if "unread" in report else {}),
        "acts": _acts(inputs.acts[-ACTS_MAX:]),
        "plan": [_pending(action) for action in inputs.plan.actions[:PLAN_MAX]],
        "verified": inputs.verified,
    }


def _acts(acts: Iterable[PerformedAction]) -> list[Report]:
    """Return performed actions, the newest last."""
    return [
        {
            "at": act["time"],
            "key": act["object"],
            "verb": act["action"],
            "target": act["target"],
            "cause": act["cause"],
            "text": act["text"],
            "outcome": "failed" if "error" in act else "done",
            **({"error": act["error"]} if "error" in act else {}),
        }
        for act in acts_json(acts, since=0)
    ]


def _pending(action: AnyAction) -> Report:
    return {
        "key": str(action.object),
        "verb": action.verb,
        "target": action.target,
        "cause": action.cause,
        "text": f"{action.verb} {action.target}: {action.cause}",
        **({"denied": list(action.verdict.rules)} if is_denied(action) else {}),
    }


#: The problem that viewers of some owners read: the message of an observation can name others' resources.
_UNREACHABLE: Final = Problem(
    "engine.unavailable",
    "the engine can't be reached",
    remedy="ask who runs this host; running containers are not affected",
    severity=Severity.WARNING,
)
BLANK: Final = "…"
#: In place of a cause that tells of another owner's resource.
OTHERS: Final = "because of a resource of another owner"
_WORD: Final = re.compile(r"\w(?:[\w./-]*[\w/-])?")


def scoped(inputs: ViewInputs, scope: ViewerScope) -> ViewInputs:
    """Return the facts about the resources of a scope's owners. A resource without an owner is nobody's."""
    owns = {Key.parse(key_of(row)): scope.has(str(row["owner"])) for row in rows_of(inputs.report)}
    keys = {key for key, is_own in owns.items() if is_own}
    hide = _hiding(inputs, keys, owns.keys() - keys)
    rows = [
        _row_without_others(row, keys, hide)
        for row in rows_of(inputs.report)
        if scope.has(str(row["owner"]))
    ]

    def hidden(action: AnyAction) -> AnyAction:
        return replace(action, cause=hide(action.object, action.cause))

    desired, plan = inputs.desired, inputs.plan
    own = [problem_json(each) for each in (*desired.problems, *plan.problems) if each.key in keys]
    own += [blocked_json(each) for each in plan.blocked if each.key in keys]
    problems: Any = inputs.report["problems"]
    shown = [each for each in problems if each in own]
    if any(each["code"] in UNREACHABLE_CODES for each in problems):
        shown.append(problem_json(_UNREACHABLE))
    report: Report = {"resources": rows, "problems": shown}
    if "unread" in inputs.report:
        report["unread"] = inputs.report["unread"]
    return replace(
        inputs,
        report=report,
        desired=replace(
            desired, services=tuple(each for each in desired.services if each.key in keys)
        ),
        plan=replace(
            plan,
            actions=tuple(hidden(each) for each in plan.actions if each.object in keys),
        ),
        acts=tuple(
            replace(act, action=hidden(act.action))
            for act in inputs.acts
            if act.action.object in keys
        ),
    )


def _hiding(
    inputs: ViewInputs, own: AbstractSet[Key], others: AbstractSet[Key]
) -> Callable[[Key, str], str]:
    """Return a function that hides a text about an own resource if the text tells of another owner's.

    The cause of a wait says how the other resource stands. It repeats the cause of an own resource that waits in turn.
    """
    waits = [each for each in inputs.plan.actions if isinstance(each, Wait) and each.object in own]
    awaited = {*others}
    while more := {each.object for each in waits if not awaited.isdisjoint(each.on)} - awaited:
        awaited |= more
    causes = defaultdict[Key, set[str]](set)
    for wait in waits:
        if not awaited.isdisjoint(wait.on):
            causes[wait.object].add(wait.cause)
    names = {
        (each.key, key.name)
        for each in inputs.desired.workloads
        for key in needs_of(each.key, each.spec)
        if each.key in own and key in others
    }

    def hide(key: Key, text: str) -> str:
        told = any(cause in text for cause in causes.get(key, ()))
        told = told or any((key, word) in names for word in _WORD.findall(text))
        return OTHERS if told else text

    return hide


def _row_without_others(
    row: Report, own: AbstractSet[Key], hide: Callable[[Key, str], str]
) -> Report:
    key = Key.parse(key_of(row))
    conditions: Any = row["conditions"]
    waits: Any = row.get("waitsFor", [])
    return attended(
        {
            **{name: value for name, value in row.items() if name != "waitsFor"},
            "conditions": [{**each, "message": hide(key, each["message"])} for each in conditions],
            **({"waitsFor": kept} if (kept := [x for x in waits if Key.parse(x) in own]) else {}),
        }
    )


def hidden_names(inputs: ViewInputs, scope: ViewerScope) -> frozenset[str]:
    """Return the keys and containers of the other owners' resources, as messages write them.

    A message about an own resource can name the resource that it waits for, or that has its port.
    """
    rows = rows_of(inputs.report)
    shown = {name for row in rows if scope.has(str(row["owner"])) for name in _names(row)}
    return frozenset(name for row in rows for name in _names(row)) - shown


def blanked(value: Any, hidden: frozenset[str]) -> Any:
    """Return a JSON value without hidden names in its texts."""
    return with_texts(
        value, lambda text: _WORD.sub(lambda word: BLANK if word[0] in hidden else word[0], text)
    )


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with changed texts."""
    match value:
        case str():
            return change(value)
        case dict():
            return {name: with_texts(member, change) for name, member in value.items()}
        case list():
            return [with_texts(member, change) for member in value]
        case _:
            return value


def _names(row: Report) -> Iterator[str]:
    """Yield ``KIND/NAMESPACE/NAME``, ``NAMESPACE/NAME`` and the names of containers."""
    yield (key := key_of(row))
    yield key.partition("/")[2]
    slots: Any = row["slots"]
    yield from (str(slot["container"]) for slot in slots if "container" in slot)
