"""Admission of networks and volumes, and of joining and leaving networks."""

from __future__ import annotations

from dataclasses import replace

from controller.core.admission.engine_body import endpoint_body, origin_labels
from controller.core.effective import is_reserved
from controller.core.encoding.json_values import only_set
from controller.core.encoding.text import quote
from controller.core.engine_api.field_reader import members_of
from controller.core.engine_api.field_tables import IPAM_CONFIG
from controller.core.engine_api.mount_grammar import is_plain_volume, size_of_volume
from controller.core.engine_api.requests import (
    ICC,
    MACVLAN,
    MASQUERADE,
    PARENT,
    VOLUME_SIZE,
    ConnectRequest,
    Finding,
    Findings,
    Grant,
    NetworkRequest,
    RemoteVolume,
    RequestBody,
    VolumeRequest,
    read_remote,
)
from controller.core.policy.grants import with_grants
from controller.core.records.parts import EndpointPart, NetworkPart, SummaryPart
from controller.core.rules import context, host_routes, identity, networks, verdict
from controller.core.rules.images import is_slot_volume
from controller.core.rules.mounts import judge_remote
from controller.model import names
from controller.model.names import qualified
from controller.model.policy.document import Policy
from controller.model.quantities import KIB, format_bytes, parse_size
from controller.model.records import Actor, Role


def _is_own_existing(existing: context.NetworkFacts, actor: Actor, owner: str, kind: str) -> bool:
    """Return True if the actor owns the existing network of the same name.

    For such a create the engine answers that the network exists.
    """
    if not existing.ours:
        return False
    if kind:
        return networks.is_as_implied(existing, kind)
    return actor.role is Role.CONTROLLER or existing.owner == owner


def admit_network(
    request: NetworkRequest,
    *,
    actor: Actor,
    policy: Policy,
    existing: context.NetworkFacts | None,
    stamp: context.Stamp,
    routes: tuple[str, ...] = (),
    counts: context.QuotaCounts = context.NO_COUNTS,
    subnets: tuple[str, ...] = (),
) -> verdict.AdmissionDecision:
    """Judge a network create.

    *existing* is the network of the same name, if any; *routes* are the host's. *counts* count
    only for a new network, and *subnets* are those that it must not overlap.
    """
    place = context.requested_place(dict(request.labels), actor, policy)
    owner, namespace = place.owner, place.namespace
    kind = networks.implied_kind(policy, request.name, namespace)
    findings = [
        *request.findings,
        *identity.judge_owner(policy, actor.role, owner, namespace),
        *identity.judge_labels(request.labels, policy, actor.role, owner),
        *identity.judge_name(request.name, "Name", most=policy.names.max, least=1),
        *_network_name(request.name, actor, policy, namespace),
        *_network_kind(request, actor, policy, kind, owner, namespace),
        *host_routes.judge_pools(request, policy, routes),
    ]
    if existing is not None and not _is_own_existing(existing, actor, owner, kind):
        # A client gets the same answer for another owner's network and for a foreign network.
        facts = existing if kind else replace(existing, ours=False)
        findings.append(
            networks.foreign_network(facts, "Name", kind, actor, is_internal=request.internal)
        )
    if existing is None:
        findings += identity.judge_network_quota(policy, actor.role, owner, counts)
    if refused := verdict.enforced_findings(findings, policy.modes):
        return verdict.deny(with_grants(refused, policy, by_client=actor.role is Role.CLIENT))
    forced = actor.role is not Role.CONTROLLER and (policy.networks.client_internal or False)
    internal = request.internal or (forced and kind not in {"ingress", "bridge"})
    changes = []
    if internal and not request.internal:
        changes.append(verdict.AdmissionPatch("network.internal", "internal: no way out"))
    final = replace(request, internal=internal)
    if actor.role is Role.CONTROLLER:
        final = host_routes.with_slot_addresses(final, policy, subnets)
    label = namespace if actor.role is Role.CONTROLLER else ""
    decision = _admit_final_network(final, actor, owner, label, stamp, tuple(changes))
    return verdict.with_tolerated(decision, findings, policy.modes)


def _network_name(name: str, actor: Actor, policy: Policy, namespace: str) -> Findings:
    bases = (policy.networks.isolated, policy.networks.ingress, policy.networks.bridge)
    taken = any(name == base or name.startswith(f"{base}.") for base in bases)
    if actor.role is not Role.CONTROLLER:
        if taken or name in {"bridge", "host", "none", "default", "ingress"}:
            reason = f"{name!r} is the name of a network that the gate or the engine makes"
            yield Finding("name.reserved", "Name", reason, "choose another name")
        return
    yield from _in_namespace(name, namespace, "Name", context.implied(policy, namespace).all())
    if taken and name not in context.implied(policy, namespace).all():
        reason = f"{name!r} is the name of another namespace's network"
        yield Finding("name.reserved", "Name", reason, "choose another name")


def _in_namespace(name: str, namespace: str, path: str, besides: tuple[str, ...] = ()) -> Findings:
    """The controller names objects after their namespace, so that namespaces never share a name."""
    if name in besides:
        return
    own = name.removeprefix(qualified(namespace, ""))
    if not names.is_dns_label(own, length=63) or qualified(namespace, own) != name:
        reason = f"{name!r} isn't a name of the namespace {namespace!r}"
        yield Finding("name.mismatch", path, reason, f"call it {qualified(namespace, 'NAME')}")


#: The label of a volume that was made without a name.
ANONYMOUS = "com.docker.volume.anonymous"
_SIZE_PATH = f"DriverOpts.{VOLUME_SIZE}"
_NO_SIZE = (
    "leave out the size, or set resources.volumeMax of the policy where the engine's folder is on XFS "
    "or ext4 with project quotas (mount option prjquota)"
)
#: The properties of each implied network: internal, masquerade, inter-container traffic.
_SHAPES = {
    "isolated": (True, True, True),
    "ingress": (False, False, False),
    "bridge": (False, True, True),
}


def _network_kind(
    request: NetworkRequest, actor: Actor, policy: Policy, kind: str, owner: str, namespace: str
) -> Findings:
    if request.driver == MACVLAN and actor.role is Role.CONTROLLER and not kind:
        yield from host_routes.judge_macvlan(request, policy, owner=owner, namespace=namespace)
    elif request.driver not in {"", "bridge"}:
        reason = f"the driver {request.driver!r}"
        yield Finding("network.driver", "Driver", reason, "use bridge")
    for option in request.options:
        reason = f"the option {option!r} reaches past the container's own network"
        yield Finding("network.options", f"Options.{option}", reason, "leave it out")
    if request.ipv6 and not policy.networks.ipv6:
        reason = "IPv6 needs a firewall of its own (CVE-2024-32473)"
        permit = Grant("set", "networks.ipv6", True)
        yield Finding("network.ipv6", "EnableIPv6", reason, "leave it out", permit=permit)
    if kind and actor.role is Role.CONTROLLER:
        masquerade, icc = request.masquerade is not False, request.icc is not False
        if (request.internal, masquerade, icc) != _SHAPES[kind]:
            reason = f"{request.name} is the namespace's {kind} network, and must be made so"
            yield Finding("network.shape", "Name", reason, "leave that to the controller")
        if kind == "bridge" and "bridge" not in policy.networks.modes:
            reason = "the policy doesn't grant bridge"
            yield Finding("network.mode", "Name", reason, permit=networks.WAY_OUT)
        return
    if request.masquerade is not None or request.icc is not None:
        reason = "masquerading and inter-container traffic are set for ingress networks only"
        yield Finding("network.options", "Options", reason, "leave them out")
    opened = not request.internal and actor.role is Role.CONTROLLER
    if opened and "bridge" not in policy.networks.modes:
        reason = "a network with a way out needs the mode bridge, which the policy doesn't grant"
        permit = networks.WAY_OUT
        yield Finding("network.internal", "Internal", reason, "make it internal", permit=permit)


def _admit_final_network(
    request: NetworkRequest,
    actor: Actor,
    owner: str,
    namespace: str,
    stamp: context.Stamp,
    changes: tuple[verdict.AdmissionPatch, ...],
) -> verdict.AdmissionDecision:
    labels = _object_labels(request.labels, actor, owner, namespace, stamp)
    options = {
        name: "true" if value else "false"
        for name, value in ((MASQUERADE, request.masquerade), (ICC, request.icc))
        if value is not None
    }
    driver = request.driver or "bridge"
    options |= {PARENT: request.parent} if request.parent else {}
    body: RequestBody = {"Name": request.name, "Driver": driver, "Internal": request.internal}
    pools = [members_of(IPAM_CONFIG, pool) for pool in request.pools]
    ipam = {"Driver": "default", "Config": pools} if pools else None
    body |= only_set(EnableIPv6=request.ipv6, Options=options, IPAM=ipam, Labels=labels)
    summary = NetworkPart(
        name=request.name,
        labels={key: value for key, value in labels.items() if is_reserved(key)},
        internal=request.internal,
        subnets=tuple(pool.subnet for pool in request.pools),
    )
    return verdict.AdmissionDecision(verdict.verdict_of((), changes), body, summary=summary.members)


def _object_labels(
    asked: tuple[tuple[str, str], ...],
    actor: Actor,
    owner: str,
    namespace: str,
    stamp: context.Stamp,
) -> dict[str, str]:
    own = {key: value for key, value in asked if not is_reserved(key)}
    service = dict(asked).get(names.SERVICE)
    ours = origin_labels(actor, stamp) | {names.OWNER: owner, names.NAMESPACE: namespace}
    ours |= {names.SERVICE: service} if service else {}
    return dict(sorted({**own, **ours}.items()))


def admit_implied_network(
    name: str,
    *,
    actor: Actor,
    policy: Policy,
    stamp: context.Stamp,
    asked: tuple[str, str] = ("", ""),
    taken: tuple[str, ...] = (),
) -> verdict.AdmissionDecision:
    """Return the create of an implied network; the gate creates it on first use.

    *asked* are owner and namespace, which only the controller names. The subnet overlaps none of *taken*.
    """
    namespace = context.namespace_of(actor, asked[1], policy)
    kind = networks.implied_kind(policy, name, namespace)
    owner = context.owner_of(actor, asked[0])
    if not kind or (kind == "bridge" and "bridge" not in policy.networks.modes):
        reason = f"{name!r} isn't a network that {owner}'s containers imply"
        return verdict.deny([Finding("network.mode", "Name", reason)])
    internal, masquerade, icc = _SHAPES[kind]
    request = NetworkRequest(
        name=name,
        internal=internal,
        masquerade=None if masquerade else False,
        icc=None if icc else False,
    )
    request = host_routes.with_slot_addresses(request, policy, taken)
    # The namespace label marks the network as shared: other owners of the namespace join it too.
    # The controller uses the network if it exists, and does not remove it as its own.
    return _admit_final_network(request, actor, owner, namespace, stamp, ())


def named_volume(
    request: VolumeRequest, *, actor: Actor, policy: Policy, stamp: context.Stamp
) -> VolumeRequest:
    """Return a volume's create with a name, made from the intent if the request has none.

    Such a volume has the label by which the engine marks it, too.
    """
    if request.name or actor.role is Role.CONTROLLER or not policy.mounts.create_volumes:
        return request
    name = f"{context.owner_of(actor, '')}-{stamp.intent.replace('-', '')[-12:]}"
    labels = {**dict(request.labels), ANONYMOUS: ""}
    return replace(request, name=name, labels=tuple(labels.items()))


def admit_volume(
    request: VolumeRequest,
    *,
    actor: Actor,
    policy: Policy,
    existing: context.VolumeFacts | None,
    stamp: context.Stamp,
    counts: context.QuotaCounts = context.NO_COUNTS,
) -> verdict.AdmissionDecision:
    """Judge a volume create; *existing* is the volume of the same name, if any.

    For an existing name the engine answers with that volume, whoever the owner is. *counts* count
    only for a new volume.
    """
    place = context.requested_place(dict(request.labels), actor, policy)
    owner, namespace = place.owner, place.namespace
    by_controller = actor.role is Role.CONTROLLER
    findings = [
        *request.findings,
        *identity.judge_owner(policy, actor.role, owner, namespace),
        *identity.judge_labels(request.labels, policy, actor.role, owner),
        *identity.judge_name(request.name, "Name", most=policy.names.max),
    ]
    if by_controller:
        findings += _in_namespace(request.name, namespace, "Name")
    elif existing is None:
        findings += _judge_slot_volume_name(request.name)
    if request.driver not in {"", "local"}:
        reason = f"the driver {request.driver!r}"
        findings.append(Finding("volume.driver", "Driver", reason, "use local"))
    findings += _judge_volume_size(request.size, policy)
    if request.remote is not None:
        findings += judge_remote(
            request.remote, policy, owner=owner, namespace=namespace, path="DriverOpts"
        )
    if existing is not None:
        findings += _judge_existing(request, existing, actor, place)
    else:
        findings += identity.judge_volume_quota(policy, actor.role, owner, counts)
    if refused := verdict.enforced_findings(findings, policy.modes):
        return verdict.deny(with_grants(refused, policy, by_client=actor.role is Role.CLIENT))
    object_labels = _object_labels(
        request.labels, actor, owner, namespace if by_controller else "", stamp
    )
    decision = _admit_final_volume(
        request.name, object_labels, parse_size(request.size) or None, request.remote
    )
    return verdict.with_tolerated(decision, findings, policy.modes)


def _judge_existing(
    request: VolumeRequest, existing: context.VolumeFacts, actor: Actor, place: context.Placement
) -> Findings:
    by_controller = actor.role is Role.CONTROLLER
    same = existing.namespace == place.namespace if by_controller else existing.owner == place.owner
    plain = is_plain_volume(existing.driver, existing.options)
    if request.remote is not None and existing.driver == "local":
        plain = read_remote(dict(existing.options)) == request.remote
    if not existing.ours or not same or not plain:
        reason = f"{request.name} is taken by a volume that isn't yours, or isn't a plain one"
        remedy = "name another volume, or remove that one by hand if nobody needs its data"
        if existing.instance and not existing.ours and actor.role is not Role.CLIENT:
            remedy += f"; {identity.adopt_remedy(existing.instance)}"
        yield Finding("volume.foreign", "Name", reason, remedy)
    elif request.size and size_of_volume(existing.options) != parse_size(request.size):
        reason = f"{request.name} exists with another size, and a volume keeps its size"
        remedy = "leave out the size, or name another volume"
        yield Finding("volume.size", _SIZE_PATH, reason, remedy)


def _judge_volume_size(size: str, policy: Policy) -> Findings:
    """A volume has a size only on a host that the policy declares capable.

    The lower bound keeps sizes exact: the engine takes less than a block for no limit.
    """
    if not size:
        return
    most, count = policy.resources.volume_max, parse_size(size)
    if most is None:
        reason = "the policy doesn't say that this host's storage can bound a volume"
        yield Finding("resources.volume", _SIZE_PATH, reason, _NO_SIZE)
    elif count is None or not KIB <= count <= most:
        reason = f"expected a size from {KIB} bytes to {format_bytes(most)}"
        remedy = "ask for less" if count and count > most else "write a size such as 512m or 10g"
        yield Finding("resources.volume", _SIZE_PATH, reason, remedy)


def _judge_slot_volume_name(name: str) -> Findings:
    """Refuse a name in the form of a slot's volume: it could keep a replica from its volume."""
    if is_slot_volume(name):
        reason = f"{quote(name)} is a name as trimtab gives them to volumes of replicas"
        remedy = "choose another name, for the container if its image declares the volume"
        yield Finding("name.reserved", "Name", reason, remedy)


def admit_kept_volume(
    name: str, *, owner: str, namespace: str, service: str, actor: Actor, stamp: context.Stamp
) -> verdict.AdmissionDecision:
    """Return the create of a volume for a slot or a client's container.

    *namespace* is the one in the container's label, '' for a client's container.
    """
    if actor.role is not Role.CONTROLLER and (reserved := list(_judge_slot_volume_name(name))):
        return verdict.deny(reserved)
    asked = ((names.SERVICE, service),) if service else ()
    return _admit_final_volume(name, _object_labels(asked, actor, owner, namespace, stamp))


def _admit_final_volume(
    name: str,
    labels: dict[str, str],
    size: int | None = None,
    remote: RemoteVolume | None = None,
) -> verdict.AdmissionDecision:
    """Return the admission of a new volume. The engine gets the size in bytes, in one notation."""
    body: RequestBody = {"Name": name, "Driver": "local", "Labels": labels}
    if size is not None:
        body["DriverOpts"] = {VOLUME_SIZE: str(size)}
    if remote is not None:
        body["DriverOpts"] = remote.driver_options
    owned = {key: value for key, value in labels.items() if is_reserved(key)}
    summary = SummaryPart(name=name, labels=owned)
    return verdict.AdmissionDecision(verdict.verdict_of(()), body, summary=summary.members)


def admit_connect(
    request: ConnectRequest,
    *,
    actor: Actor,
    policy: Policy,
    current: context.ContainerFacts,
    network: context.NetworkFacts | None,
    now: float,
    mode_network: context.NetworkFacts | None = None,
    address: str = "",
) -> verdict.AdmissionDecision:
    """Judge a network connect of a container of the actor's by the rules of its create.

    A container may join the networks that its create could have named, as one more endpoint: by its
    mode, its owner and its published ports, and by the exceptions of the policy at *now*. *mode_network* is the network of the mode, for a connect to
    the ingress network. The controller connects a container only to networks of its create. With the
    name of its service goes *address*, that of its slot; '' if there is none.
    """
    findings = [*request.findings]
    known = {each.name: each for each in (network, mode_network) if each is not None}
    facts = context.CreateFacts(host=context.HostFacts(now=now), networks=known)
    joined, case = _find_network(request, actor, policy, current, facts)
    if joined is None:
        findings.append(_unknown(request.endpoint.network))
    else:
        findings += networks.judge_network(case, joined, "network")
        findings += _judge_endpoint(case, current, joined)
        if actor.role is Role.CONTROLLER and joined.name not in current.admitted_networks:
            reason = f"the container wasn't made with {joined.name}"
            findings.append(Finding("network.endpoints", "network", reason, "make it anew"))
        if request.endpoint.asked:
            where = "EndpointConfig.IPAMConfig.IPv4Address"
            findings += host_routes.judge_address(case, request.endpoint, where)
        further = actor.role is Role.CONTROLLER or not case.by_controller
        taken = networks.judge_aliases(case, further=further)
        findings += (replace(each, path="EndpointConfig.Aliases") for each in taken)
    if findings or joined is None:
        return verdict.deny(findings)
    named = actor.role is Role.CONTROLLER and current.service in request.endpoint.aliases
    end = replace(request.endpoint, address=address if named else request.endpoint.asked)
    body = only_set(Container=current.id, EndpointConfig=endpoint_body(end))
    summary = EndpointPart(
        network=joined.name,
        name=current.settings.name,
        aliases=tuple(sorted({*request.endpoint.aliases})),
        slot_addresses={joined.id: end.address} if end.address and not end.asked else {},
    )
    return verdict.AdmissionDecision(verdict.verdict_of(()), body, summary=summary.members)


def admit_disconnect(
    request: ConnectRequest,
    *,
    actor: Actor,
    policy: Policy,
    current: context.ContainerFacts,
    network: context.NetworkFacts | None,
    now: float,
) -> verdict.AdmissionDecision:
    """Judge a network disconnect. A foreign network may be left, but not joined again."""
    findings = [*request.findings]
    known = {network.name: network} if network is not None else {}
    facts = context.CreateFacts(host=context.HostFacts(now=now), networks=known)
    joined, case = _find_network(request, actor, policy, current, facts)
    if joined is None:
        findings.append(_unknown(request.endpoint.network))
    elif actor.role is Role.CLIENT:
        findings += networks.judge_network(case, joined, "network")
    if findings or joined is None:
        return verdict.deny(findings)
    body = only_set(Container=current.id, Force=request.force)
    summary = EndpointPart(network=joined.name, name=current.settings.name)
    return verdict.AdmissionDecision(verdict.verdict_of(()), body, summary=summary.members)


def _unknown(name: str) -> Finding:
    return Finding("network.unknown", "network", f"there is no network {name!r}", "create it first")


def _find_network(
    request: ConnectRequest,
    actor: Actor,
    policy: Policy,
    current: context.ContainerFacts,
    facts: context.CreateFacts,
) -> tuple[context.NetworkFacts | None, context.Case]:
    """Return the facts of the requested network, and the container with one more endpoint there."""
    end = request.endpoint
    case = context.case_of(current, actor=actor, policy=policy, facts=facts, endpoint=end)
    return networks.network_facts(case, end.network), case


def _judge_endpoint(
    case: context.Case, current: context.ContainerFacts, network: context.NetworkFacts
) -> Findings:
    """Yield why a container can't have one more endpoint in a network; its mode stays the same."""
    remedy = "create the container again with the needed mode"
    joined = {*current.settings.networks, *current.joined, network.name}
    if too_many := networks.judge_count(len(joined)):
        yield replace(too_many, path="network", remedy="leave one of them first")
    if current.adopted and network.name in current.admitted_networks:
        return  # the create of its document was admitted with the network
    publishes = current.published
    for each in networks.judge_endpoints(case, (network.name,), publishes=publishes):
        yield replace(each, rule="network.mode", path="network", remedy=remedy)
