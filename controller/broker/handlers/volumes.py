"""Volumes at the gate: foreign volumes and networks are adopted, volumes are dumped and restored.

Holds: a volume is dumped or restored, and the containers with the volume are down meanwhile.

A command of an operator begins a hold, stops the containers through the gate, works on the data,
and ends the hold. The hold is a lease: the command renews the lease while it works. A hold whose
command died ends by itself, and the containers are started again, also by the next broker.

A restore exchanges the data by renames below the volume's folder, and a marker lies there
meanwhile. If the marker is left, the data is incomplete: the hold stays until an operator finishes
the restore, and no container is started with such data.

Acts of operators on volumes and networks, by their names in ``POST records``.

Adoption of a foreign volume or network by an operator, for documents with ``engineName``.

Nothing is forwarded to the engine. The record is folded into the inventory like a create. The
object has no label of ours, so its item has its identity: a network's id, a volume's time of
creation. An object made again under the name is foreign.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal

from controller.broker.gate.call import (
    BROKER,
    Author,
    Flow,
    GateRequest,
    inspect_paths,
    parse_json,
    read_json,
    read_members,
)
from controller.broker.gate.journal_entries import record_event, request_of, require_record
from controller.broker.gate.mutate import refuse_if_held
from controller.broker.gate.refusals import Answered, Denied, raise_if_denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.routes import route_named
from controller.broker.gate.state import GateState
from controller.broker.guards import lookup
from controller.broker.handlers import container_lifecycle
from controller.broker.wire import json_reply
from controller.core.admission.adoption import AdoptionRequest, ObjectUser, judge_object, summary_of
from controller.core.encoding.json_values import mapping_of
from controller.core.enforcement.approvals import NOTE_MAX
from controller.core.engine_api.mount_grammar import is_plain_volume
from controller.core.engine_api.requests import Finding
from controller.core.records.parts import HoldPart, SummaryPart
from controller.core.rules.confinement import data_path, mounts_volume
from controller.core.rules.verdict import deny
from controller.model.inventory import VolumeHold
from controller.model.mutations import ADOPT, VOLUME_END, VOLUME_HOLD, Mutation
from controller.model.policy.document import Policy
from controller.model.records import Reply, Request

HOLD_BEGIN, HOLD_RENEW, HOLD_END = VOLUME_HOLD, "renew-hold", VOLUME_END
#: A command is taken for dead after this time without a renewal.
LEASE_S = 20.0
#: Lies in the volume's folder while a restore exchanges the data.
MARKER = ".trimtab-restore/exchange"
_ACTS = ("dump", "restore")
_OUTCOMES = ("succeeded", "failed")


def begin_hold(call: GateRequest, state: GateState, body: Mapping[str, object]) -> Flow[Reply]:
    """Handle ``POST records``, act volume.hold: hold a volume, and name the running containers."""
    name, act = _text(body, "object"), _text(body, "for")
    live, note = body.get("live", False), _text(body, "note", optional=True)
    known = body.keys() <= {"act", "object", "for", "live", "note"}
    if not known or act not in _ACTS or not isinstance(live, bool) or (live and act == "restore"):
        raise _invalid()
    found = yield from lookup.find_own_volume(state, call.actor, name)
    facts = found.facts
    if not is_plain_volume(facts.driver, facts.options):
        reason = f"the volume {facts.name} is a folder of another machine"
        remedy = "back it up there"
        raise Denied("volume.remote", reason, remedy, subject=facts.name)
    _refuse_if_held(state, facts.name)
    users, strangers = yield from _running_users(state, facts.name)
    if strangers and not live:
        raise Denied(
            "volume.in-use",
            f"{strangers[0]} runs with the volume {facts.name}, and isn't this instance's",
            "stop that container"
            + (", or read the volume while it changes, with --live" if act == "dump" else ""),
            status=409,
            subject=facts.name,
        )
    summary = HoldPart(
        act=act,
        name=facts.name,
        namespace=facts.namespace,
        owner=facts.owner,
        objects=() if live else tuple(users),
        live=live,
        note=note,
    )
    # The reads above may have let another hold in.
    _refuse_if_held(state, facts.name)
    if not live:
        _refuse_if_starting(state, facts.name)
    state.holds.renewed_at[call.id] = state.clock.monotonic()
    request = request_of("POST", VOLUME_HOLD, facts.name, summary.members)
    yield from require_record("operator", call.by, request)
    shown = {
        "id": call.id,
        "volume": facts.name,
        "namespace": facts.namespace,
        "owner": facts.owner,
        "path": str(found.inspect.get("Mountpoint") or ""),
        "users": [{"id": identifier, "name": named} for identifier, named in users.items()],
        "leaseS": LEASE_S,
    }
    return json_reply(200, shown)


def _refuse_if_held(state: GateState, volume: str) -> None:
    hold = state.inventory.holds.get(volume)
    if hold is not None:
        remedy = "wait for its end"
        if volume in state.holds.unfinished:
            remedy = f"finish it: trimtab volume restore {volume} --finish"
        reason = f"the volume {volume} is held for a {hold.act}, see record {hold.id}"
        raise Denied("volume.held", reason, remedy, status=409, subject=volume)


def _refuse_if_starting(state: GateState, volume: str) -> None:
    """Refuse a hold while a change of a container with the volume has no outcome.

    A start that was admitted before the hold would let the container run meanwhile.

    Raises:
        Denied: ``held``, ``volume.held``.
    """
    for item in state.inventory.containers.values():
        if not mounts_volume(item, volume, state.volumes_root):
            continue
        refuse_if_held(state, Mutation.CONTAINER_START, item.id, under_way=True)
        for identifier, other in state.holds.starting:
            if identifier == item.id:
                reason = f"{item.admitted.name} is started now: the hold of {other} ends"
                raise Denied("volume.held", reason, "try again", status=409, subject=volume)


def _running_users(state: GateState, volume: str) -> Flow[tuple[dict[str, str], list[str]]]:
    """Return the running containers with a volume: ours by id, and the names of others.

    A container that is down for the hold of another volume counts, too: the last hold starts it.
    """
    path = build_path("/containers/json", {"filters": json.dumps({"volume": [volume]})})
    listed = yield from read_members(path, "Id", "Names")
    running = {str(each.get("Id", "")): each for each in listed}
    waiting = {each for hold in state.inventory.holds.values() for each in hold.users}
    ours = dict[str, str]()
    for item in sorted(state.inventory.containers.values(), key=lambda each: each.seq):
        if not mounts_volume(item, volume, state.volumes_root):
            continue
        if item.id not in running and item.id not in waiting:
            inspect = yield from read_json(f"/containers/{item.id}/json")
            if not ((inspect or {}).get("State") or {}).get("Running"):
                continue
        ours[item.id] = item.admitted.name
    named = (
        (each.get("Names") or [each.get("Id", "")])[0]
        for key, each in running.items()
        if key not in ours
    )
    others = [str(name).removeprefix("/") for name in named]
    return ours, others


def renew_hold(_call: GateRequest, state: GateState, body: Mapping[str, object]) -> Flow[Reply]:
    """Handle ``POST records``, act renew-hold: the command of a hold still works."""
    yield from ()
    if not body.keys() <= {"act", "object", "id"}:
        raise _invalid()
    hold = _hold_of(state, body)
    if hold.id in state.holds.ending:
        raise _lost(hold.volume)
    state.holds.renewed_at[hold.id] = state.clock.monotonic()
    return json_reply(200, {"id": hold.id, "leaseS": LEASE_S})


def end_hold(call: GateRequest, state: GateState, body: Mapping[str, object]) -> Flow[Reply]:
    """Handle ``POST records``, act volume.end: start the containers, and record the result."""
    known = {"act", "object", "id", "outcome", "digest", "bytes", "files", "note"}
    outcome, size, count = body.get("outcome"), body.get("bytes", 0), body.get("files", 0)
    numbers = all(type(n) is int and 0 <= n < 2**53 for n in (size, count))
    if not body.keys() <= known or outcome not in _OUTCOMES or not numbers:
        raise _invalid()
    hold = _hold_of(state, body)
    state.holds.renewed_at[hold.id] = state.clock.monotonic()
    if (yield from _is_unfinished(state, hold)):
        raise Denied(
            "volume.unfinished",
            f"the data of {hold.volume} is being exchanged",
            f"finish it: trimtab volume restore {hold.volume} --finish",
            status=409,
            subject=hold.volume,
        )
    started, failed = yield from _start_users(state, hold, call)
    digest, note = _text(body, "digest", optional=True), _text(body, "note", optional=True)
    summary = _result(hold, str(outcome), note) | HoldPart(
        digest=digest, size_bytes=int(str(size)), file_count=int(str(count))
    )
    yield from require_record(
        "operator", call.by, request_of("POST", VOLUME_END, hold.volume, summary.members)
    )
    state.holds.renewed_at.pop(hold.id, None)
    return json_reply(200, {"id": call.id, "started": started, "failed": failed})


def _result(hold: VolumeHold, outcome: str, note: str) -> SummaryPart:
    return HoldPart(act=hold.act, name=hold.volume, record=hold.id, outcome=outcome, note=note)


def _hold_of(state: GateState, body: Mapping[str, object]) -> VolumeHold:
    hold = state.inventory.holds.get(_text(body, "object"))
    if hold is None or hold.id != body.get("id"):
        raise _lost(_text(body, "object"))
    return hold


def _lost(volume: str) -> Denied:
    reason = f"the volume isn't held for this command any more: it was silent for {LEASE_S:g} s"
    return Denied("volume.hold-lost", reason, "repeat the command", status=409, subject=volume)


def end_expired_holds(state: GateState) -> Flow[int]:
    """End the holds of commands that died, and start their containers; return how many ended."""
    ended = 0
    for hold in list(state.inventory.holds.values()):
        renewed_at = state.holds.renewed_at.get(hold.id, state.start_monotonic)
        if state.clock.monotonic() - renewed_at < LEASE_S:
            continue
        state.holds.ending.add(hold.id)
        if (yield from _is_unfinished(state, hold)):
            state.holds.ending.discard(hold.id)
            yield from _stop_users(state, hold)
            continue
        try:
            yield from _start_users(state, hold, None)
        except Answered:
            continue  # the engine is away: the next round starts them
        summary = _result(hold, "failed", "the command died, or its host was restarted")
        by = Author(state.new_id(), BROKER, policy=state.policy.digest)
        request = request_of("POST", VOLUME_END, hold.volume, summary.members)
        if (yield from record_event("operator", by, request)):
            ended += 1
            state.holds.renewed_at.pop(hold.id, None)
            state.holds.ending.discard(hold.id)
    return ended


def _is_unfinished(state: GateState, hold: VolumeHold) -> Flow[bool]:
    """Return True if the data of a volume is incomplete, or can't be looked at."""
    if hold.act != "restore":
        return False
    path = f"{data_path(state.volumes_root, hold.volume)}/{MARKER}"
    facts = yield from inspect_paths((path,))
    there = facts.get(path)
    unfinished = there is None or there.kind != "missing"
    (state.holds.unfinished.add if unfinished else state.holds.unfinished.discard)(hold.volume)
    return unfinished


def _stop_users(state: GateState, hold: VolumeHold) -> Flow[None]:
    """Stop the containers that run on incomplete data.

    The engine itself starts containers with the restart policy ``always`` when it starts, for
    example after a crash of the host amid an exchange.
    """
    for item in list(state.inventory.containers.values()):
        if not mounts_volume(item, hold.volume, state.volumes_root):
            continue
        with suppress(Denied, Answered):
            inspect = yield from read_json(f"/containers/{item.id}/json")
            if ((inspect or {}).get("State") or {}).get("Running"):
                request = _own_request(state, item.id, Mutation.CONTAINER_STOP, None)
                yield from container_lifecycle.stop(request, state)


def _start_users(
    state: GateState, hold: VolumeHold, call: GateRequest | None
) -> Flow[tuple[list[str], list[dict[str, str]]]]:
    """Start the containers of a hold that don't run; return the started ones, and the failures.

    Raises:
        Answered: the engine is away, and the broker itself ends the hold.
    """
    started, failed = list[str](), list[dict[str, str]]()
    for identifier in hold.users:
        item = state.inventory.containers.get(identifier)
        if item is None:
            continue  # replaced or removed meanwhile
        state.holds.starting.add((identifier, hold.volume))
        try:
            reply = yield from container_lifecycle.start(
                _own_request(state, identifier, Mutation.CONTAINER_START, call), state
            )
            error = "" if reply.status < 400 else str(parse_json(reply).get("message", ""))
        except Denied as denied:
            error = denied.reason
        except Answered as answered:
            if call is None and answered.reply.status == HTTPStatus.BAD_GATEWAY:
                raise
            error = str(parse_json(answered.reply).get("message", ""))
        finally:
            state.holds.starting.discard((identifier, hold.volume))
        if error:
            failed.append({"name": item.admitted.name, "reason": error})
        else:
            started.append(item.admitted.name)
    return started, failed


def _own_request(
    state: GateState, identifier: str, mutation: Mutation, call: GateRequest | None
) -> GateRequest:
    """Return the request to start or stop a container, by the operator or by the broker itself."""
    route = route_named(mutation)
    assert route is not None, "containers can be started and stopped"
    actor = BROKER if call is None else call.actor
    path = f"/containers/{identifier}/{mutation.rpartition('.')[2]}"
    own = GateRequest(
        id=state.new_id(),
        policy=state.policy,
        request=Request("POST", path, "", (), b"", actor),
        actor=actor,
        context=None,
        route=route,
        names={"container": identifier},
        query={},
    )
    return own if call is None else replace(own, policy=call.policy)


def _text(body: Mapping[str, object], name: str, *, optional: bool = False) -> str:
    text = body.get(name, "")
    if not isinstance(text, str) or len(text) > NOTE_MAX or not (text or optional):
        raise _invalid()
    return text


def _invalid() -> Denied:
    return Denied(
        "body.invalid",
        "the dump or restore can't be read",
        f'send {{"act": "{HOLD_BEGIN}", "object": NAME, "for": "dump", "live": false}}',
        status=400,
    )


ADOPT_ACT = "adopt-object"
_TEXTS = ("kind", "object", "namespace", "owner")
_FORM = f'{{"act": "{ADOPT_ACT}", "kind": "volume", "object": NAME, "namespace": …, "owner": …}}'


@dataclass(frozen=True, slots=True)
class JudgedObject:
    """A foreign object with the verdict on its adoption."""

    request: AdoptionRequest
    findings: tuple[Finding, ...]
    #: The object of the record: the name of a volume, the id of a network.
    subject: str = ""
    summary: SummaryPart = field(default_factory=SummaryPart)
    users: tuple[ObjectUser, ...] = ()
    #: A network from which containers reach other hosts.
    has_way_out: bool = False


def adopt_object(call: GateRequest, state: GateState, body: Mapping[str, object]) -> Flow[Reply]:
    """Handle ``POST records``, act adopt-object."""
    request, note = _read(body)
    judged = yield from judge_adoption(state, request, call.policy, intent=call.id, note=note)
    if judged.findings:
        raise_if_denied(deny(judged.findings))
    yield from require_record("operator", call.by, record_of(judged))
    users = [user.name for user in judged.users]
    return json_reply(200, {"id": call.id, "object": judged.subject, "users": users})


def record_of(judged: JudgedObject) -> dict[str, object]:
    """Return the adoption of an object in its recorded form."""
    return request_of("POST", ADOPT, judged.subject, judged.summary.members)


def judge_adoption(
    state: GateState,
    request: AdoptionRequest,
    policy: Policy,
    *,
    intent: str,
    note: str = "",
    together: frozenset[str] = frozenset(),
) -> Flow[JudgedObject]:
    """Judge the adoption of an object. Changes nothing.

    *together* are containers, by id, that are adopted in the same request: they count as ours.

    Raises:
        Denied: ``adopt.unknown``, ``adopt.identity``, or a create of the same name isn't settled.
    """
    found: lookup.FoundVolume | lookup.FoundNetwork | None
    if request.kind == "volume":
        refuse_if_held(state, Mutation.VOLUME_CREATE, request.name, under_way=True)
        found = yield from lookup.find_volume(state, request.name)
    else:
        found = yield from lookup.find_network(state, request.name)
        if found is not None and found.facts.name != request.name:
            found = None  # the name of a document is never an id
    if found is None:
        raise Denied(
            "adopt.unknown",
            f"the engine has no {request.kind} of that name",
            f"'docker {request.kind} ls' lists all",
            status=404,
        )
    users = yield from _users(state, request.kind, found.inspect, together)
    findings = judge_object(
        request,
        found.inspect,
        owned=found.owned,
        users=users,
        instance=state.instance,
        policy=policy,
    )
    has_way_out = request.kind == "network" and not found.inspect.get("Internal")
    if findings:
        return JudgedObject(request, findings, users=users, has_way_out=has_way_out)
    identity = lookup.identity_of(found.inspect)
    if not identity:
        raise Denied(
            "adopt.identity",
            f"the engine doesn't say when it made {request.name}",
            "use an engine of the API version 1.44 or newer",
        )
    subject = request.name if request.kind == "volume" else identity
    summary = summary_of(request, identity=identity, intent=intent, note=note)
    return JudgedObject(request, (), subject, summary, users, has_way_out)


def read_object(value: object) -> AdoptionRequest:
    """Return one object of a request to adopt containers.

    Raises:
        Denied: ``body.invalid``.
    """
    members = mapping_of(value)
    return _read({**members, "object": members.get("name")} if "name" in members else {})[0]


def _read(body: Mapping[str, object]) -> tuple[AdoptionRequest, str]:
    texts = {name: body.get(name) for name in _TEXTS}
    note = body.get("note", "")
    known = body.keys() <= {"act", "note", "name", *_TEXTS}
    kind: Literal["volume", "network"] = "network" if texts["kind"] == "network" else "volume"
    if (
        not known
        or texts["kind"] != kind
        or not all(isinstance(text, str) and len(text) <= 255 for text in texts.values())
        or not isinstance(note, str)
        or len(note) > NOTE_MAX
    ):
        raise Denied(
            "body.invalid", "the object to adopt can't be read", f"send {_FORM}", status=400
        )
    name, namespace, owner = (str(texts[each]) for each in _TEXTS[1:])
    return AdoptionRequest(kind, name, namespace, owner), note


def _users(
    state: GateState,
    kind: Literal["volume", "network"],
    inspect: Mapping[str, Any],
    together: frozenset[str],
) -> Flow[tuple[ObjectUser, ...]]:
    """Return the containers with a volume or a network, stopped ones too."""
    value = str(inspect.get("Name" if kind == "volume" else "Id") or "")
    filters = json.dumps({kind: [value]}, separators=(",", ":"))
    path = build_path("/containers/json", {"all": "1", "filters": filters})
    listed = yield from read_members(path, "Id", "Names", "State")
    return tuple(
        ObjectUser(
            name=str((each.get("Names") or [each.get("Id", "")])[0]).removeprefix("/"),
            running=str(each.get("State") or "") in {"running", "paused", "restarting"},
            ours=str(each.get("Id", "")) in together | state.inventory.containers.keys(),
        )
        for each in listed
    )


VolumeAct = Callable[[GateRequest, GateState, Mapping[str, object]], Flow[Reply]]

ACTS: dict[str, VolumeAct] = {
    ADOPT_ACT: adopt_object,
    HOLD_BEGIN: begin_hold,
    HOLD_RENEW: renew_hold,
    HOLD_END: end_hold,
}
