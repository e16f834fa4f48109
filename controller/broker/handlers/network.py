"""Networks of ours: looking, making, removing, joining."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controller.broker.gate.mutate import (
    Change,
    Flow,
    GateRequest,
    engine_reply,
    loaded,
    look,
    perform,
    place_of,
    refuse_if_held,
)
from controller.broker.gate.refusals import admitted, json_reply
from controller.broker.gate.request_target import written
from controller.broker.gate.state import GateState
from controller.broker.guards import disruption_budget, list_filters, lookup, name_conflicts
from controller.broker.guards.lookup import FoundNetwork, container_facts, network_belonging, sees
from controller.broker.handlers.container_create import learn_network, network_change
from controller.core.admission import create as admission
from controller.core.engine_api import parse as schema
from controller.core.rules.facts import Stamp
from controller.model.desired.plan import ALLOW
from controller.model.mutations import Mutation
from controller.model.records import Reply


def network_list(call: GateRequest, state: GateState) -> Flow[Reply]:
    """GET /networks."""
    asked = list_filters.read(call.query.get("filters", ""), list_filters.NETWORK_KEYS)
    query = {"filters": list_filters.written(list_filters.narrowed(asked, state, call.actor))}
    reply = yield from look(written("/networks", query))
    if reply.status >= 400:
        return engine_reply(reply)
    shown = []
    for told in loaded(reply):
        belonging = network_belonging(state, told)
        if belonging is not None and sees(call.actor, belonging.owner):
            shown.append(_shown(told, call, state))
    return json_reply(200, shown)


def network_inspect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """GET /networks/{network}."""
    found = yield from lookup.own_network(state, call.actor, call.names["network"])
    return json_reply(200, _shown(found.inspect, call, state))


def _shown(told: dict[str, Any], call: GateRequest, state: GateState) -> dict[str, Any]:
    """Return a network with those of its containers that the caller may see."""
    containers = {
        identifier: endpoint
        for identifier, endpoint in (told.get("Containers") or {}).items()
        if (item := state.inventory.containers.get(identifier)) is not None
        and sees(call.actor, item.owner)
    }
    return {**told, "Containers": containers}


def create(call: GateRequest, state: GateState) -> Flow[Reply]:
    """POST /networks/create."""
    request = schema.parse_network(call.body)
    policy = call.policy
    existing = yield from lookup.network(state, request.name)
    if existing is not None and existing.belonging is None:
        # What an open intent made isn't in the inventory yet: it is nobody else's for that.
        refuse_if_held(state, Mutation.NETWORK_CREATE, request.name, under_way=True)
    judged = admitted(
        admission.admit_network(
            request,
            actor=call.actor,
            policy=policy,
            existing=None if existing is None else existing.facts,
            stamp=Stamp(instance=state.instance, intent=call.id),
            routes=state.routes() if request.pools else (),
        )
    )
    return (yield from perform(state, call.by, network_change(request.name, judged), learn_network))


def remove(call: GateRequest, state: GateState) -> Flow[Reply]:
    """DELETE /networks/{network}."""
    found = yield from lookup.own_network(state, call.actor, call.names["network"])
    identifier = found.facts.id
    if found.belonging is not None:
        disruption_budget.refuse_clients(call, found.belonging.origin, found.facts.name)
    change = Change(
        Mutation.NETWORK_REMOVE,
        identifier,
        "DELETE",
        f"/networks/{identifier}",
        _place(found),
        ALLOW,
        deadline_s=15.0,
    )
    return (yield from perform(state, call.by, change))


def _place(found: FoundNetwork) -> dict[str, object]:
    facts = found.facts
    return {"name": facts.name, "owner": facts.owner, "namespace": facts.namespace}


def connect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """POST /networks/{network}/connect."""
    return (yield from _join(call, state, leave=False))


def disconnect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """POST /networks/{network}/disconnect."""
    return (yield from _join(call, state, leave=True))


def _join(call: GateRequest, state: GateState, *, leave: bool) -> Flow[Reply]:
    name = call.names["network"]
    parse = schema.parse_disconnect if leave else schema.parse_connect
    request = parse(call.body, network=name)
    found = yield from lookup.container(state, call.actor, request.container)
    disruption_budget.refuse_clients(call, found.item.origin, found.item.admitted.name)
    network = (
        yield from lookup.network_to_leave(state, call.actor, name, found)
        if leave
        else lookup.own_network(state, call.actor, name)
    )
    # What is judged is the network that was found, however the client called it.
    request = replace(request, endpoint=replace(request.endpoint, network=network.facts.name))
    judge = admission.admit_disconnect if leave else admission.admit_connect
    judged = admitted(
        judge(
            request,
            actor=call.actor,
            policy=call.policy,
            current=container_facts(found),
            network=network.facts,
        )
    )
    item = found.item
    verb = "disconnect" if leave else "connect"
    change = Change(
        Mutation(call.route.name),
        item.id,
        "POST",
        f"/networks/{network.facts.id}/{verb}",
        {
            **place_of(item),
            **judged.summary,
            "network": network.facts.name,
        },
        judged.verdict,
        body=judged.body,  # with the container's full id, whatever the client called it
        deadline_s=15.0,
    )
    if leave:
        return (yield from perform(state, call.by, change))
    mine = name_conflicts.joining(found, network.facts.name, request.endpoint.aliases)
    with name_conflicts.answers_to(call, state, mine):
        return (yield from perform(state, call.by, change))
