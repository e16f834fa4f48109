"""Recovery of open intents and disappeared objects, and signs of a second broker.

Recovery: close open intents, and drop disappeared objects from the inventory.

The driver settles every open intent without a request in progress: at start, after a lost reply,
and again until the intent is closed. Until then the gate holds the object.

Unknown containers with the label of this instance, and signs of a second broker (split brain).

An unknown container may be anything: anybody with the engine's socket can copy labels. Unknown
containers are reported, never adopted automatically, never changed. Those that run, or that the
engine may start, hold their slots and volumes: the controller starts nothing next to them.

The intent of a *rival* is later than every record at the start of this broker, and not its own.
Then another broker runs as this instance, from a copy of the state folder; or the state folder is
older than the containers (restored, or its journal lost). Two journals and two inventories
contradict each other, so only operators can change anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import (
    BROKER,
    Author,
    Flow,
    GateRequest,
    parse_json,
    parse_list,
    read_if_readable,
    read_json,
    read_members,
    read_rows,
)
from controller.broker.gate.commands import Lost, ReadEngine, Rows, WriteRecord
from controller.broker.gate.journal_entries import actor_of, place_of
from controller.broker.gate.mutate import Change, perform
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.routes import Route, route_named
from controller.broker.gate.state import GateState
from controller.broker.guards.lists import encode_filters as filters_of
from controller.broker.guards.lookup import record_gone
from controller.core.encoding.identifiers import timestamp_s
from controller.core.encoding.json_values import list_of, mapping_of, texts_of
from controller.core.enforcement import settlement
from controller.core.enforcement.settlement import Settled, SettlementEvidence
from controller.core.jobs.memory import UNSTARTED_RUN
from controller.core.records.parts import EndPart, RequestPart, ResultPart, SummaryPart
from controller.core.rules.verdict import AdmissionDecision
from controller.model import mutations, names
from controller.model.inventory import ContainerItem, OpenIntent
from controller.model.mutations import Mutation
from controller.model.names import FOREIGN, ForeignContainer
from controller.model.records import Entry, Record, Reply, Role, Verdict

CODE = "state.forked"
UNCONFIRMED = "state.unconfirmed"
REMEDY = (
    "if another trimtab runs on a copy of this state folder, end it; then look at "
    "'trimtab adopt', which takes over what was made"
)
SHOWN_MAX = 5


def begin_in_doubt(state: GateState) -> None:
    """Begin: every labelled container with a later intent than the inventory is somebody else's."""
    known = state.inventory
    if known.time:
        # A restored folder knows nothing of what was made between the backup and the restore.
        since = known.restored or known.time
        state.split_brain.alone_since = datetime.fromisoformat(since).timestamp()
    elif known.seq:  # saved before times were
        state.split_brain.alone_since = state.start_wall
    state.split_brain.in_doubt = True


def refuse_if_restored(call: GateRequest, state: GateState) -> None:
    """Refuse changes of the controller and of clients after a restore, until an operator confirms it.

    The inventory lacks what was made after the backup, whether or not the objects are still there.

    Raises:
        Denied: ``state.unconfirmed``.
    """
    if state.inventory.restored and call.actor.role is not Role.OPERATOR:
        raise Denied(
            UNCONFIRMED,
            f"the state folder was restored from a backup of {state.inventory.restored}, and nobody "
            "has confirmed what was made after it",
            "look at 'trimtab adopt', and confirm it with 'trimtab adopt --yes'",
        )


def refuse_if_forked(call: GateRequest, state: GateState) -> Flow[None]:
    """Refuse changes of the controller and of clients while there are rivals.

    Operators aren't refused, since they resolve the conflict. In doubt, the containers are listed
    first.

    Raises:
        Denied: ``state.forked``.
        Answered: the engine doesn't answer.
    """
    if call.actor.role is Role.OPERATOR or not (
        state.split_brain.in_doubt or state.split_brain.rivals
    ):
        return
    yield from survey(state)
    if state.split_brain.rivals:
        shown = ", ".join(
            name or key[:12] for key, name in sorted(state.split_brain.rivals.items())[:SHOWN_MAX]
        )
        raise Denied(CODE, f"another broker of this instance made {shown}", REMEDY)


def refuse_if_slot_held(state: GateState, item: ContainerItem) -> None:
    """Refuse to start a container while an unknown one runs, or may run, in the same slot.

    A released container keeps all slots of its service.

    Raises:
        Denied: ``container.foreign``.
    """
    place = (item.namespace, item.service, item.slot_label)
    for holder in state.holders if item.slot_label else ():
        slot = item.slot_label if holder.released else holder.slot
        if (holder.namespace, holder.service, slot) == place:
            reason = f"{holder.name} has the slot, and {holder.reason}"
            raise Denied(FOREIGN, reason, holder.remedy, status=409, subject=item.id)


def survey_in_doubt(state: GateState) -> Flow[None]:
    """List the containers with the label of the instance, if an unknown one may have appeared.

    Raises:
        Answered: the engine doesn't answer.
    """
    if state.split_brain.in_doubt:
        yield from survey(state)


def survey(state: GateState) -> Flow[None]:
    """List every container with the label of the instance.

    Raises:
        Answered: the engine doesn't answer.
    """
    record_listed(state, (yield from list_of_instance(state)))


def list_of_instance(state: GateState) -> Flow[list[dict[str, Any]]]:
    """Return id, names and our labels of every container with the label of the instance.

    Of an unknown one also the state and the mounts, and whether the engine may start it.

    Raises:
        Answered: the engine doesn't answer.
    """
    path = instance_list_path("/containers/json", state, all="1")
    rows = Rows(partial(_encode_listed, state))
    listed: list[dict[str, Any]] = parse_list((yield from read_rows(path, rows)))
    for row in listed:
        if row.get("State") in _DOWN or ("State" in row and "Labels" not in row):
            inspect = (yield from read_if_readable(f"/containers/{row['Id']}/json")) or {}
            policy = (inspect.get("HostConfig") or {}).get("RestartPolicy") or {}
            row["Restarts"] = policy.get("Name") not in {None, "", "no"}
            row.setdefault("Labels", (inspect.get("Config") or {}).get("Labels") or {})
        # The engine found the label, whatever the broker can read.
        row.setdefault("Labels", {}).setdefault(names.INSTANCE, state.instance)
    return listed


#: The labels of ours that a survey reads. Clients choose the others.
_LABELS = (names.INSTANCE, names.INTENT, names.NAMESPACE, names.SERVICE, names.SLOT)
#: States without a process. The engine may start such a container by its restart policy.
_DOWN = frozenset({"created", "exited"})
_ALIVE = frozenset({"running", "paused", "restarting"})


def _encode_listed(state: GateState, row: dict[str, Any]) -> bytes | None:
    """Encode the members that ``unknown_containers`` and ``_holders`` read."""
    if not str(row.get("Id")).isalnum():
        return None
    listed: dict[str, Any] = {"Id": row.get("Id"), "Names": texts_of(row.get("Names"))}
    if "Labels" in row:
        labels = row["Labels"] or {}
        listed["Labels"] = {key: labels[key] for key in _LABELS if key in labels}
    if row.get("Id") not in state.inventory.containers:
        mounts = [*map(mapping_of, list_of(row.get("Mounts")))]
        listed |= {"State": str(row.get("State", "")), "Mounts": mounts}
    return json.dumps(listed).encode()


def instance_list_path(path: str, state: GateState, **query: str) -> str:
    """Return the path of a list of objects with the label of the instance."""
    filters = filters_of({"label": [f"{names.INSTANCE}={state.instance}"]})
    return build_path(path, {**query, "filters": filters})


def record_listed(state: GateState, listed: Any) -> None:
    """Remember the unknown containers and the rivals of a list of containers."""
    found = list(unknown_containers(state, listed))
    state.split_brain.unknown = {identifier: name for identifier, name, _ in found}
    state.split_brain.rivals = {
        identifier: name for identifier, name, intent in found if is_rival(state, intent)
    }
    unknown, rivals = state.split_brain.unknown, state.split_brain.rivals
    state.split_brain.holders = tuple(
        _holder(each, unknown[each["Id"]])
        for each in listed or ()
        # While there are rivals, nothing is changed at all.
        if each.get("Id") in unknown.keys() - rivals.keys()
        and (each.get("State") in _ALIVE or each.get("Restarts"))
    )
    state.split_brain.unknown_namespaces = frozenset(
        redact.text(str((each.get("Labels") or {}).get(names.NAMESPACE, "")))
        for each in listed or ()
        if each.get("Id") in unknown
    )
    state.split_brain.in_doubt, state.split_brain.listed = False, True


def _holder(row: Mapping[str, Any], name: str) -> ForeignContainer:
    """Return an unknown container with the place that its labels name, and the volumes it writes to."""
    labels, mounts = row.get("Labels") or {}, row.get("Mounts") or ()
    written = {str(m.get("Name")) for m in mounts if m.get("Type") == "volume" and m.get("RW")}
    return ForeignContainer(
        id=row["Id"],
        name=name,
        namespace=redact.text(str(labels.get(names.NAMESPACE, ""))),
        service=redact.text(str(labels.get(names.SERVICE, ""))),
        slot=redact.text(str(labels.get(names.SLOT, ""))),
        writes=tuple(sorted(written)),
    )


def unknown_containers(state: GateState, listed: Any) -> Iterable[tuple[str, str, str]]:
    """Yield id, name and intent of containers that neither the inventory nor an open create has."""
    inventory = state.inventory
    known = inventory.containers.keys() | inventory.released.keys()
    for each in listed or ():
        labels: Mapping[str, str] = each.get("Labels") or {}
        identifier, intent = str(each.get("Id", "")), labels.get(names.INTENT, "")
        if labels.get(names.INSTANCE) != state.instance or identifier in known:
            continue
        if intent not in inventory.open:
            listed_names = [str(name).removeprefix("/") for name in each.get("Names") or ()]
            yield identifier, redact.text(listed_names[0]) if listed_names else "", intent


def is_rival(state: GateState, intent: str) -> bool:
    """Return True if another broker of the instance created a container with the given intent.

    Intents of this broker, and of the brokers before it in the same journal, are no rivals.
    """
    at = timestamp_s(intent)
    if at is None or at <= state.split_brain.alone_since or intent in state.split_brain.own_creates:
        return False
    # A copy of an own container carries the same intent.
    return all(item.intent != intent for item in state.inventory.containers.values())


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
    containers = yield from list_of_instance(state)
    networks = yield from read_members(instance_list_path("/networks", state), "Id")
    volumes = yield from read_members(instance_list_path("/volumes", state), "Name", of="Volumes")
    inventory = state.inventory
    record_listed(state, containers)
    missing = [
        (mutations.CONTAINER_GONE, f"/containers/{key}/json", key)
        for key in _missing_from((*inventory.containers, *inventory.released), containers, "Id")
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
