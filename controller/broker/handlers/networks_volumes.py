"""Networks and volumes of this instance, and the addresses in its networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from controller.broker import signed_acts
from controller.broker.gate import redact
from controller.broker.gate.call import (
    Author,
    Flow,
    GateRequest,
    parse_json,
    read_json,
    read_members,
    read_rows,
)
from controller.broker.gate.commands import EndConnections, Rows
from controller.broker.gate.journal_entries import place_of
from controller.broker.gate.mutate import (
    Change,
    OutcomeDetails,
    perform,
    refuse_if_held,
)
from controller.broker.gate.refusals import Denied, raise_if_denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState, reserving
from controller.broker.guards import conflicts, disruption_budget, lists, lookup
from controller.broker.guards.lists import ListRows
from controller.broker.guards.lookup import (
    OwnContainer,
    can_see,
    can_see_host,
    container_facts,
    owned_network,
    owned_volume,
)
from controller.broker.guards.recovery import forget_gone
from controller.broker.wire import json_reply, refusal
from controller.core.addresses import key_of, slot_address, slot_key, subnets_of, with_addresses
from controller.core.admission import networks_volumes
from controller.core.enforcement.limits import all_counted, count
from controller.core.engine_api import parse
from controller.core.engine_api.translate import HELD, OUTSIDERS
from controller.core.records.parts import (
    EndpointPart,
    NetworkPart,
    RequestPart,
    ResultPart,
    SummaryPart,
)
from controller.core.rules.context import (
    NetworkFacts,
    QuotaCounts,
    Stamp,
    VolumeFacts,
    requested_place,
)
from controller.core.rules.networks import implied_kind
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.inventory import VOLUME, ContainerItem, Inventory
from controller.model.mutations import Mutation
from controller.model.records import ALLOW, Actor, Reply, Role


def taken_subnets(state: GateState) -> Flow[tuple[str, ...]]:
    """Return the networks that a new subnet must not overlap.

    They are the engine's, those whose creation is in progress, and the routes of the engine's host.
    """
    listed = yield from read_members("/networks")
    requests = (RequestPart.read(intent.request) for intent in state.inventory.open.values())
    under_way = (
        subnet for request in requests for subnet in request.summary.part(NetworkPart).subnets
    )
    return (*subnets_of(listed), *under_way, *state.routes())


#: The beginning of an endpoint's key, in place of the id of a container that is starting.
ENDPOINT = "ep-"


def reserve(
    call: GateRequest, state: GateState, slot: str, judged: AdmissionDecision
) -> AbstractContextManager[None]:
    """Keep the addresses chosen for a slot from others, until the inventory remembers them.

    Other requests are judged before the intent is durable.
    """
    chosen = EndpointPart.read(judged.summary).slot_addresses
    return reserving(state.reservations.addresses, {call.id: (slot, chosen)})


def _known(state: GateState) -> Inventory:
    """Return the inventory with the addresses that requests in progress have chosen."""
    inventory = state.inventory
    for slot, named in state.reservations.addresses.values():
        inventory = replace(inventory, addresses=with_addresses(inventory, slot, named))
    return inventory


def of_slot(
    state: GateState,
    labels: Mapping[str, Any],
    networks: Mapping[str, NetworkFacts],
    asked: Mapping[str, str],
) -> dict[str, str]:
    """Return the addresses for a new container of a slot, by the name of the network.

    *asked* are those that its document chose.

    Other containers of the slot let go of the address before the new one starts. A container of a
    client, and the run of a job, has no slot.
    """
    slot = slot_of(labels)
    namespace, service, number = slot.split("/")
    if not number.isdecimal():
        return {}
    items = state.inventory.items.of_service(namespace, service)
    own = {item.id for item in items if key_of(item) == slot}
    return {
        name: slot_address(
            _known(state),
            slot,
            network=facts.id,
            subnet=facts.subnet,
            held=facts.held,
            own=own,
            asked=asked.get(name, ""),
        )
        for name, facts in networks.items()
        if facts.subnet
    }


def held_by_others(state: GateState, network: Mapping[str, Any]) -> dict[str, str]:
    """Return the containers outside of the inventory at addresses of slots: the name by address.

    *network* is the inspect of a network. Somebody named the address on the engine's own socket. While a
    container starts, the engine shows its endpoint in place of its id: that is nobody's yet.
    """
    known = {*state.inventory.addresses.get(str(network.get("Id", "")), {}).values()}
    held = {
        str(end.get("IPv4Address") or "").partition("/")[0]: str(end.get("Name") or identifier)
        for identifier, end in (network.get("Containers") or {}).items()
        if identifier not in state.inventory.containers and not identifier.startswith(ENDPOINT)
    }
    return {address: name for address, name in sorted(held.items()) if address in known}


def slot_of(labels: Mapping[str, Any]) -> str:
    """Return the key of the slot that the labels of a new container name."""
    namespace, service, number = (
        str(labels.get(name, "")) for name in (names.NAMESPACE, names.SERVICE, names.SLOT)
    )
    return slot_key(namespace, service, number)


def ends_connections(
    state: GateState, call: GateRequest, found: OwnContainer, network: NetworkFacts
) -> EndConnections | None:
    """Return how connections end before the controller takes a container from an address that clients know.

    It is that of its slot, or another one under its service's name. None if the container is at neither.
    """
    at = {container: address for address, container in network.held.items()}.get(found.item.id, "")
    slot = key_of(found.item)
    if call.actor.role is not Role.CONTROLLER or not at or not slot or not network.subnet:
        return None
    joined = (found.inspect.get("NetworkSettings") or {}).get("Networks") or {}
    named = found.item.service in ((joined.get(network.name) or {}).get("Aliases") or ())
    if not named and state.inventory.addresses.get(network.id, {}).get(slot) != at:
        return None
    pid = (found.inspect.get("State") or {}).get("Pid")
    return EndConnections(pid if isinstance(pid, int) else 0, found.item.id, at)


def of_item(state: GateState, item: ContainerItem, network: NetworkFacts) -> Flow[str]:
    """Return the address of a container's slot in a network; '' while another container has it.

    A container without a place in the network (``engine.responses``) has it until its end.
    """
    slot = key_of(item)
    if not slot or not network.subnet:
        return ""
    items = state.inventory.items.of_service(item.namespace, item.service)
    others = {each.id for each in items if key_of(each) == slot} - {item.id, *network.held.values()}
    for other in sorted(others):
        inspect = (yield from read_json(f"/containers/{other}/json")) or {}
        joined = ((inspect.get("NetworkSettings") or {}).get("Networks") or {}).values()
        here = any((end or {}).get("NetworkID") == network.id for end in joined)
        if here and (inspect.get("State") or {}).get("Running") is True:
            return ""
    return slot_address(
        _known(state), slot, network=network.id, subnet=network.subnet, held=network.held
    )


QUOTA_RULES = "quota."
FORGET_AGAIN_S = 1.0
#: The engine's words for a size without project quotas below its folder (moby volume/local).
NO_QUOTA = b"quota size requested but no quota support"
VOLUME_RACED = "somebody made a volume of that name meanwhile"


def judge_within_quotas(
    state: GateState,
    judge: Callable[[], AdmissionDecision],
    is_taken: Callable[[AdmissionDecision], bool] = lambda _judged: False,
) -> Flow[AdmissionDecision]:
    """Return the admission; nothing is yielded between counting and admitting.

    *is_taken*: something else that the object needs may still be held by a removed one.

    Raises:
        Denied: admission denies the create.
    """
    judged = judge()
    if (is_over_quota(judged) or is_taken(judged)) and (yield from forget_again(state)):
        # Objects that were removed behind the broker's back still counted.
        judged = judge()
    return raise_if_denied(judged)


def forget_again(state: GateState) -> Flow[int]:
    """Drop removed objects. Many refusals in a second cost one look at the engine's lists."""
    now = state.clock.monotonic()
    if state.forgot_at is not None and now - state.forgot_at < FORGET_AGAIN_S:
        return 0
    state.forgot_at = now
    return (yield from forget_gone(state))


def is_over_quota(judged: AdmissionDecision) -> bool:
    """Return True if a quota is among the reasons of a denial."""
    verdict = judged.verdict
    return verdict.decision == "deny" and any(r.startswith(QUOTA_RULES) for r in verdict.rules)


def _counts(
    call: GateRequest, state: GateState, labels: tuple[tuple[str, str], ...]
) -> QuotaCounts:
    """Return the counts for a new network or volume with the requested labels."""
    owner = requested_place(dict(labels), call.actor, call.policy).owner
    counted = all_counted(state.inventory, state.reservations.objects)
    return count(counted, owner=owner, role=call.actor.role)


# Networks


def network_list(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /networks``."""
    rows = ListRows(call.actor)

    def encode(row: dict[str, Any]) -> bytes | None:
        owned = owned_network(state, row)
        if owned is None or not can_see(call.actor, owned.owner):
            return None
        return rows.encode(_visible_network(row, call, state), owned.owner)

    adopted = any(each.adopted for each in state.inventory.networks.values())
    path = _list_path(call, state, "/networks", lists.NETWORK_KEYS, adopted=adopted)
    return rows.finish((yield from read_rows(path, Rows(encode))))


def _list_path(
    call: GateRequest, state: GateState, path: str, known: frozenset[str], *, adopted: bool
) -> str:
    """Return the path of the engine's list of the caller's objects, with the caller's filters.

    *adopted*: the inventory has adopted objects.
    """
    asked = lists.parse_filters(call.query.get("filters", ""), known)
    shown = lists.restrict_filters(asked, state, call.actor, adopted=adopted)
    return build_path(path, {"filters": lists.encode_filters(shown)} if shown else {})


def network_inspect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /networks/{network}``."""
    found = yield from lookup.find_own_network(state, call.actor, call.names["network"])
    return json_reply(200, _visible_network(found.inspect, call, state))


def _visible_network(
    inspect: dict[str, Any], call: GateRequest, state: GateState
) -> dict[str, Any]:
    """Return a network with only the caller's containers.

    Only the controller and operators are told how many others there are, and which of them are at
    addresses of slots.
    """
    everyone = inspect.get("Containers") or {}
    containers = {
        identifier: endpoint
        for identifier, endpoint in everyone.items()
        if (item := state.inventory.containers.get(identifier)) is not None
        and can_see(call.actor, item.owner)
    }
    if call.actor.role is Role.CLIENT:
        return {**inspect, "Containers": containers}
    outsiders = len(everyone) - sum(
        item.origin == Role.CONTROLLER.value
        for identifier in everyone
        if (item := state.inventory.containers.get(identifier)) is not None
    )
    held = held_by_others(state, inspect)
    told = {OUTSIDERS: outsiders, HELD: held}
    return {**inspect, "Containers": containers, **{k: each for k, each in told.items() if each}}


def network_create(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /networks/create``."""
    request = parse.parse_network(call.body)
    policy = call.policy
    existing = yield from lookup.find_network(state, request.name)
    ours = existing is not None and existing.owned is not None
    lookup.refuse_if_present(call, request.name, ours=ours)
    if existing is not None and existing.owned is None:
        # The object of an open intent isn't in the inventory yet, but isn't foreign either.
        refuse_if_held(state, Mutation.NETWORK_CREATE, request.name, under_way=True)

    names_one = any(pool.subnet and ":" not in pool.subnet for pool in request.pools)
    chooses = call.actor.role is Role.CONTROLLER and not names_one
    subnets = (yield from taken_subnets(state)) if chooses else ()

    def judge() -> AdmissionDecision:
        return networks_volumes.admit_network(
            request,
            actor=call.actor,
            policy=policy,
            existing=None if existing is None else existing.facts,
            stamp=Stamp(instance=state.instance, intent=call.id),
            routes=state.routes() if request.pools else (),
            counts=_counts(call, state, request.labels),
            subnets=subnets,
        )

    judged = yield from judge_within_quotas(state, judge)
    proof = signed_acts.proof_of_object(call, state, "network", request.name)
    change = network_change(request.name, signed_acts.with_proof(judged, proof))
    return (yield from perform(state, call.by, change, network_details))


def network_remove(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``DELETE /networks/{network}``.

    Raises:
        Denied: ``network.shared``: other owners' containers of the namespace join the network too,
            whoever was the first. ``network.adopted``: only operators remove an adopted network.
    """
    name = call.names["network"]
    finding = lookup.find_own_network(state, call.actor, name)
    found = yield from lookup.refuse_if_gone(call, finding, f"the network {redact.text(name)}")
    identifier = found.facts.id
    lookup.refuse_if_other(call, identifier)
    if found.owned is not None:
        disruption_budget.refuse_client_objects(call, found.owned.origin, found.facts.name)
        if found.owned.adopted and call.actor.role is Role.CONTROLLER:
            raise Denied(
                "network.adopted",
                f"{found.facts.name} was made by others, and adopted by an operator",
                "remove it as an operator, if nobody needs it",
                subject=found.facts.name,
            )
    shared = implied_kind(call.policy, found.facts.name, found.facts.namespace)
    if shared and call.actor.role is Role.CLIENT:
        raise Denied(
            "network.shared",
            f"{found.facts.name} is the network of the namespace {found.facts.namespace}, not only "
            "of the caller's containers",
            "leave it: it holds nothing, and the next container joins it again",
            subject=found.facts.name,
        )
    connected = found.inspect.get("Containers") or {}
    yield from disruption_budget.refuse_network_removal(call, state, found.facts.name, connected)
    path = f"/networks/{identifier}"
    summary = _summary(found.facts)
    change = Change.of(Mutation.NETWORK_REMOVE, identifier, path, AdmissionDecision(ALLOW), summary)
    return (yield from perform(state, call.by, change))


def _summary(facts: NetworkFacts | VolumeFacts) -> dict[str, object]:
    return SummaryPart(name=facts.name, owner=facts.owner, namespace=facts.namespace).members


def network_connect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /networks/{network}/connect``."""
    return (yield from _join(call, state, leave=False))


def network_disconnect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /networks/{network}/disconnect``."""
    return (yield from _join(call, state, leave=True))


def _join(call: GateRequest, state: GateState, *, leave: bool) -> Flow[Reply]:
    name = call.names["network"]
    parse_body = parse.parse_disconnect if leave else parse.parse_connect
    request = parse_body(call.body, network=name)
    found = yield from lookup.find_expected(call, state, request.container)
    disruption_budget.refuse_client_objects(call, found.item.origin, found.item.admitted.name)
    network = (
        yield from lookup.find_network_to_leave(state, call.actor, name, found)
        if leave
        else lookup.find_own_network(state, call.actor, name)
    )
    # Judge the network under its real name, whatever the client called it.
    request = replace(request, endpoint=replace(request.endpoint, network=network.facts.name))
    facts = network.facts
    judge = (
        networks_volumes.admit_disconnect
        if leave
        else partial(
            networks_volumes.admit_connect,
            mode_network=(yield from _mode_network(call, state, found, facts)),
            address=(yield from of_item(state, found.item, facts)),
        )
    )
    # Last: another connect can have been admitted during the look-ups.
    current = container_facts(found, conflicts.networks_joined(state, found.item.id))
    judged = raise_if_denied(
        judge(
            request,
            actor=call.actor,
            policy=call.policy,
            current=current,
            network=facts,
            now=state.clock.now(),
        )
    )
    if leave:
        judged = yield from disruption_budget.enforce_budget(
            call, state, found, judged, network=network.facts.name
        )
    else:
        disruption_budget.refuse_overtaking(call, state, found.item.id)
        signed_acts.refuse_unsigned_join(call, state, found.item, network.facts.name)
    item = found.item
    path = f"/networks/{network.facts.id}/{call.verb}"
    summary = {**place_of(item), **judged.summary, "network": network.facts.name}
    if not leave:
        summary |= EndpointPart(network_ids={network.facts.name: network.facts.id}).members
    # The body has the container's full id, whatever the client called it.
    change = Change.of(Mutation(call.route.name), item.id, path, judged, summary)
    if leave:
        ending = ends_connections(state, call, found, facts)
        if ending is None:
            return (yield from perform(state, call.by, change))
        reply = yield from perform(state, call.by, change, prepare=partial(_end_first, ending))
        yield replace(ending, address="")
        return reply
    mine = conflicts.names_after_join(state, found, network.facts.name, request.endpoint.aliases)
    with (
        reserve(call, state, key_of(item), judged),
        conflicts.reserve_names(call, state, mine),
    ):
        return (yield from perform(state, call.by, change))


def _mode_network(
    call: GateRequest, state: GateState, found: OwnContainer, network: NetworkFacts
) -> Flow[NetworkFacts | None]:
    """Return the network of a container's mode, if the container joins an ingress network."""
    if implied_kind(call.policy, network.name, network.namespace) != "ingress":
        return None
    mode = container_facts(found).network_mode
    of_mode = yield from lookup.find_network(state, mode)
    return None if of_mode is None else of_mode.facts


def _end_first(ending: EndConnections, change: Change) -> Flow[Change]:
    """End the connections of a container before the engine takes its interface away."""
    yield ending
    return change


def network_change(name: str, judged: AdmissionDecision) -> Change:
    """Return the change that creates an admitted network."""
    summary = {"name": name, **judged.summary}
    return Change.of(Mutation.NETWORK_CREATE, name, "/networks/create", judged, summary)


def network_details(reply: Reply) -> Flow[ResultPart]:
    """Return the id of a new network, for the outcome."""
    yield from ()
    return ResultPart(object=str(parse_json(reply).get("Id", "")))


# Volumes


def volume_list(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /volumes``."""
    rows = ListRows(call.actor)

    def encode(row: dict[str, Any]) -> bytes | None:
        owned = owned_volume(state, row)
        if owned is None or not can_see(call.actor, owned.owner):
            return None
        return rows.encode(_visible_volume(row, call.actor), owned.owner)

    adopted = any(each.adopted for each in state.inventory.volumes.values())
    path = _list_path(call, state, "/volumes", lists.VOLUME_KEYS, adopted=adopted)
    return rows.finish((yield from read_rows(path, Rows(encode, "Volumes"))))


def volume_inspect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /volumes/{volume}``."""
    found = yield from lookup.find_own_volume(state, call.actor, call.names["volume"])
    return json_reply(200, _visible_volume(found.inspect, call.actor))


def _visible_volume(inspect: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """Return a volume for this actor: the mount point is empty except for operators."""
    return inspect if can_see_host(actor) else {**inspect, "Mountpoint": ""}


def volume_create(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /volumes/create``, after a look-up: the engine accepts an existing name."""
    policy, stamp = call.policy, Stamp(instance=state.instance, intent=call.id)
    actor = call.actor
    if actor.role is Role.OPERATOR and state.inventory.restored_from:
        actor = replace(actor, role=Role.CONTROLLER)  # a volume of documents, from a backup
    request = parse.parse_volume(call.body)
    request = networks_volumes.named_volume(request, actor=actor, policy=policy, stamp=stamp)
    existing = yield from lookup.find_volume(state, request.name)
    ours = existing is not None and existing.owned is not None
    lookup.refuse_if_present(call, request.name, ours=ours)
    if existing is not None and existing.owned is None:
        # The object of an open intent isn't in the inventory yet, but isn't foreign either.
        refuse_if_held(state, Mutation.VOLUME_CREATE, request.name, under_way=True)

    def judge() -> AdmissionDecision:
        return networks_volumes.admit_volume(
            request,
            actor=actor,
            policy=policy,
            existing=None if existing is None else existing.facts,
            stamp=stamp,
            counts=_counts(call, state, request.labels),
        )

    judged = yield from judge_within_quotas(state, judge)
    proof = signed_acts.proof_of_object(call, state, "volume", request.name)
    if existing is not None:
        return json_reply(201, _visible_volume(existing.inspect, call.actor))
    judged = signed_acts.with_proof(judged, proof)
    reply = yield from create_admitted_volume(state, call.by, request.name, judged)
    if reply.status >= 400:
        return _size_refusal(call, reply) or reply
    return json_reply(reply.status, _visible_volume(parse_json(reply), call.actor))


def _size_refusal(call: GateRequest, reply: Reply) -> Reply | None:
    """Return the refusal of a size that the engine's storage can't hold; None for another error.

    The engine's answer to the create is the only probe: the engine creates nothing then, and no other
    route of its API says whether the storage has project quotas.
    """
    if NO_QUOTA not in reply.body:
        return None
    return refusal(
        reply.status,
        "volume.no-quota",
        f"this engine's storage can't hold a size: {NO_QUOTA.decode()}",
        remedy="leave out the size; or put the engine's folder on XFS or ext4 mounted with prjquota, "
        "and restart the engine",
        record=call.id,
    )


def create_admitted_volume(
    state: GateState, by: Author, name: str, judged: AdmissionDecision
) -> Flow[Reply]:
    """Create an admitted volume; 409 if somebody else created the same name meanwhile."""
    summary = {"name": name, **judged.summary}
    change = Change.of(Mutation.VOLUME_CREATE, name, "/volumes/create", judged, summary)
    reply = yield from perform(state, by, change, _volume_details(by.id))
    if reply.status >= 400 or _was_created_by(by.id, parse_json(reply)):
        return reply
    return refusal(409, "name.foreign", VOLUME_RACED, record=by.id)


def _was_created_by(intent: str, inspect: dict[str, Any]) -> bool:
    return (inspect.get("Labels") or {}).get(names.INTENT) == intent


def _volume_details(intent: str) -> OutcomeDetails:
    def learn(reply: Reply) -> Flow[ResultPart]:
        yield from ()
        volume = parse_json(reply)
        if not _was_created_by(intent, volume):
            return ResultPart(status=409, error=VOLUME_RACED)
        return ResultPart(object=str(volume.get("Name", "")))

    return learn


def volume_remove(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``DELETE /volumes/{volume}``. The controller needs a dump, and an approval."""
    found = yield from lookup.find_own_volume(state, call.actor, call.names["volume"])
    facts = found.facts
    if hold := state.inventory.holds.get(facts.name):
        raise Denied(
            "volume.held",
            f"the volume {facts.name} is held for a {hold.act}, see record {hold.id}",
            "wait for its end",
            status=409,
            subject=facts.name,
        )
    verdict = ALLOW
    if call.actor.role is Role.CONTROLLER:
        # Mutations are judged one at a time, so two requests can't use up one approval.
        approval = disruption_budget.approval_of(call, state, f"{VOLUME}{facts.name}")
        if approval is None:
            raise Denied(
                "volume.approval",
                f"removing the volume {facts.name} removes data, and no operator approved that",
                "let an operator remove it, or approve it for the plan that is sent",
                subject=facts.name,
            )
        if found.owned is not None and (found.owned.adopted or not found.owned.dumped):
            fault = "was adopted" if found.owned.adopted else "was never dumped"
            raise Denied(
                "volume.not-dumped",
                f"the volume {facts.name} {fault}: the controller doesn't remove its data",
                f"trimtab volume dump {facts.name} -o FILE, or remove it as an operator",
                subject=facts.name,
            )
        verdict = disruption_budget.with_approval(ALLOW, approval)
    change = Change.of(
        Mutation.VOLUME_REMOVE,
        facts.name,
        f"/volumes/{facts.name}",
        AdmissionDecision(verdict),
        _summary(facts),
    )
    return (yield from perform(state, call.by, change))
