"""Adoption of a foreign volume or network by an operator, for documents with ``engineName``.

Nothing is forwarded to the engine. The record is folded into the inventory like a create. The
object has no label of ours, so its item has its identity: a network's id, a volume's time of
creation. An object made again under the name is foreign.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from controller.broker.gate.call import Flow, GateRequest, read_members
from controller.broker.gate.journal_entries import request_of, require_record
from controller.broker.gate.mutate import refuse_if_held
from controller.broker.gate.refusals import Denied, raise_if_denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards import lookup
from controller.broker.wire.responses import json_reply
from controller.core.admission.object_adoption import (
    AdoptionRequest,
    ObjectUser,
    judge_object,
    summary_of,
)
from controller.core.encoding.json_members import mapping_of
from controller.core.enforcement.approval_requests import NOTE_MAX
from controller.core.engine_api.requests import Finding
from controller.core.records.parts import SummaryPart
from controller.core.rules.verdict import deny
from controller.model.mutations import ADOPT, Mutation
from controller.model.policy.document import Policy
from controller.model.records import Reply

ACT = "adopt-object"
_TEXTS = ("kind", "object", "namespace", "owner")
_FORM = f'{{"act": "{ACT}", "kind": "volume", "object": NAME, "namespace": …, "owner": …}}'


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


def adopt(call: GateRequest, state: GateState, body: Mapping[str, object]) -> Flow[Reply]:
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
