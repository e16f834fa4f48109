"""Removal of what a person doesn't use: the sum of single removals, each judged and recorded.

Only objects that people of the caller's owner made are removed, never those of documents. An object whose
removal is refused, or that is used meanwhile, stays. At most ``PRUNE_MAX`` objects are removed at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from controller.broker.gate.call import Flow, GateRequest, read_members
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.routes import route_named
from controller.broker.gate.state import GateState
from controller.broker.guards import lists
from controller.broker.handlers import container_lifecycle, networks_volumes
from controller.broker.wire import json_reply
from controller.core.admission.networks_volumes import ANONYMOUS
from controller.core.rules.networks import implied_kind
from controller.model.inventory import ContainerItem, OwnedObject
from controller.model.mutations import Mutation
from controller.model.policy.document import OPERATOR_OWNER
from controller.model.records import Reply, Role

#: Most objects that one request removes.
PRUNE_MAX = 100
_KEYS = frozenset({"label"})
_VOLUME_KEYS = frozenset({"all", "label"})

Remove = Callable[[GateRequest, GateState], Flow[Reply]]


def containers(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /containers/prune``: remove the caller's containers that don't run."""
    found = state.inventory.containers
    stopped = {"status": ["created", "exited", "dead"]}
    rows = yield from _listed(call, state, "/containers/json", stopped, _KEYS, "Id")
    own = _own(call, ((each, found.get(each)) for each in rows))
    remove = container_lifecycle.remove
    gone = yield from _remove_all(call, state, Mutation.CONTAINER_REMOVE, own, remove)
    return gone if isinstance(gone, Reply) else _told("ContainersDeleted", gone)


def networks(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /networks/prune``: remove the caller's networks without a running container."""
    found = state.inventory.networks
    rows = yield from _listed(call, state, "/networks", {"dangling": ["true"]}, _KEYS, "Id")
    own = [
        each
        for each in _own(call, ((each, found.get(each)) for each in rows))
        if not implied_kind(call.policy, found[each].name, found[each].namespace)
    ]
    remove = networks_volumes.network_remove
    gone = yield from _remove_all(call, state, Mutation.NETWORK_REMOVE, own, remove)
    if isinstance(gone, Reply):
        return gone
    return _told("NetworksDeleted", [found[each].name for each in gone])


def volumes(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /volumes/prune``: remove the caller's unused volumes.

    With the filter ``all`` those with a name, too: without it, none of these.
    """
    found = state.inventory.volumes
    unused = {"dangling": ["true"]}
    rows = yield from _listed(call, state, "/volumes", unused, _VOLUME_KEYS, "Name", "Volumes")
    own = _own(call, ((each, found.get(each)) for each in rows))
    remove = networks_volumes.volume_remove
    gone = yield from _remove_all(call, state, Mutation.VOLUME_REMOVE, own, remove)
    return gone if isinstance(gone, Reply) else _told("VolumesDeleted", gone)


def _listed(
    call: GateRequest,
    state: GateState,
    path: str,
    unused: lists.Filters,
    known: frozenset[str],
    member: str,
    of: str = "",
) -> Flow[list[str]]:
    """Return the ids or names of the engine's unused objects, as far as the caller's filters want them."""
    asked = lists.parse_filters(call.query.get("filters", ""), known)
    every = asked.pop("all", ["false"]) in (["true"], ["1"])
    if of and not every:
        asked["label"] = [*asked.get("label", []), ANONYMOUS]
    filters = lists.restrict_filters({**asked, **unused}, state, call.actor)
    query = {"filters": lists.encode_filters(filters)}
    if path.startswith("/containers"):
        query["all"] = "1"
    rows = yield from read_members(build_path(path, query), member, of=of)
    return [str(row.get(member, "")) for row in rows]


def _own(
    call: GateRequest, found: Iterable[tuple[str, ContainerItem | OwnedObject | None]]
) -> Iterator[str]:
    """Yield the objects that people of the caller's owner made."""
    owner = call.actor.owner or OPERATOR_OWNER
    for identifier, item in found:
        if item is not None and (item.owner, item.origin) == (owner, Role.CLIENT.value):
            yield identifier


def _remove_all(
    call: GateRequest, state: GateState, route: Mutation, objects: Iterable[str], remove: Remove
) -> Flow[list[str] | Reply]:
    """Return the removed objects; the reply of a broker or an engine that fails.

    Each removal is a request of its own: judged, recorded, and without force.
    """
    served, gone = route_named(route), list[str]()
    assert served is not None, "every removal has a route"
    kind = route.partition(".")[0]
    for identifier in list(objects)[:PRUNE_MAX]:
        single = replace(
            call, id=state.new_id(), route=served, names={kind: identifier}, query={}, body=None
        )
        try:
            reply = yield from remove(single, state)
        except (Denied, Answered):
            continue
        if reply.status >= 500:
            return reply
        if reply.status < 300:
            gone.append(identifier)
    return gone


def _told(member: str, gone: list[str]) -> Reply:
    return json_reply(200, {member: gone or None, "SpaceReclaimed": 0})
