"""What became of an intent that nobody closed: decided by what the engine shows.

Pure. Each look gives a ``SettlementEvidence``; ``settled`` says what may be concluded from it. That
something took effect can be seen at once. That it didn't is only known when the engine can't be
at it any more, since it finishes requests whose client is gone: the route's deadline has passed,
and two looks saw the same. Where nothing can be seen, it stays unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from controller.core.encoding.json_members import (
    list_of,
    mapping_member,
)
from controller.core.engine_api.translate import settings
from controller.core.records.container_effects import updated_settings
from controller.core.records.inventory_json import settings_from_json, settings_to_json
from controller.model import names
from controller.model.inventory import ExecSession, OpenIntent
from controller.model.mutations import Mutation

_NEVER = "0001-01-01T00:00:00Z"


class ProofKind(StrEnum):
    """How recovery finds out whether a mutation took effect; the route table has one per route."""

    LABEL = "the label of the intent"  # the created object carries it
    ABSENCE = "it isn't there any more"
    STARTED = "another StartedAt than before"
    FINISHED = "another FinishedAt than before"
    FIELD = "the field that was to change"
    DIGEST = "the image that the reference means"
    NONE = "none"


class Settled(StrEnum):
    """How an intent is closed by recovery."""

    APPLIED = "applied"
    NOT_APPLIED = "not-applied"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SettlementEvidence:
    """What one look shows: whether it took effect, and what it looked like otherwise."""

    applied: bool
    seen: str  # equal texts: nothing moved between two looks
    result: dict[str, object] = field(default_factory=dict)


def settled(
    evidence: ProofKind,
    sighting: SettlementEvidence,
    earlier: SettlementEvidence | None,
    *,
    expired: bool,
) -> Settled | None:
    """Return how the intent may be closed now, or None while that can't be known.

    *expired* tells that the engine can't be at it any more.
    """
    if sighting.applied:
        return Settled.APPLIED
    if not expired:
        return None
    if evidence is ProofKind.NONE:
        return Settled.UNKNOWN
    return Settled.NOT_APPLIED if earlier == sighting else None


def look_at(evidence: ProofKind, intent: OpenIntent, identifier: str) -> str:
    """Return the path of the engine that shows the evidence, '' where there is none."""
    subject = str(intent.request.get("object", ""))
    kind = _kind(intent)
    if evidence is ProofKind.NONE:
        return ""
    if evidence is ProofKind.DIGEST or kind == "image":
        return f"/images/{quote(subject, safe='/:@')}/json"
    if kind == "volume":
        return f"/volumes/{quote(subject, safe='')}"
    if evidence is ProofKind.LABEL:
        filters = json.dumps({"label": [f"{names.INTENT}={identifier}"]}, separators=(",", ":"))
        path = "/networks?" if kind == "network" else "/containers/json?all=1&"
        return f"{path}filters={quote(filters, safe='')}"
    if kind == "network":
        return f"/networks/{quote(subject, safe='')}"
    return f"/containers/{quote(subject, safe='')}/json"


def sight(
    evidence: ProofKind, intent: OpenIntent, identifier: str, told: Any
) -> SettlementEvidence:
    """Return what a look shows; *told* is the engine's JSON, None for "no such object"."""
    if evidence is ProofKind.NONE:
        return SettlementEvidence(applied=False, seen="")
    if evidence is ProofKind.LABEL:
        return _labelled(intent, identifier, told)
    if evidence is ProofKind.ABSENCE:
        return SettlementEvidence(applied=told is None, seen=_status(told))
    if told is None:
        return SettlementEvidence(applied=False, seen="absent")
    if evidence is ProofKind.DIGEST:
        return _pulled(intent, told)
    if evidence is ProofKind.STARTED:
        return _after(intent, told, "StartedAt")
    if evidence is ProofKind.FINISHED:
        running = bool((told.get("State") or {}).get("Running"))
        finished = _after(intent, told, "FinishedAt")
        return SettlementEvidence(finished.applied and not running, finished.seen)
    return _FIELDS[_mutation(intent)](intent, told)


def age_s(intent: OpenIntent | ExecSession, now: float) -> float:
    """Return how long ago an intent was recorded, by the wall clock."""
    return now - _instant(intent.time)


def grace_s(intent: OpenIntent) -> float:
    """Return the grace that a stop or restart gave, which its deadline comes on top of."""
    value = _summary(intent).get("graceS", 0)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else 0.0


def _labelled(intent: OpenIntent, identifier: str, told: Any) -> SettlementEvidence:
    """Look for what carries the intent's label, under the name that was asked for.

    Labels can be copied, names can't be held twice: together they say that it is the one.
    """
    kind = _kind(intent)
    found = ([] if told is None else [told]) if kind == "volume" else list_of(told)
    name = str(intent.request.get("object", ""))
    ours = [
        each
        for each in found
        if (each.get("Labels") or {}).get(names.INTENT) == identifier and name in _names(each)
    ]
    if not ours:
        # A volume of that name that carries another intent's label was there before.
        return SettlementEvidence(applied=False, seen=f"{len(found)}")
    made = str(ours[0].get("Name" if kind == "volume" else "Id", ""))
    key = "container" if kind == "container" else "object"
    return SettlementEvidence(applied=True, seen=made, result={key: made})


def _names(listed: Mapping[str, Any]) -> set[str]:
    told = listed.get("Names") or [listed.get("Name")]
    return {str(name).removeprefix("/") for name in told}


def _pulled(intent: OpenIntent, told: Mapping[str, Any]) -> SettlementEvidence:
    # The ledger isn't told: that the engine has another image under the name since doesn't show
    # that it came from the registry. The next pull does.
    image = str(told.get("Id", ""))
    return SettlementEvidence(applied=image != _summary(intent).get("before"), seen=image)


def _after(intent: OpenIntent, told: Mapping[str, Any], member: str) -> SettlementEvidence:
    """Tell whether an instant is another one than before: the wall clock may have been set since.

    An intent of an earlier version didn't note it: there the instant must come after the intent.
    """
    at = str((told.get("State") or {}).get(member) or _NEVER)
    before = _summary(intent).get("before")
    if isinstance(before, str):
        return SettlementEvidence(applied=at != before, seen=at)
    return SettlementEvidence(applied=_instant(at) >= _instant(intent.time), seen=at)


def _status(told: Any) -> str:
    if told is None:
        return "absent"
    state = told.get("State") if isinstance(told, Mapping) else None
    return str(state.get("Status", "present")) if isinstance(state, Mapping) else "present"


def _paused(*, wanted: bool) -> Callable[[OpenIntent, Mapping[str, Any]], SettlementEvidence]:
    def check(_: OpenIntent, told: Mapping[str, Any]) -> SettlementEvidence:
        paused = bool((told.get("State") or {}).get("Paused"))
        return SettlementEvidence(applied=paused is wanted, seen=f"paused {paused}")

    return check


def _renamed(intent: OpenIntent, told: Mapping[str, Any]) -> SettlementEvidence:
    name = str(told.get("Name", "")).removeprefix("/")
    return SettlementEvidence(applied=name == _summary(intent).get("name"), seen=name)


def _updated(intent: OpenIntent, told: Mapping[str, Any]) -> SettlementEvidence:
    wanted = settings_to_json(settings_from_json(_summary(intent).get("settings") or {}))
    now = settings_to_json(settings(told))
    # What else is changed between the two isn't the update's matter.
    same = all(wanted[key] == now[key] for key in updated_settings(_summary(intent)))
    return SettlementEvidence(applied=same, seen=json.dumps(now, sort_keys=True))


def _joined(*, wanted: bool) -> Callable[[OpenIntent, Mapping[str, Any]], SettlementEvidence]:
    def check(intent: OpenIntent, told: Mapping[str, Any]) -> SettlementEvidence:
        networks = settings(told).networks
        joined = _summary(intent).get("network") in networks
        return SettlementEvidence(applied=joined is wanted, seen=" ".join(networks))

    return check


_FIELDS: dict[str, Callable[[OpenIntent, Mapping[str, Any]], SettlementEvidence]] = {
    Mutation.CONTAINER_PAUSE: _paused(wanted=True),
    Mutation.CONTAINER_UNPAUSE: _paused(wanted=False),
    Mutation.CONTAINER_RENAME: _renamed,
    Mutation.CONTAINER_UPDATE: _updated,
    Mutation.NETWORK_CONNECT: _joined(wanted=True),
    Mutation.NETWORK_DISCONNECT: _joined(wanted=False),
}


def _mutation(intent: OpenIntent) -> str:
    return str(intent.request.get("route", ""))


def _kind(intent: OpenIntent) -> str:
    mutation = _mutation(intent)
    if mutation in {Mutation.NETWORK_CONNECT, Mutation.NETWORK_DISCONNECT}:
        return "container"
    return mutation.partition(".")[0]


def _summary(intent: OpenIntent) -> Mapping[str, Any]:
    return mapping_member(intent.request, "summary")


_RFC3339 = re.compile(r"(.{19})(?:\.([0-9]+))?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII)


def _instant(text: str) -> float:
    """Return seconds since the epoch of an RFC 3339 time; nanoseconds are cut."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    fraction = (match[2] or "")[:6].ljust(6, "0")
    return datetime.fromisoformat(f"{match[1]}.{fraction}{match[3]}").timestamp()
