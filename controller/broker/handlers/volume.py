"""Named volumes of ours: looking, making, and removing by a person's own act."""

from __future__ import annotations

from typing import Any

from controller.broker.gate.mutate import (
    Author,
    Change,
    Flow,
    GateRequest,
    OutcomeDetails,
    engine_reply,
    loaded,
    look,
    perform,
    refuse_if_held,
)
from controller.broker.gate.refusals import Denied, admitted, json_reply, told_reply
from controller.broker.gate.request_target import written
from controller.broker.gate.state import GateState
from controller.broker.guards import disruption_budget, list_filters, lookup
from controller.broker.guards.lookup import knows_the_host, sees, volume_belonging
from controller.core.admission import create as admission
from controller.core.admission.create import AdmissionDecision
from controller.core.engine_api import parse
from controller.core.rules.facts import Stamp
from controller.model import names
from controller.model.desired.plan import ALLOW
from controller.model.inventory import VOLUME
from controller.model.mutations import Mutation
from controller.model.records import Actor, Reply, Role

RACED = "somebody made a volume of that name meanwhile"


def volume_list(call: GateRequest, state: GateState) -> Flow[Reply]:
    """GET /volumes."""
    asked = list_filters.read(call.query.get("filters", ""), list_filters.VOLUME_KEYS)
    query = {"filters": list_filters.written(list_filters.narrowed(asked, state, call.actor))}
    reply = yield from look(written("/volumes", query))
    if reply.status >= 400:
        return engine_reply(reply)
    shown = []
    for told in loaded(reply).get("Volumes") or ():
        belonging = volume_belonging(state, told)
        if belonging is not None and sees(call.actor, belonging.owner):
            shown.append(_shown(told, call.actor))
    return json_reply(200, {"Volumes": shown, "Warnings": None})


def volume_inspect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """GET /volumes/{volume}."""
    found = yield from lookup.own_volume(state, call.actor, call.names["volume"])
    return json_reply(200, _shown(found.inspect, call.actor))


def _shown(told: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """Return a volume as the actor may see it; without its place the member itself stays."""
    return told if knows_the_host(actor) else {**told, "Mountpoint": ""}


def create(call: GateRequest, state: GateState) -> Flow[Reply]:
    """POST /volumes/create. The engine takes an existing name for success: one is looked for."""
    policy, stamp = call.policy, Stamp(instance=state.instance, intent=call.id)
    request = parse.parse_volume(call.body)
    request = admission.named_volume(request, actor=call.actor, policy=policy, stamp=stamp)
    existing = yield from lookup.volume(state, request.name)
    if existing is not None and existing.belonging is None:
        # What an open intent made isn't in the inventory yet: it is nobody else's for that.
        refuse_if_held(state, Mutation.VOLUME_CREATE, request.name, under_way=True)
    judged = admitted(
        admission.admit_volume(
            request,
            actor=call.actor,
            policy=policy,
            existing=None if existing is None else existing.facts,
            stamp=stamp,
        )
    )
    if existing is not None:
        return json_reply(201, _shown(existing.inspect, call.actor))
    reply = yield from make(state, call.by, request.name, judged)
    if reply.status >= 400:
        return reply
    return json_reply(reply.status, _shown(loaded(reply), call.actor))


def make(state: GateState, by: Author, name: str, judged: AdmissionDecision) -> Flow[Reply]:
    """Make an admitted volume; 409 when somebody else made one of that name meanwhile."""
    change = Change(
        Mutation.VOLUME_CREATE,
        name,
        "POST",
        "/volumes/create",
        {"name": name, **judged.summary},
        judged.verdict,
        body=judged.body,
        deadline_s=15.0,
    )
    reply = yield from perform(state, by, change, _learn_made(by.id))
    if reply.status >= 400 or _made_by(by.id, loaded(reply)):
        return reply
    return told_reply(409, "name.foreign", RACED, identifier=by.id)


def _made_by(intent: str, told: dict[str, Any]) -> bool:
    return (told.get("Labels") or {}).get(names.INTENT) == intent


def _learn_made(intent: str) -> OutcomeDetails:
    def learn(reply: Reply) -> Flow[dict[str, object]]:
        yield from ()
        told = loaded(reply)
        if not _made_by(intent, told):
            return {"status": 409, "error": RACED}
        return {"object": str(told.get("Name", ""))}

    return learn


def remove(call: GateRequest, state: GateState) -> Flow[Reply]:
    """DELETE /volumes/{volume}: a person's own act; the controller's once a person approved it."""
    found = yield from lookup.own_volume(state, call.actor, call.names["volume"])
    facts = found.facts
    verdict = ALLOW
    if call.actor.role is Role.CONTROLLER:
        # Judged when it runs alone: two requests can't use up one approval.
        approval = disruption_budget.approval_of(call, state, f"{VOLUME}{facts.name}")
        if approval is None:
            raise Denied(
                "volume.approval",
                f"removing the volume {facts.name} removes data, and no operator approved that",
                "let an operator remove it, or approve it for the plan that is sent",
                subject=facts.name,
            )
        verdict = disruption_budget.with_approval(ALLOW, approval)
    change = Change(
        Mutation.VOLUME_REMOVE,
        facts.name,
        "DELETE",
        f"/volumes/{facts.name}",
        {"name": facts.name, "owner": facts.owner, "namespace": facts.namespace},
        verdict,
        deadline_s=15.0,
    )
    return (yield from perform(state, call.by, change))
