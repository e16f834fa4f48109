"""The networks of adopted containers, and the look-up of containers of nobody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import Author, Flow, GateRequest, read_json, read_members
from controller.broker.gate.journal_entries import place_of
from controller.broker.gate.mutate import Change, perform
from controller.broker.gate.refusals import Answered, message_reply
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards import lists, lookup
from controller.broker.handlers import container_create
from controller.core.encoding.json_values import mapping_of, texts_of
from controller.core.records.parts import EndpointPart
from controller.core.rules.context import COMPOSE_SERVICE
from controller.core.rules.verdict import AdmissionDecision
from controller.model.inventory import ContainerItem
from controller.model.mutations import Mutation
from controller.model.names import spelled
from controller.model.records import Reply, Verdict

#: Labels of docker compose.
COMPOSE_PROJECT = "com.docker.compose.project"
COMPOSE_NUMBER = "com.docker.compose.container-number"
COMPOSE_ONEOFF = "com.docker.compose.oneoff"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)
_LIKE_AN_ID = re.compile(r"[0-9a-f]{12,64}", re.ASCII)
_SHORT_ID = 12
_RULE = "adopt.network"


def find_foreign(name: str) -> Flow[dict[str, Any] | None]:
    """Return the engine's inspect of the container with exactly a name, or with an id, or None.

    The engine resolves names before ids. A container with a name in the form of an id could stand
    for another container, and is not found.
    """
    if not _NAME.fullmatch(name):
        return None
    try:
        inspect = yield from read_json(f"/containers/{name}/json")
    except Answered as answered:
        if answered.reply.status == 400:  # a prefix of several ids
            return None
        raise
    if not isinstance(inspect, dict):
        return None
    if _LIKE_AN_ID.fullmatch(name):
        return inspect if str(inspect.get("Id", "")).startswith(name) else None
    return inspect if name == str(inspect.get("Name") or "").removeprefix("/") else None


def project_containers(state: GateState, project: str) -> Flow[list[dict[str, str]]]:
    """Return the foreign containers of a compose project, by labels.

    Labels choose the shown containers, and nothing else: the adoption judges each container.
    """
    filters = lists.encode_filters({"label": [f"{COMPOSE_PROJECT}={project}"]})
    path = build_path("/containers/json", {"all": "1", "filters": filters})
    listed = yield from read_members(path, "Id", "Names", "State", "Labels")
    found = []
    for row in listed:
        labels = mapping_of(row.get("Labels"))
        if row.get("Id") in state.inventory.containers or labels.get(COMPOSE_ONEOFF) == "True":
            continue
        texts = {
            "name": next(iter(texts_of(row.get("Names"))), "").removeprefix("/"),
            "service": str(labels.get(COMPOSE_SERVICE, "")),
            "number": str(labels.get(COMPOSE_NUMBER, "")),
            "state": str(row.get("State", "")),
        }
        shown = {key: redact.text(text) for key, text in texts.items()}
        found.append({"id": str(row.get("Id", "")), **shown})
    return sorted(found, key=lambda each: (each["service"], each["number"], each["name"]))


def endpoints_of(body: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the networks of an admitted create, the first one first, with the aliases."""
    ends = mapping_of(mapping_of(body.get("NetworkingConfig")).get("EndpointsConfig"))
    first = str(mapping_of(body.get("HostConfig")).get("NetworkMode") or "")
    order = sorted(ends, key=lambda name: (name != first, name))
    return {name: texts_of(mapping_of(ends[name]).get("Aliases")) for name in order}


def others_in(state: GateState, network: str, together: frozenset[str]) -> Flow[list[str]]:
    """Return the containers in a network that are neither ours nor in the request."""
    path = lookup.network_path(network)
    inspect = (yield from read_json(path)) if path else None
    members = mapping_of(mapping_of(inspect).get("Containers"))
    return sorted(members.keys() - together - state.inventory.containers.keys())


def make_networks(
    call: GateRequest, state: GateState, lookups: container_create.Lookups
) -> Flow[None]:
    """Make the missing networks of the namespace, unless another container of the request did.

    Raises:
        Answered: the engine refuses.
    """
    for name in tuple(lookups.unmade):
        there = yield from lookup.find_network(state, name)
        if there is not None and there.owned is not None:
            del lookups.unmade[name]
    yield from container_create.make_implied(call, state, lookups)


def join(
    state: GateState, by: Author, item: ContainerItem, network: str, aliases: tuple[str, ...]
) -> Flow[Reply]:
    """Join an adopted container to a network of its document."""
    inspect = yield from read_json(f"/containers/{item.id}/json")
    ends = mapping_of(mapping_of(mapping_of(inspect).get("NetworkSettings")).get("Networks"))
    if network in ends:
        present = {*texts_of(mapping_of(ends[network]).get("Aliases"))} - {item.id[:_SHORT_ID]}
        if has_names(present, aliases, item.admitted.name):
            return Reply(200)
        reply = yield from leave(state, replace(by, id=state.new_id()), item, network)
        if reply.status >= 400:
            return reply
    found = yield from lookup.find_network(state, network)
    if found is None or found.owned is None:
        return message_reply(409, f"the network {network} isn't one of this instance")
    body: dict[str, object] = {"Container": item.id}
    if aliases:
        body["EndpointConfig"] = {"Aliases": list(aliases)}
    judged = AdmissionDecision(Verdict("allow", (_RULE,)), body)
    summary = place_of(item) | EndpointPart(network=network, aliases=aliases).members
    path = f"/networks/{found.facts.id}/connect"
    change = Change.of(Mutation.NETWORK_CONNECT, item.id, path, judged, summary)
    return (yield from perform(state, by, change))


def has_names(present: Iterable[str], aliases: Iterable[str], name: str) -> bool:
    """Return True if a container called *name* answers to the *aliases* of its document, and to no others.

    Docker compose doesn't give a service ``my_app`` the name ``my-app``: either spelling suffices.
    """
    found = {*present}
    return {*map(spelled, aliases)} <= {*map(spelled, found)} and found <= {*aliases, name}


def leave(state: GateState, by: Author, item: ContainerItem, network: str) -> Flow[Reply]:
    """Take an adopted container out of a network outside of the document."""
    found = yield from lookup.find_network(state, network)
    if found is None:
        return Reply(200)
    judged = AdmissionDecision(Verdict("allow", (_RULE,)), {"Container": item.id})
    summary = place_of(item) | EndpointPart(network=network).members
    path = f"/networks/{found.facts.id}/disconnect"
    change = Change.of(Mutation.NETWORK_DISCONNECT, item.id, path, judged, summary)
    return (yield from perform(state, by, change))
