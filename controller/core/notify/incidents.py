"""Incidents from successive views: one for each cause, from its begin to its end.

An incident is due once it lasted ``settle`` seconds, and over once no view showed it for as long. While the
engine is away, and shortly before and after, what it does to resources belongs to the engine's incident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from controller.core.notify.symptoms import ENGINE
from controller.model.notifications import Affected, Incident, NoticeState, Symptom, ViewSymptoms

#: Resources that fell within this time before the engine's end fell because of it.
BEFORE_ENGINE_S: Final = 60.0
#: How long resources may take to come up after the engine is back.
AFTER_ENGINE_S: Final = 180.0
#: How long views may be missing until that is an incident.
BLIND_S: Final = 180.0
TRIMTAB: Final = "trimtab"
INCIDENTS_MAX: Final = 1000
AFFECTED_MAX: Final = 200
_MANY: Final = "many"


@dataclass(frozen=True, slots=True)
class Over:
    """An incident that ended, and how long it lasted."""

    incident: Incident
    seconds: float


def step_incidents(
    state: NoticeState, seen: ViewSymptoms | None, *, instance: str, now: float, settle: float
) -> tuple[NoticeState, tuple[Over, ...]]:
    """Return the state after one view, or after none (*seen* None), and the incidents that ended.

    Of an incident that nobody was to be told of, the end isn't returned, unless the process was away
    meanwhile: then the incident can have lasted.
    """
    blind_since = 0.0 if seen is not None else min(state.blind_since or now, now)
    incidents = {cause: _until(each, now) for cause, each in state.incidents.items()}
    #: Of the others nobody knows now whether they last.
    shown = {TRIMTAB, _MANY}
    if seen is not None:
        symptoms = _attributed(state, seen, now)
        shown |= {symptom.cause for symptom in symptoms}
        incidents = _matched(incidents, symptoms, seen, instance, now)
        incidents = _absorbed(incidents, shown)
    blind = _blindness(blind_since, now)
    if blind is not None and TRIMTAB not in incidents:
        incidents[TRIMTAB] = _new(blind, instance, now)
    elif blind is None and TRIMTAB in incidents:
        incidents[TRIMTAB] = _gone(incidents[TRIMTAB], now)
    away = now - state.at > settle if state.at else False
    ended, lasting = [], {}
    for cause, each in incidents.items():
        if each.gone is None:
            is_due = cause in shown and now - each.seen >= settle
            lasting[cause] = replace(each, is_due=each.is_due or is_due)
        elif each.is_due and 0 <= now - each.gone < settle:
            lasting[cause] = each
        elif each.is_due or away:
            ended.append(Over(each, max(0.0, each.gone - each.since)))
    routes = state.routes if seen is None or not seen.is_known else seen.routes
    return (
        replace(state, incidents=lasting, routes=routes, at=now, blind_since=blind_since),
        tuple(ended),
    )


def _blindness(blind_since: float, now: float) -> Symptom | None:
    if not blind_since or now - blind_since < BLIND_S:
        return None
    text = "no view is to be had from the controller: see 'trimtab doctor'"
    return Symptom(TRIMTAB, "page", "trimtab doesn't answer", text, blind_since)


def _attributed(state: NoticeState, seen: ViewSymptoms, now: float) -> list[Symptom]:
    """Return the symptoms, those of resources under the cause ``engine`` where the engine did it."""
    engine = state.incidents.get(ENGINE)
    begins = [each.since for each in seen.symptoms if each.cause == ENGINE]
    begins += [engine.since] if engine is not None else []
    if not begins:
        return [*seen.symptoms]
    back = engine.cause_gone if engine is not None else None
    if back is not None and now - back >= AFTER_ENGINE_S:
        return [*seen.symptoms]
    begin = min(begins) - BEFORE_ENGINE_S

    def is_of_engine(symptom: Symptom) -> bool:
        own = state.incidents.get(symptom.cause)
        return (
            symptom.affected is not None
            and symptom.affected.kind != "Source"
            and symptom.since >= begin
            and not (own is not None and own.is_due)
        )

    return [
        replace(each, cause=ENGINE, title="", text="")
        if each.cause != ENGINE and is_of_engine(each)
        else each
        for each in seen.symptoms
    ]


def _matched(
    incidents: Mapping[str, Incident],
    symptoms: Iterable[Symptom],
    seen: ViewSymptoms,
    instance: str,
    now: float,
) -> dict[str, Incident]:
    """Return the incidents with what a view shows of them."""
    groups: dict[str, list[Symptom]] = {}
    room = INCIDENTS_MAX - len(incidents)
    for symptom in symptoms:
        cause = symptom.cause
        if cause not in incidents and cause not in groups:
            room -= 1
        if room < 0 and cause not in incidents and cause not in groups:
            cause = _MANY
            symptom = replace(symptom, title="more incidents than are told one by one", text="")  # noqa: PLW2901
        groups.setdefault(cause, []).append(symptom)
    found = dict(incidents)
    for cause, group in groups.items():
        # A symptom without a title only belongs to its cause.
        own = [each for each in group if each.title]
        before = found.get(cause)
        if before is None:
            before = _new((own or group)[0], instance, now)
        lead = max(own, key=lambda each: each.gravity == "page") if own else None
        is_page = before.gravity == "page" or any(each.gravity == "page" for each in group)
        gone = None if own else before.cause_gone if before.cause_gone is not None else now
        found[cause] = replace(
            before,
            gravity="page" if is_page else "warning",
            title=lead.title if lead else before.title,
            text=lead.text if lead else before.text,
            affected=_affected(before, group),
            gone=None,
            cause_gone=gone,
        )
    for cause, each in incidents.items():
        is_unknown = not seen.is_known or any(a.key in seen.unknown for a in each.affected)
        if cause not in groups and not is_unknown and cause != TRIMTAB:
            found[cause] = _gone(each, now)
    return found


def _absorbed(incidents: Mapping[str, Incident], shown: Collection[str]) -> dict[str, Incident]:
    """Return the incidents without untold ones of resources that the engine's incident affects."""
    engine = incidents.get(ENGINE)
    if engine is None or engine.gone is not None:
        return {**incidents}
    keys = {each.key for each in engine.affected}
    return {
        cause: each
        for cause, each in incidents.items()
        if cause in shown or each.is_due or not any(a.key in keys for a in each.affected)
    }


def _affected(before: Incident, group: Iterable[Symptom]) -> tuple[Affected, ...]:
    """Return all that an incident affected so far, each resource once."""
    known = {each.key: each for each in before.affected}
    known |= {each.affected.key: each.affected for each in group if each.affected is not None}
    return tuple(sorted(known.values())[:AFFECTED_MAX])


def _gone(incident: Incident, now: float) -> Incident:
    return incident if incident.gone is not None else replace(incident, gone=now)


def _until(incident: Incident, now: float) -> Incident:
    """Return an incident with no instant after *now*: the clock can have been set back."""
    gone, cause_gone = incident.gone, incident.cause_gone
    return replace(
        incident,
        since=min(incident.since, now),
        seen=min(incident.seen, now),
        gone=None if gone is None else min(gone, now),
        cause_gone=None if cause_gone is None else min(cause_gone, now),
    )


def _new(symptom: Symptom, instance: str, now: float) -> Incident:
    """Return the incident of a symptom; its id is the same for the same cause and begin."""
    since = min(symptom.since, now)
    text = f"{instance}\n{symptom.cause}\n{since:.3f}\n{now:.3f}"
    return Incident(
        hashlib.sha256(text.encode()).hexdigest()[:16],
        symptom.cause,
        symptom.gravity,
        symptom.title or symptom.cause,
        symptom.text,
        since,
        now,
    )
