"""The settlement of open intents: whether a mutation took effect, by the engine's state.

Pure. Each look at the engine gives a ``SettlementEvidence``, from which ``conclude`` decides. An
effect is visible at once. The absence of an effect is certain only when the engine cannot be
working on the request any more, because the engine finishes requests of disconnected clients. So
the route's deadline must have passed, and two looks must have shown the same state. If nothing is
visible, the outcome stays unknown.
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

from controller.core.encoding.json_values import list_of
from controller.core.engine_api.translate import ZERO_TIME, settings
from controller.core.records import parts
from controller.core.records.container_effects import updated_settings
from controller.core.records.inventory_json import settings_to_json
from controller.model import names
from controller.model.inventory import ExecSession, OpenIntent
from controller.model.mutations import Mutation, object_kind


class ProofKind(StrEnum):
    """How recovery finds out whether a mutation took effect; each route has one."""

    LABEL = "the label of the intent"  # the created object carries it
    ABSENCE = "it isn't there any more"
    STARTED = "another StartedAt than before"
    FINISHED = "another FinishedAt than before"
    FIELD = "the field that was to change"
    DIGEST = "the image that the reference means"
    NONE = "none"


class Settled(StrEnum):
    """How recovery closes an intent."""

    APPLIED = "applied"
    NOT_APPLIED = "not-applied"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SettlementEvidence:
    """The result of a look at the engine."""

    applied: bool
    state: str  # the state of the object; equal after two looks if nothing changed in between
    result: parts.ResultPart = field(default_factory=parts.ResultPart)


def conclude(
    kind: ProofKind,
    evidence: SettlementEvidence,
    earlier: SettlementEvidence | None,
    *,
    expired: bool,
) -> Settled | None:
    """Return how to close the intent, or None while the outcome is uncertain.

    *expired* is True once the engine cannot be working on the request any more.
    """
    if evidence.applied:
        return Settled.APPLIED
    if not expired:
        return None
    if kind is ProofKind.NONE:
        return Settled.UNKNOWN
    return Settled.NOT_APPLIED if earlier == evidence else None


def evidence_path(proof: ProofKind, intent: OpenIntent, identifier: str) -> str:
    """Return the engine's path to the evidence, '' if there is none."""
    subject = parts.RequestPart.read(intent.request).object
    kind = object_kind(_mutation(intent))
    if proof is ProofKind.NONE:
        return ""
    if proof is ProofKind.DIGEST or kind == "image":
        return f"/images/{quote(subject, safe='/:@')}/json"
    if kind == "volume":
        return f"/volumes/{quote(subject, safe='')}"
    if proof is ProofKind.LABEL:
        filters = json.dumps({"label": [f"{names.INTENT}={identifier}"]}, separators=(",", ":"))
        path = "/networks?" if kind == "network" else "/containers/json?all=1&"
        return f"{path}filters={quote(filters, safe='')}"
    if kind == "network":
        return f"/networks/{quote(subject, safe='')}"
    return f"/containers/{quote(subject, safe='')}/json"


def evidence_of(
    proof: ProofKind, intent: OpenIntent, identifier: str, answer: Any
) -> SettlementEvidence:
    """Return the evidence in the engine's *answer*: parsed JSON, or None for "no such object"."""
    if proof is ProofKind.NONE:
        return SettlementEvidence(applied=False, state="")
    if proof is ProofKind.LABEL:
        return _labelled_object(intent, identifier, answer)
    if proof is ProofKind.ABSENCE:
        return SettlementEvidence(applied=answer is None, state=_status(answer))
    if answer is None:
        return SettlementEvidence(applied=False, state="absent")
    if proof is ProofKind.DIGEST:
        return _pulled_image(intent, answer)
    if proof is ProofKind.STARTED:
        return _timestamp_change(intent, answer, "StartedAt")
    if proof is ProofKind.FINISHED:
        running = bool((answer.get("State") or {}).get("Running"))
        finished = _timestamp_change(intent, answer, "FinishedAt")
        return SettlementEvidence(finished.applied and not running, finished.state)
    return _FIELDS[_mutation(intent)](intent, answer)


def age_s(intent: OpenIntent | ExecSession, now: float) -> float:
    """Return the age of an intent, by the wall clock."""
    return now - _epoch_s(intent.time)


def grace_s(intent: OpenIntent) -> float:
    """Return the grace period of a stop or restart, which extends the route's deadline."""
    return float(_summary(intent).part(parts.StopPart).grace_s or 0)


def _labelled_object(intent: OpenIntent, identifier: str, answer: Any) -> SettlementEvidence:
    """Find the object with the intent's label and the requested name.

    Anybody can copy a label, but only one object has a name: together they identify the object.
    """
    kind = object_kind(_mutation(intent))
    listed = ([] if answer is None else [answer]) if kind == "volume" else list_of(answer)
    name = parts.RequestPart.read(intent.request).object
    ours = [
        each
        for each in listed
        if (each.get("Labels") or {}).get(names.INTENT) == identifier and name in _names(each)
    ]
    if not ours:
        # A volume with this name and another intent's label existed before.
        return SettlementEvidence(applied=False, state=f"{len(listed)}")
    created = str(ours[0].get("Name" if kind == "volume" else "Id", ""))
    is_container = kind == "container"
    result = (
        parts.ResultPart(container=created) if is_container else parts.ResultPart(object=created)
    )
    return SettlementEvidence(applied=True, state=created, result=result)


def _names(inspect: Mapping[str, Any]) -> set[str]:
    listed = inspect.get("Names") or [inspect.get("Name")]
    return {str(name).removeprefix("/") for name in listed}


def _pulled_image(intent: OpenIntent, inspect: Mapping[str, Any]) -> SettlementEvidence:
    # No result, so no ledger entry: another image under the name does not prove that the image came
    # from the registry. The next pull proves it.
    image = str(inspect.get("Id", ""))
    return SettlementEvidence(applied=image != _summary(intent).before, state=image)


def _timestamp_change(
    intent: OpenIntent, inspect: Mapping[str, Any], member: str
) -> SettlementEvidence:
    """Compare a timestamp with its value before the mutation, since the clock may have been set."""
    at = str((inspect.get("State") or {}).get(member) or ZERO_TIME)
    before = _summary(intent).before
    return SettlementEvidence(applied=before is not None and at != before, state=at)


def _status(inspect: Any) -> str:
    if inspect is None:
        return "absent"
    state = inspect.get("State") if isinstance(inspect, Mapping) else None
    return str(state.get("Status", "present")) if isinstance(state, Mapping) else "present"


def _pause_evidence(
    *, wanted: bool
) -> Callable[[OpenIntent, Mapping[str, Any]], SettlementEvidence]:
    def check(_: OpenIntent, inspect: Mapping[str, Any]) -> SettlementEvidence:
        paused = bool((inspect.get("State") or {}).get("Paused"))
        return SettlementEvidence(applied=paused is wanted, state=f"paused {paused}")

    return check


def _rename_evidence(intent: OpenIntent, inspect: Mapping[str, Any]) -> SettlementEvidence:
    name = str(inspect.get("Name", "")).removeprefix("/")
    return SettlementEvidence(applied=name == _summary(intent).name, state=name)


def _update_evidence(intent: OpenIntent, inspect: Mapping[str, Any]) -> SettlementEvidence:
    summary = _summary(intent).part(parts.SettingsPart)
    wanted, now = settings_to_json(summary.settings), settings_to_json(settings(inspect))
    # Settings that the update did not touch prove nothing about it.
    same = all(wanted[key] == now[key] for key in updated_settings(summary))
    return SettlementEvidence(applied=same, state=json.dumps(now, sort_keys=True))


def _network_evidence(
    *, wanted: bool
) -> Callable[[OpenIntent, Mapping[str, Any]], SettlementEvidence]:
    def check(intent: OpenIntent, inspect: Mapping[str, Any]) -> SettlementEvidence:
        networks = settings(inspect).networks
        joined = _summary(intent).part(parts.EndpointPart).network in networks
        return SettlementEvidence(applied=joined is wanted, state=" ".join(networks))

    return check


_FIELDS: dict[str, Callable[[OpenIntent, Mapping[str, Any]], SettlementEvidence]] = {
    Mutation.CONTAINER_PAUSE: _pause_evidence(wanted=True),
    Mutation.CONTAINER_UNPAUSE: _pause_evidence(wanted=False),
    Mutation.CONTAINER_RENAME: _rename_evidence,
    Mutation.CONTAINER_UPDATE: _update_evidence,
    Mutation.CONTAINER_ADOPT: _update_evidence,
    Mutation.CONTAINER_RELEASE: _update_evidence,
    Mutation.NETWORK_CONNECT: _network_evidence(wanted=True),
    Mutation.NETWORK_DISCONNECT: _network_evidence(wanted=False),
}


def _mutation(intent: OpenIntent) -> str:
    return parts.RequestPart.read(intent.request).route


def _summary(intent: OpenIntent) -> parts.SummaryPart:
    return parts.RequestPart.read(intent.request).summary


_RFC3339 = re.compile(r"(.{19})(?:\.([0-9]+))?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII)


def _epoch_s(text: str) -> float:
    """Return seconds since the epoch of an RFC 3339 time, cut to microseconds."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    fraction = (match[2] or "")[:6].ljust(6, "0")
    return datetime.fromisoformat(f"{match[1]}.{fraction}{match[3]}").timestamp()
