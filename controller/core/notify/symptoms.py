"""What a view shows to be wrong, by causes: the one place that reads a view's JSON.

A view is read leniently: a member of another form counts as absent. Texts are ours and never the output of
containers; they are cut to ``TEXT_MAX`` characters and escaped for one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from controller.core.encoding.text import printable, shorten
from controller.core.status.standing import Word, word_of_source
from controller.model.errors import UNREACHABLE_CODES
from controller.model.notifications import (
    Affected,
    Gravity,
    NoticeMatch,
    NoticeRoute,
    Symptom,
    ViewSymptoms,
)

TEXT_MAX: Final = 300
ENGINE: Final = "engine"
DISK: Final = "disk"
FILES: Final = "files"
#: Reasons that say nothing about a resource: nobody could look.
_UNKNOWN: Final = frozenset({"NotSeen", "EngineUnavailable"})
#: Codes of failures by the engine's or the host's fault, and not by the resource's.
_ENGINE_CODES: Final = ("EngineUnavailable", *UNREACHABLE_CODES)
_DISK_CODES: Final = ("image.disk",)
_REGISTRY_CODES: Final = ("image.registry", "image.rate-limited")
#: The reason of a resource whose document can't be read.
_BLIND: Final = "Blind"
_FILES_TITLE: Final = "documents have errors"
_WORDS: Final[Mapping[str, Gravity]] = {"warning": "warning", "page": "page"}


def symptoms_of(view: Mapping[str, Any], now: float) -> ViewSymptoms:
    """Return what a whole view shows at *now*. Never raises for a view's content."""
    host = _mapping(view.get("host"))
    rows = [_mapping(each) for each in _list(view.get("resources"))]
    found = [*_of_problems(view, now), *_of_sources(view, now)]
    unknown = set()
    for row in rows:
        if (reason := _condition(row, "Ready").get("reason")) in _UNKNOWN:
            unknown.add(_affected(row).key)
        if reason == "EngineUnavailable":
            found.append(_engine(_since(_condition(row, "Ready"), now), _affected(row)))
        elif reason not in _UNKNOWN:
            found += _of_row(row, now)
    state = _mapping(view.get("state"))
    return ViewSymptoms(
        tuple(_joined(found)),
        tuple(route for row in rows if (route := _route(row)) is not None),
        frozenset(unknown),
        # Right after its start a controller knows nothing: no incident is over.
        is_known=not any(_condition(row, "Ready").get("reason") == "NotSeen" for row in rows),
        host=_text(host.get("name")),
        summary=_text(state.get("text")),
    )


def _of_row(row: Mapping[str, Any], now: float) -> Iterator[Symptom]:
    gravity = _WORDS.get(str(row.get("severity")))
    if gravity is None:
        return
    worst = _condition(row, str(row.get("worst")))
    affected = replace(_affected(row), condition=str(worst.get("type", "")))
    reason, since = str(worst.get("reason", "")), _since(worst, now)
    words = [_text(worst.get("message")) or reason, _text(row.get("next"))]
    text = shorten("; ".join(word for word in words if word), TEXT_MAX)
    if reason in _ENGINE_CODES:
        yield _engine(since, affected)
    elif reason == _BLIND:
        yield Symptom(FILES, gravity, _FILES_TITLE, text, since, affected)
    elif reason in _DISK_CODES:
        yield Symptom(DISK, gravity, "the disk is full", text, since, affected)
    elif reason in _REGISTRY_CODES:
        registry = _registry(str(row.get("image", "")))
        title = f"registry {registry} gives no image"
        yield Symptom(f"registry {registry}", gravity, title, text, since, affected)
    else:
        name = f"{affected.namespace}/{affected.name}"
        title = _text(f"{affected.kind} {name}: {affected.condition or reason}")
        yield Symptom(f"{affected.key} {affected.condition}", gravity, title, text, since, affected)


def _engine(since: float, affected: Affected | None) -> Symptom:
    text = "trimtab can't reach the engine, and looks after nothing until it answers"
    return Symptom(ENGINE, "page", "the engine doesn't answer", text, since, affected)


def _of_problems(view: Mapping[str, Any], now: float) -> Iterator[Symptom]:
    """Yield the problems that aren't told by the row of a resource."""
    rows = (_mapping(row) for row in _list(view.get("resources")))
    conditions = (_mapping(each) for row in rows for each in _list(row.get("conditions")))
    told = [str(each.get("message", "")) for each in conditions]
    for each in map(_mapping, _list(view.get("problems"))):
        code, message = str(each.get("code", "")), str(each.get("message", ""))
        is_told = bool(message) and any(text.startswith(message) for text in told)
        if code in _ENGINE_CODES:
            yield _engine(now, None)
        elif each.get("severity") == "error" and not is_told:
            place = f"{each.get('file', '')}:{each.get('line', '')}".strip(":")
            words = (place, message)
            text = _text(": ".join(word for word in words if word))
            yield Symptom(FILES, "warning", _FILES_TITLE, text, now)


def _of_sources(view: Mapping[str, Any], now: float) -> Iterator[Symptom]:
    for each in map(_mapping, _list(view.get("sources"))):
        if "state" not in each or word_of_source(each) is not Word.FAILED:
            continue
        state, name = _text(each.get("state")), _text(each.get("name"))
        text = _text(each.get("message")) or _text(each.get("reason"))
        affected = Affected("Source", "default", name, condition=state)
        title = f"Source {name}: {state}"
        yield Symptom(f"source {name}", "warning", title, text, _since(each, now), affected)


def _joined(found: list[Symptom]) -> list[Symptom]:
    """Return the symptoms, with one text for all errors of documents."""
    errors = [each for each in found if each.cause == FILES and each.affected is None]
    if not errors:
        return found
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    text = f"{shorten(errors[0].text, TEXT_MAX - len(more))}{more}"
    return [replace(each, text=text) if each.cause == FILES else each for each in found]


def _route(row: Mapping[str, Any]) -> NoticeRoute | None:
    """Return the Notification of a row; None for rows of other kinds."""
    declared = _mapping(row.get("notification"))
    if row.get("kind") != "Notification" or not declared:
        return None
    match = _mapping(declared.get("match"))
    return NoticeRoute(
        NoticeMatch(
            namespace=str(match.get("namespace", "")),
            kind=str(match.get("kind", "")),
            name=str(match.get("name", "*")),
            condition=str(match.get("condition", "")),
            severity=_WORDS.get(str(match.get("severity")), "warning"),
        ),
        tuple(map(str, _list(declared.get("to")))),
        str(declared.get("source", "")),
        _names(declared.get("namespaces")),
        _names(declared.get("owners")),
    )


def _names(value: object) -> frozenset[str] | None:
    return frozenset(map(str, value)) if isinstance(value, list) else None


def _affected(row: Mapping[str, Any]) -> Affected:
    names = (_text(row.get(member)) for member in ("kind", "namespace", "name", "owner"))
    return Affected(*names)


def _condition(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    conditions = (_mapping(each) for each in _list(row.get("conditions")))
    return next((each for each in conditions if each.get("type") == name), {})


def _since(value: Mapping[str, Any], now: float) -> float:
    """Return the instant of the member ``since``, at most *now*."""
    try:
        return min(now, datetime.fromisoformat(str(value.get("since"))).timestamp())
    except (ValueError, OverflowError):
        return now


def _registry(image: str) -> str:
    """Return the registry of an image's reference."""
    first, slash, _ = image.partition("/")
    return _text(first) if slash and ("." in first or ":" in first) else "docker.io"


def _text(value: object) -> str:
    return shorten(printable(value), TEXT_MAX) if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
