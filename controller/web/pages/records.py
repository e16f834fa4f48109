"""The journal's records as changes: actor, act, object, cause and outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.core.encoding.json_values import mapping_of
from controller.core.encoding.text import shorten
from controller.core.records.parts import (
    ActorPart,
    ClaimsPart,
    RequestPart,
    ResultPart,
    VerdictPart,
)
from controller.core.records.record import CLOSING
from controller.model.quantities import format_elapsed_ms

#: Who acts, in the words of the page.
ROLES: Final = {
    "operator": "operator",
    "client": "client",
    "controller": "trimtab",
    "broker": "the gate",
}
_ID_SHOWN: Final = 12
_SETTLED: Final = {"applied": "done, found later", "not-applied": "not done", "unknown": "unknown"}
_NOT_MODIFIED, _ERRORS = 304, 400


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A request with its closing record, or a single record."""

    seq: int
    id: str
    time: str
    role: str
    #: The role, and the uid where the reader may see it.
    who: str
    action: str
    object: str
    #: ``Service/NAMESPACE/NAME``; '' if the record concerns no service.
    key: str
    #: allow, mutate, deny, audit-deny, or ''.
    verdict: str
    rules: tuple[str, ...]
    outcome: str
    #: ``done``, ``failed``, ``refused``, ``open``, or '' for a record that is no change.
    result: str
    why: str
    #: ``FILE:LINE`` of the document behind the change, and its commit.
    file: str
    commit: str


def changes_of(lines: Iterable[Mapping[str, Any]]) -> list[RecordedChange]:
    """Return the changes in lines of the broker's journal, the newest first."""
    pairs: list[list[Mapping[str, Any]]] = []
    open_pairs: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        record = line["record"]
        if record["stage"] in CLOSING and record["id"] in open_pairs:
            open_pairs.pop(record["id"]).append(line)
            continue
        pairs.append([line])
        if record["stage"] == "intent":
            open_pairs[record["id"]] = pairs[-1]
    return [_change(pair[0], pair[-1]) for pair in reversed(pairs)]


def _change(first: Mapping[str, Any], last: Mapping[str, Any]) -> RecordedChange:
    record, about = first["record"], mapping_of(first.get("about"))
    actor = ActorPart.read(mapping_of(record.get("actor")))
    request = RequestPart.read(mapping_of(record.get("request")))
    verdict = VerdictPart.read(mapping_of(record.get("verdict")))
    claims = ClaimsPart.read(mapping_of(record.get("claims")))
    result = ResultPart.read(mapping_of(last["record"].get("result")))
    name = str(about.get("name") or about.get("id") or request.object)
    is_id = len(name) == 64 and set(name) <= set("0123456789abcdef")
    service = str(about.get("service", ""))
    outcome, kind = _outcome(last["record"], result, verdict)
    return RecordedChange(
        record["seq"],
        str(record["id"]),
        str(record["time"]),
        actor.role,
        _who(actor),
        str(about.get("action") or request.route or record["stage"]),
        name[:_ID_SHOWN] if is_id else name,
        f"Service/{about.get('namespace') or 'default'}/{service}" if service else "",
        verdict.decision,
        verdict.rules,
        outcome,
        kind,
        shorten(result.error or verdict.reason or claims.cause),
        f"{claims.source.file}:{claims.source.line()}" if claims.source.file else "",
        claims.source.commit,
    )


def _who(actor: ActorPart) -> str:
    name = ROLES.get(actor.role, actor.role) or "nobody"
    if actor.uid is None or actor.role not in {"operator", "client"}:
        return name
    return f"{name} (uid {actor.uid})"


def _outcome(
    record: Mapping[str, Any], result: ResultPart, verdict: VerdictPart
) -> tuple[str, str]:
    stage = record["stage"]
    if stage == "intent":
        return "open", "open"
    if stage == "refusal":
        return f"refused: {verdict.rules[0]}" if verdict.rules else "refused", "refused"
    if stage == "violation":
        return "ended: it ran with more than admitted", "failed"
    if result.settled:
        return _SETTLED.get(result.settled, result.settled), "done"
    if result.status is None:
        return "", ""
    if result.status == _NOT_MODIFIED:
        return "unchanged", "done"
    took = "" if result.duration_ms is None else f" in {format_elapsed_ms(result.duration_ms)}"
    if result.status >= _ERRORS:
        return f"failed with {result.status}{took}", "failed"
    return f"done{took}", "done"


def facts_of(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every value of a record's part with its path, in the order of the record."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from facts_of(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        if value and not any(isinstance(item, Mapping | list) for item in value):
            yield path, shorten(", ".join(map(str, value)))
        else:
            for at, item in enumerate(value):
                yield from facts_of(item, f"{path}[{at}]")
    elif value not in (None, ""):
        yield path, shorten(str(value))
