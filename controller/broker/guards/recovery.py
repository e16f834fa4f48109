"""Recovery: close open intents, and drop disappeared objects from the inventory.

The driver settles every open intent without a request in progress: at start, after a lost reply,
and again until the intent is closed. Until then the gate holds the object.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

from controller.broker.gate.call import (
    BROKER,
    Author,
    Flow,
    parse_json,
    parse_list,
    read_json,
    read_members,
)
from controller.broker.gate.commands import Lost, ReadEngine, Rows, WriteRecord
from controller.broker.gate.journal_entries import actor_of, place_of
from controller.broker.gate.mutate import Change, perform
from controller.broker.gate.refusals import Answered
from controller.broker.gate.router import route_named
from controller.broker.gate.routes import Route
from controller.broker.gate.state import GateState
from controller.broker.guards import split_brain
from controller.broker.guards.lookup import record_gone
from controller.core.enforcement import settlement
from controller.core.enforcement.settlement import Settled, SettlementEvidence
from controller.core.jobs.run_end import UNSTARTED_RUN
from controller.core.records.parts import EndPart, RequestPart, ResultPart, SummaryPart
from controller.core.rules.verdict import AdmissionDecision
from controller.model import mutations, names
from controller.model.inventory import ContainerItem, OpenIntent
from controller.model.mutations import Mutation
from controller.model.records import Entry, Record, Reply, Verdict

STALE = Verdict("allow", ("stale.clean-up",), "it was created and never started")


def intents_to_settle(state: GateState) -> tuple[str, ...]:
    """Return the ids of the intents for recovery to close, oldest first."""
    mine = [
        (i.seq, key)
        for key, i in state.inventory.open.items()
        if key not in state.intents.in_flight
    ]
    return tuple(key for _, key in sorted(mine))


def settle(
    state: GateState, identifier: str, *, earlier: SettlementEvidence | None
) -> Flow[SettlementEvidence | None]:
    """Find out whether the change of an open intent took effect, and close the intent if known.

    Returns None once the intent is closed, with exactly one ``recovered`` record. Otherwise returns
    the evidence, which the next call takes as *earlier*. A failed read or write changes nothing.
    """
    intent = state.inventory.open.get(identifier)
    if intent is None or identifier in state.intents.in_flight:
        return None
    name = RequestPart.read(intent.request).route
    route = route_named(name)
    assert route is not None, f"an intent of no route: {name}"
    assert identifier not in state.intents.settling, f"{identifier} is being settled already"
    state.intents.settling.add(identifier)
    try:
        return (yield from _settle(state, identifier, intent, route, earlier))
    finally:
        state.intents.settling.discard(identifier)


def _settle(
    state: GateState,
    identifier: str,
    intent: OpenIntent,
    route: Route,
    earlier: SettlementEvidence | None,
) -> Flow[SettlementEvidence | None]:
    evidence = SettlementEvidence(applied=False, state="")
    path = settlement.evidence_path(route.evidence, intent, identifier)
    if path:
        is_list = path.startswith(("/networks?", "/containers/json?"))
        rows = Rows(partial(_encode_evidence, identifier)) if is_list else None
        answer = yield ReadEngine(path, rows=rows)
        if isinstance(answer, Lost):
            return earlier
        assert isinstance(answer, Reply), f"a look was answered by {answer!r}"
        if answer.status >= 400 and answer.status != 404:
            return earlier
        try:
            parse = parse_list if is_list else parse_json
            value = None if answer.status == 404 else parse(answer)
        except Answered:
            return earlier
        evidence = settlement.evidence_of(route.evidence, intent, identifier, value)
    expired = _expired(state, intent, route, identifier)
    how = settlement.conclude(route.evidence, evidence, earlier, expired=expired)
    if how is None:
        return evidence
    result = ResultPart(settled=how.value, evidence=route.evidence.value)
    if how is Settled.APPLIED:
        result |= evidence.result
    record = yield WriteRecord(
        Entry(identifier, "recovered", actor=actor_of(BROKER), result=result.members)
    )
    if not isinstance(record, Record):
        return evidence
    state.intents.recorded_at.pop(identifier, None)
    return None


def _encode_evidence(identifier: str, row: dict[str, Any]) -> bytes:
    """Encode the members that ``settlement`` reads. The engine found the label of each row."""
    labels = row.get("Labels", {names.INTENT: identifier}) or {}
    label = {names.INTENT: labels.get(names.INTENT)}
    kept = {name: row[name] for name in ("Id", "Name", "Names") if name in row}
    return json.dumps({**kept, "Labels": label}).encode()


def _expired(state: GateState, intent: OpenIntent, route: Route, identifier: str) -> bool:
    """Return True if the engine can't work on the change any more.

    The time counts from the intent, by the monotonic clock; for an intent of an earlier broker,
    from the start of this process. The wall clock proves nothing: an operator may have set it
    meanwhile.
    """
    limit = route.deadline_s + settlement.grace_s(intent)
    since = state.intents.recorded_at.get(identifier, state.start_monotonic)
    return state.clock.monotonic() - since > limit


def forget_gone(state: GateState) -> Flow[int]:
    """Drop objects that were removed behind the broker's back; return their number.

    Each object is read by itself first: a list may be older than a create. Objects with an open
    intent are left to recovery. Nothing is dropped while the engine doesn't answer, or if another
    engine answers.
    """
    try:
        info = yield from read_json("/info")
        if str((info or {}).get("ID", "")) != state.engine.engine_id:
            return 0
        return (yield from _forget_gone(state))
    except Answered:
        return 0


def _forget_gone(state: GateState) -> Flow[int]:
    # Objects with the label of the instance, and few members of each: nobody's objects, however
    # many and large, make these lists too long.
    containers = yield from split_brain.list_of_instance(state)
    networks = yield from read_members(split_brain.instance_list_path("/networks", state), "Id")
    volumes = yield from read_members(
        split_brain.instance_list_path("/volumes", state), "Name", of="Volumes"
    )
    inventory = state.inventory
    split_brain.record_listed(state, containers)
    missing = [
        (mutations.CONTAINER_GONE, f"/containers/{key}/json", key)
        for key in _missing_from(inventory.containers, containers, "Id")
    ]
    missing += [
        (mutations.NETWORK_GONE, f"/networks/{key}", key)
        for key in _missing_from(inventory.networks, networks, "Id")
    ]
    missing += [
        (mutations.VOLUME_GONE, f"/volumes/{key}", key)
        for key in _missing_from(inventory.volumes, volumes, "Name")
    ]
    forgotten = 0
    for route, path, key in missing:
        if not _has_open_intent(state, key) and (yield from read_json(path)) is None:
            forgotten += yield from record_gone(state, route, key)
    return forgotten


def _missing_from(known: Iterable[str], listed: Any, member: str) -> list[str]:
    there = {str(each.get(member, "")) for each in listed or ()}
    return [key for key in known if key not in there]


def _has_open_intent(state: GateState, subject: str) -> bool:
    intents = state.inventory.open.values()
    return any(RequestPart.read(intent.request).object == subject for intent in intents)


def stale_containers(state: GateState) -> tuple[str, ...]:
    """Return the containers of an earlier broker without any start.

    Called once at the start of the broker, after the first round of settling: later creates are
    still in progress. A client's container stays, as ``docker create`` promises, unless recovery
    found the container after a lost reply: then its client never got the id.
    """
    return tuple(
        item.id
        for item in sorted(state.inventory.containers.values(), key=lambda item: item.seq)
        if item.seq <= state.start_seq
        and not item.started
        and (item.origin == "controller" or item.recovered)
    )


def remove_stale(state: GateState, identifier: str) -> Flow[bool]:
    """Remove a container of ``stale_containers`` unless it ran; return True if it was removed.

    Records a run as ``unstarted``, so that its job starts another run and no failure is counted.
    """
    item = state.inventory.containers.get(identifier)
    if item is None or item.started or _has_open_intent(state, identifier):
        return False
    try:
        inspect = yield from read_json(f"/containers/{identifier}/json")
    except Answered:
        return False
    if inspect is None:
        return (yield from record_gone(state, mutations.CONTAINER_GONE, identifier))
    labels = (inspect.get("Config") or {}).get("Labels") or {}
    status = (inspect.get("State") or {}).get("Status")
    if status != "created" or labels.get(names.INSTANCE) != state.instance:
        return False
    return (yield from remove_unstarted(state, item, STALE))


def remove_unstarted(state: GateState, item: ContainerItem, verdict: Verdict) -> Flow[bool]:
    """Remove a container that never ran; return True if it was removed. *verdict* says why."""
    summary = place_of(item)
    if item.is_run:
        summary = (SummaryPart.read(summary) | EndPart(outcome=UNSTARTED_RUN.outcome)).members
    path, judged = f"/containers/{item.id}", AdmissionDecision(verdict)
    change = Change.of(Mutation.CONTAINER_REMOVE, item.id, path, judged, summary)
    by = Author(state.new_id(), BROKER, policy=state.policy.digest)
    reply = yield from perform(state, by, change)
    return reply.status < 400
