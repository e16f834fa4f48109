"""Scrubbing: an engine error must not reveal foreign objects to a client.

The engine words its errors for the owner of the host, with the names of containers that hold a
name, a port, a volume or a network. For a client, ids and names of foreign objects are blanked,
except those in the client's own request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from controller.broker.gate.state import GateState
from controller.broker.guards.lookup import can_see
from controller.broker.wire.responses import json_reply
from controller.core.encoding.json_members import parse_object
from controller.model.records import Actor, Reply, Request, Role

BLANK = "…"
_ID = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{12,64}(?![0-9A-Za-z])", re.ASCII)
#: The form in which newer engines name the endpoints of a network.
_ATTACHED = re.compile(r'name:"(?P<name>[^"]*)"')


def scrub_reply(reply: Reply, request: Request, actor: Actor, state: GateState) -> Reply:
    """Return a reply for this caller: errors to clients are scrubbed."""
    if actor.role is not Role.CLIENT or reply.status < 400 or not reply.body:
        return reply
    error = parse_object(reply.body)
    message = error.get("message")
    if not isinstance(message, str):
        return reply
    said = f"{request.path}?{request.query} {request.body.decode(errors='replace')}"
    scrubbed = scrub_text(message, said, actor, state)
    if scrubbed == message:
        return reply
    return Reply(
        reply.status, json_reply(reply.status, {**error, "message": scrubbed}).body, reply.headers
    )


def scrub_text(message: str, said: str, actor: Actor, state: GateState) -> str:
    """Return an engine error without foreign names and ids, except those in *said*, the request."""
    own_ids, own_names = _visible_objects(actor, state)

    def identifier(match: re.Match[str]) -> str:
        found = match[0]
        known = found in said or any(each.startswith(found) for each in own_ids)
        return found if known else BLANK

    def attached(match: re.Match[str]) -> str:
        return match[0] if match["name"] in own_names else f'name:"{BLANK}"'

    text = _ATTACHED.sub(attached, _ID.sub(identifier, message))
    for name in _hidden_names(actor, state):
        if name in text and name not in said:
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", BLANK, text)
    return text


def _visible_objects(actor: Actor, state: GateState) -> tuple[set[str], set[str]]:
    known = state.inventory
    items = [item for item in known.containers.values() if can_see(actor, item.owner)]
    made = [*known.networks.values(), *known.volumes.values()]
    mine = [each for each in made if can_see(actor, each.owner)]
    ids = {item.id for item in items} | {each.id for each in mine}
    return ids, {item.admitted.name for item in items} | {each.name for each in mine}


def _hidden_names(actor: Actor, state: GateState) -> Iterator[str]:
    for item in state.inventory.containers.values():
        if item.admitted.name and not can_see(actor, item.owner):
            yield item.admitted.name
    for volume in state.inventory.volumes.values():
        if not can_see(actor, volume.owner):
            yield volume.name
