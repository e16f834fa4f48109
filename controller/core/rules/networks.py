"""Rules of networks, ports and shared namespaces: a container joins exactly what its mode implies.

Modes:

- ``none``: no network.
- ``isolated``: the namespace's internal network.
- ``bridge``: the namespace's network with a way out.
- ``shared``: the network of another service's container.
- ``own``, for clients only: a network that the client created.

Published ports need a network with a way out. A container on an internal network therefore also
joins the namespace's ingress network. The rebuilt body has the network's real name, and only after
the gate has found the network to be ours.

Rules about the namespaces of another container: a service may share those of another service.

No request names the container. The gate finds it: of the named service, of the same slot,
namespace and owner, in the inventory, and running. So a controller cannot join a container of its
own choice, and ``container:ID`` stays refused for every caller.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from controller.core.encoding.text import quote
from controller.core.engine_api.grammar import is_address, is_host_name
from controller.core.engine_api.requests import (
    MACVLAN,
    CreateRequest,
    EndpointRequest,
    Finding,
    Findings,
    Grant,
    PortRequest,
    new_bound,
)
from controller.core.rules.context import (
    COMPOSE_SERVICE,
    Case,
    NetworkFacts,
    Placement,
    exceptions_at,
    exceptions_of_item,
)
from controller.core.rules.identity import adopt_remedy, is_controllers_name
from controller.model import names
from controller.model.desired.spec.fields import HOST_GATEWAY
from controller.model.inventory import ContainerItem, OwnedObject
from controller.model.names import SERVICE, namespaced_network, spelled
from controller.model.policy.document import OPERATOR_OWNER, Policy
from controller.model.records import Actor, Role

_MODE = "HostConfig.NetworkMode"
_ENDPOINTS = "NetworkingConfig.EndpointsConfig"
#: The change of the policy for networks with a way out.
WAY_OUT = Grant("add", "networks.modes", "bridge")
#: The engine's own networks, refused to everybody.
_NEVER = ("host", "ingress", "docker_gwbridge")
_PREFIXES = ("container:", "ns:", "service:")
#: The gate looks up each endpoint while other admissions wait.
ENDPOINTS_MAX = 16
#: The most ports in a range from which the engine chooses one.
RANGE_MAX = 100


@dataclass(frozen=True, slots=True)
class JoinedNetworks:
    """The networks of a container, the first as its mode; () for none."""

    networks: tuple[EndpointRequest, ...] = ()

    @property
    def mode(self) -> str:
        return self.networks[0].network if self.networks else "none"

    @property
    def aliases(self) -> tuple[str, ...]:
        """The container's names in any of the networks, besides its own."""
        return tuple(alias for end in self.networks for alias in end.aliases)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(end.network for end in self.networks))


def network_facts(case: Case, name: str) -> NetworkFacts | None:
    """Return the facts of the network with exactly the given name or full id.

    The engine's inspect also accepts prefixes of ids, so its answer can be another network.
    """
    for key, facts in (case.facts.networks if case.facts else {}).items():
        if key in {facts.name, facts.id} and name in {facts.name, facts.id}:
            return facts
    return None


def _name(case: Case, name: str) -> str:
    facts = network_facts(case, name)
    return facts.name if facts else name


@dataclass(frozen=True, slots=True)
class ContainerNetworkMode:
    """The network mode of a container."""

    kind: str  # none, isolated, bridge, shared, or own
    network: str  # the name of the mode's network; the requested name if there is no such network

    @property
    def has_none(self) -> bool:
        """Return True if the container joins no network itself."""
        return self.kind in ("none", "shared")


def mode_of(case: Case) -> ContainerNetworkMode:
    """Return the requested mode.

    Only a client may use the engine's words ``default`` and ``bridge``. The id of the engine's
    bridge does not stand for the namespace's bridge.
    """
    asked, implied = case.request.network_mode, case.networks
    if case.request.shares.network:
        return ContainerNetworkMode("shared", "none")
    name = _name(case, asked)
    if asked == "none" or (case.request.network_disabled and asked in {"", "default"}):
        return ContainerNetworkMode("none", "none")
    if name == implied.isolated:
        return ContainerNetworkMode("isolated", name)
    if name == implied.bridge or (asked == "bridge" and not case.by_controller):
        return ContainerNetworkMode("bridge", implied.bridge)
    if asked in {"", "default"} and not case.by_controller:
        return _default_mode(case)
    return ContainerNetworkMode("own", name)


def _default_mode(case: Case) -> ContainerNetworkMode:
    modes = case.policy.networks.modes
    if "isolated" in modes:
        return ContainerNetworkMode("isolated", case.networks.isolated)
    if "bridge" in modes:
        return ContainerNetworkMode("bridge", case.networks.bridge)
    return ContainerNetworkMode("none", "none")


def wanted(case: Case) -> tuple[str, ...]:
    """Return the networks implied by mode and ports, then the other requested networks."""
    mode = mode_of(case)
    if mode.has_none:
        return ()
    names = [mode.network, *(_resolved(case, end.network) for end in case.request.endpoints)]
    if case.request.ports and _is_internal(case, mode.network) and not case.by_controller:
        names.append(case.networks.ingress)
    return tuple(dict.fromkeys(names))


def _resolved(case: Case, name: str) -> str:
    """Return the network for a name in EndpointsConfig."""
    # The docker command gives the endpoint the same name as the mode.
    same = {case.request.network_mode, "default" if case.request.network_mode == "" else ""}
    if not case.by_controller and name and name in same:
        return mode_of(case).network
    return _name(case, name)


def _is_internal(case: Case, name: str) -> bool:
    facts = network_facts(case, name)
    return facts.internal if facts else name != case.networks.bridge


def joined(case: Case) -> JoinedNetworks:
    """Return the networks of an admitted container, with its aliases."""
    aliases: dict[str, tuple[str, ...]] = {}
    for end in case.request.endpoints:
        name = _resolved(case, end.network)
        aliases[name] = tuple(dict.fromkeys((*aliases.get(name, ()), *end.aliases)))
    known = case.facts.addresses if case.facts else {}
    asked = {_resolved(case, end.network): end.asked for end in case.request.endpoints}
    found: list[EndpointRequest] = []
    for name in wanted(case):
        named, chosen = aliases.get(name, ()), asked.get(name, "")
        address = known.get(name, "") if case.service in named else ""
        facts = network_facts(case, name)
        # A service's successor gets the chosen address with its name, as every address of a slot.
        of_slot = case.by_controller and (facts is None or facts.driver != MACVLAN)
        address = address if of_slot else address or chosen
        found.append(EndpointRequest(name, named, address, chosen))
    return JoinedNetworks(tuple(found))


def mode_granted(case: Case) -> Findings:
    """The policy grants the mode, or the mode is a network that the container may join."""
    asked, mode, modes = case.request.network_mode, mode_of(case), case.policy.networks.modes
    remedy = f"use {' or '.join(modes)}"
    if asked in _NEVER or asked.startswith(_PREFIXES):
        reason = f"the mode {asked!r} shares a network that isn't the container's own"
        yield Finding("network.mode", _MODE, reason, remedy)
    elif mode.kind not in ("own", "shared", *modes):
        reason = f'"{mode.kind}" is not a network mode that the policy grants ({", ".join(modes)})'
        permit = Grant("add", "networks.modes", mode.kind)
        yield Finding("network.mode", _MODE, reason, remedy, permit=permit)
    elif mode.network == case.networks.ingress:
        reason = f"{mode.network} is joined beside another network, for published ports"
        yield Finding("network.mode", _MODE, reason, remedy)
    elif case.by_controller and mode.kind == "own":
        yield from _judge_declared(case, mode)


def _judge_declared(case: Case, mode: ContainerNetworkMode) -> Findings:
    """Yield why a container cannot have a declared network instead of an implied one.

    ``networks_ours`` checks the network itself. The modes with a network grant this one, too.
    """
    names = case.networks
    if mode.network in {"", "default", "bridge"}:
        reason = f"{mode.network!r} is neither none, {names.isolated} nor {names.bridge}"
        yield Finding("network.mode", _MODE, reason, "name the namespace's own network")
    elif not {"isolated", "bridge"} & {*case.policy.networks.modes}:
        reason = f"{mode.network} is a network, and the policy grants containers none"
        yield Finding("network.mode", _MODE, reason, "use none")


def endpoints_implied(case: Case) -> Findings:
    """The endpoints are the networks that the mode implies, and networks of the client's own."""
    mode = mode_of(case)
    # Without facts, a name and an id can stand for one network.
    count = len(case.request.endpoints if case.facts is None else wanted(case))
    if too_many := judge_count(count):
        yield too_many
        return
    given = [_resolved(case, end.network) for end in case.request.endpoints]
    publishes = bool(case.request.ports)
    yield from judge_endpoints(case, given, publishes=publishes)
    if case.by_controller and not mode.has_none:
        declared = mode.kind == "own"
        others = [name for name in given if name != case.networks.ingress]
        # Without facts it is unknown which of the declared networks have a way out.
        shut = all(_is_internal(case, name) for name in others) and case.facts is not None
        needs = _may_have_ingress(case, mode, publishes=publishes) and (shut or not declared)
        missing = {mode.network, *((case.networks.ingress,) if needs else ())} - set(given)
        if missing:
            reason = f"{', '.join(sorted(missing))} is implied and isn't there"
            yield Finding("network.endpoints", _ENDPOINTS, reason, "name it, with the aliases")


def judge_count(count: int) -> Finding | None:
    """Return the refusal of a number of networks of a container; None for an admitted number."""
    if count <= ENDPOINTS_MAX:
        return None
    reason = f"{count} networks: at most {ENDPOINTS_MAX}"
    return Finding("network.count", _ENDPOINTS, reason, "join fewer")


def judge_endpoints(case: Case, given: Iterable[str], *, publishes: bool) -> Findings:
    """Yield why a container of the case's mode has no endpoint in a network, at a create or later.

    *publishes*: the container has published ports.
    """
    mode, ingress = mode_of(case), case.networks.ingress
    for name in given:
        reason = ""
        if mode.has_none:
            reason = f"{name}, although the mode is {mode.kind}" if name != "none" else ""
        elif name in _excluded(case, mode):
            reason = f"{name} isn't what the mode implies, which is {mode.network}"
        elif name == ingress and not _may_have_ingress(case, mode, publishes=publishes):
            reason = f"{ingress} is for published ports beside an internal network"
        if reason:
            yield Finding("network.endpoints", f"{_ENDPOINTS}.{name}", reason, "leave it out")


def _may_have_ingress(case: Case, mode: ContainerNetworkMode, *, publishes: bool) -> bool:
    declared = case.by_controller and mode.kind == "own"
    return publishes and (declared or _is_internal(case, mode.network))


def _excluded(case: Case, mode: ContainerNetworkMode) -> set[str]:
    """Return the implied networks that no container of a mode joins."""
    excluded = {case.networks.isolated, case.networks.bridge} - {mode.network}
    if mode.kind == "bridge" and case.policy.networks.bridge_joins_isolated:
        excluded.discard(case.networks.isolated)
    return excluded


def networks_ours(case: Case) -> Findings:
    """Each network is ours, open to the owner, and has its required properties."""
    if case.facts is None:
        return
    for name in wanted(case):
        where = _MODE if name == wanted(case)[0] else f"{_ENDPOINTS}.{name}"
        facts = network_facts(case, name)
        if facts is None:
            reason = f"there is no network {name!r}"
            yield Finding("network.unknown", where, reason, "create it first")
        else:
            yield from judge_network(case, facts, where)


def judge_network(case: Case, facts: NetworkFacts, path: str) -> Findings:
    """Yield the reasons why a network cannot be joined."""
    kind = implied_kind(case.policy, facts.name, case.namespace)
    if not facts.ours or (kind and not is_as_implied(facts, kind)):
        yield foreign_network(facts, path, kind, case.actor, is_internal=kind == "isolated")
    elif not kind and not _may_join(case, facts):
        reason = f"the network {facts.name} belongs to another owner or namespace"
        yield Finding("network.foreign", path, reason, "use one of your own, or ask for a grant")
    elif not kind and not facts.internal and "bridge" not in case.policy.networks.modes:
        reason = f"{facts.name} has a way out, which the policy doesn't grant"
        yield Finding("network.mode", path, reason, "use an internal one", permit=WAY_OUT)


def foreign_network(
    facts: NetworkFacts, path: str, kind: str, actor: Actor, *, is_internal: bool
) -> Finding:
    """Return the refusal of a network that is not ours, or lacks its required properties.

    *is_internal*: the network of this name must be internal. A client learns neither the owning
    instance nor the settings of the network.
    """
    fault = "isn't what it should be" if facts.ours else "isn't ours"
    if is_internal and not facts.internal and actor.role is not Role.CLIENT:
        fault += " and has a way out"
    remedy = "use a network of your own"
    if kind:
        remedy = (
            f"remove or rename that network, or give networks.{kind} another name in the policy"
        )
    if facts.instance and not facts.ours and actor.role is not Role.CLIENT:
        fault += f": it says that instance {facts.instance} made it"
        remedy += f"; {adopt_remedy(facts.instance)}"
    return Finding("network.foreign", path, f"the network {facts.name} {fault}", remedy)


def implied_kind(policy: Policy, name: str, namespace: str) -> str:
    """Return the kind of a namespace's implied network: isolated, ingress or bridge, else ''."""
    networks = policy.networks
    for kind, base in (
        ("isolated", networks.isolated),
        ("ingress", networks.ingress),
        ("bridge", networks.bridge),
    ):
        if name == namespaced_network(base, namespace):
            return kind
    return ""


def is_as_implied(facts: NetworkFacts, kind: str) -> bool:
    """Return True if an implied network has the properties on which its containers rely."""
    if facts.driver != "bridge" or not facts.plain:
        return False
    match kind:
        case "isolated":
            return facts.internal
        case "ingress":
            return not facts.internal and not facts.masquerade and not facts.icc
        case _:
            return not facts.internal and facts.masquerade and facts.icc


def is_implied_for(item: ContainerItem, network: str, policy: Policy) -> bool:
    """Return True if a network's name is implied by the namespace of a container."""
    return implied_kind(policy, network, namespace_of_item(item, policy)) != ""


def namespace_of_item(item: ContainerItem, policy: Policy) -> str:
    """Return the namespace of a container; that of its owner for a client's."""
    return item.namespace or policy.namespace_of(item.owner)


def is_admitted(item: ContainerItem, network: OwnedObject, policy: Policy) -> bool:
    """Return True if a network of this instance is the one to which a container was admitted.

    That is the very network, by id. Two kinds are made again under their names, and stay those of
    their namespace: implied networks, and networks of documents for the containers of services.
    Of a container without recorded ids each network counts that its create could have named.
    """
    if recorded := dict(item.network_ids).get(network.name):
        remade = item.origin == "controller" or is_implied_for(item, network.name, policy)
        return recorded == network.id or (remade and could_join(item, network, policy))
    return network.name in item.admitted.networks and could_join(item, network, policy)


def could_join(item: ContainerItem, network: OwnedObject, policy: Policy) -> bool:
    """Return True if a create like that of a container could name a network of this instance."""
    if is_implied_for(item, network.name, policy) or network.name in _granted(item, policy):
        return True
    if item.origin == "controller":
        return network.namespace == namespace_of_item(item, policy)
    return item.owner in {OPERATOR_OWNER, network.owner}


def _granted(item: ContainerItem, policy: Policy) -> tuple[str, ...]:
    """Return the networks that the policy, or an exception for a service, grants by name."""
    exceptions = exceptions_of_item(policy, item, now=None)
    return (*policy.networks.granted, *(n for each in exceptions for n in each.loosens.networks))


def _may_join(case: Case, facts: NetworkFacts) -> bool:
    if facts.name in case.policy.networks.granted:
        return True
    match case.actor.role:
        case Role.CONTROLLER:
            return facts.namespace == case.namespace
        case Role.CLIENT:
            return facts.owner == case.owner
        case _:
            return True


def hosts_allowed(case: Case) -> Findings:
    """The policy allows the entries of /etc/hosts; they affect this container alone."""
    granted = case.policy.networks.extra_hosts
    for index, entry in enumerate(case.request.extra_hosts):
        address = entry.partition(":")[2]
        kind: Literal["host-gateway", "addresses"]
        kind = "host-gateway" if address == HOST_GATEWAY else "addresses"
        if kind not in granted:
            reason = f"the policy admits no hosts entries of the kind {kind}"
            where = f"HostConfig.ExtraHosts[{index}]"
            permit = Grant("add", "networks.extraHosts", kind)
            yield Finding("network.hosts", where, reason, "leave it out", permit=permit)


def dns_allowed(case: Case) -> Findings:
    """The policy allows the servers, search domains and options of the container's resolver."""
    request, rules = case.request, case.policy.networks.dns
    for index, server in enumerate(request.dns_servers):
        if is_address(server) and not is_within(server, rules.servers):
            ranges = ", ".join(rules.servers) or "none"
            reason = f"{server} is not a DNS server that the policy admits ({ranges})"
            permit = Grant("add", "networks.dns.servers", str(ipaddress.ip_network(server)))
            where = f"HostConfig.Dns[{index}]"
            yield Finding("network.dns", where, reason, "leave it out", permit=permit)
    for field, key, given, admitted in (
        ("DnsSearch", "search", request.dns_search, rules.search),
        ("DnsOptions", "options", request.dns_options, rules.options),
    ):
        if given and not admitted:
            reason = "the policy admits no changes of resolv.conf"
            where, permit = f"HostConfig.{field}", Grant("set", f"networks.dns.{key}", True)
            yield Finding("network.dns", where, reason, "leave it out", permit=permit)


def is_within(text: str, ranges: Iterable[str]) -> bool:
    """Return True if a text is a network or an address within any of *ranges*."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return False
    return any(
        network[0] in other and network[-1] in other for other in map(ipaddress.ip_network, ranges)
    )


def aliases_own(case: Case) -> Findings:
    """A container uses only its own names as aliases, so that it cannot take over another's name.

    In a network of the owner's containers alone, the policy may allow any alias. To services it may
    allow any alias: the broker then refuses the names of other owners' containers
    (``core.admission.dns_names``).
    """
    yield from judge_aliases(case, further=True)


def judge_aliases(case: Case, *, further: bool) -> Findings:
    """Refuse each alias but the container's own names; *further* permits free names, too."""
    own = {case.service, case.name, *case.policy.networks.aliases}
    if not case.by_controller:
        own.add(case.request.label(COMPOSE_SERVICE))
    for end in case.request.endpoints:
        for alias in end.aliases:
            is_own = alias in own or (case.by_controller and spelled(alias) == case.service)
            if not is_own and not (further and _is_free(case, end.network, alias)):
                reason = f"{alias!r} isn't this container's own name"
                where = f"{_ENDPOINTS}.{end.network}.Aliases"
                remedy = f"use its name, or that of its service (label {SERVICE})"
                if case.by_controller:
                    remedy = "leave it out: a container answers to the name of its service"
                permit = _permit_alias(case, end.network, alias)
                yield Finding("network.alias", where, reason, remedy, permit=permit)


def _permit_alias(case: Case, network: str, alias: str) -> Grant | None:
    """Return the switch for free names of services, or in networks of one's own; else the name to list."""
    if case.by_controller:
        is_free = is_host_name(alias, most=63)
        return new_bound("networks.serviceAliases", True, is_beyond=is_free)
    if network not in (*case.networks.all(), "bridge", "default"):
        return Grant("set", "networks.clientAliases", True)
    return Grant("add", "networks.aliases", alias)


def _is_free(case: Case, network: str, alias: str) -> bool:
    if case.by_controller:
        return is_free_for_services(alias, case.policy)
    if not case.policy.networks.client_aliases or not is_host_name(alias):
        return False
    if _resolved(case, network) in case.networks.all():
        return False
    facts = network_facts(case, network)
    return is_own_network(facts, case.owner) if facts else case.facts is None


def is_free_for_services(alias: str, policy: Policy) -> bool:
    """Return True if a service's containers may answer to an alias other than their own names."""
    is_valid = is_host_name(alias, most=63) and not is_controllers_name(alias)
    return policy.networks.service_aliases and is_valid


def is_own_network(facts: NetworkFacts, owner: str) -> bool:
    """Return True if an owner created a network by hand, for its own containers only."""
    return facts.ours and facts.owner == owner and facts.namespace == ""


def ports_allowed(case: Case) -> Findings:
    """Ports are published on loopback, above the privileged range, each once."""
    limits, ports = case.policy.networks.ports, case.request.ports
    if len(ports) > limits.max:
        reason = f"{len(ports)} ports: at most {limits.max}"
        permit = Grant("set", "networks.ports.max", len(ports))
        yield Finding(
            "port.count", "HostConfig.PortBindings", reason, "publish fewer", permit=permit
        )
    if ports and (mode_of(case).has_none or case.request.network_disabled):
        reason = "a container without a network can't publish a port"
        yield Finding("port.unreachable", "HostConfig.PortBindings", reason, "choose a network")
    taken: set[tuple[str, int, str]] = set()
    for port in ports:
        yield from _port(case, port)
        spot = (port.host_ip or limits.host_ips[0], port.host, port.protocol)
        if port.host and not port.last and spot in taken:
            reason = f"host port {port.host} is published twice"
            yield Finding("port.duplicate", f"{port.path}.HostPort", reason, "publish it once")
        taken.add(spot)


def _port(case: Case, port: PortRequest) -> Findings:
    limits, where = case.policy.networks.ports, f"{port.path}.HostPort"
    if port.host_ip and host_address(port.host_ip) not in limits.host_ips:
        granted = ", ".join(limits.host_ips)
        reason = f"{quote(port.host_ip)} is not an address that the policy grants ({granted})"
        permit = Grant("add", "networks.ports.hostIPs", host_address(port.host_ip))
        remedy = f"use {limits.host_ips[0]}"
        yield Finding("port.address", f"{port.path}.HostIp", reason, remedy, permit=permit)
    several = port.last - port.host + 1 if port.last else 1
    if port.last and not limits.ranges:
        reason = f"{quote(port.host_text)} is a range of host ports"
        remedy, permit = "publish each port by itself", Grant("set", "networks.ports.ranges", True)
        yield Finding("port.invalid", where, reason, remedy, permit=permit)
    elif several > RANGE_MAX:
        reason = f"{quote(port.host_text)} has {several} ports: at most {RANGE_MAX}"
        yield Finding("port.invalid", where, reason, "publish a smaller range")
    elif port.host:
        numbers = range(port.host, port.host + several)
        refused = (finding for number in numbers if (finding := _host_port(case, number, where)))
        yield from islice(refused, 1)


def _host_port(case: Case, number: int, where: str) -> Finding | None:
    limits, permit = case.policy.networks.ports, Grant("add", "networks.ports.granted", number)
    if number in limits.granted:
        return None
    if number < limits.min_host:
        reason = f"host port {number} is below {limits.min_host}, the policy's lowest"
        return Finding("port.privileged", where, reason, "publish on a higher port", permit=permit)
    if number in limits.reserved:
        reason = f"host port {number} is reserved for agents with rights on the host"
        return Finding("port.reserved", where, reason, "publish on another port", permit=permit)
    return None


def host_address(text: str) -> str:
    """Return an address in canonical spelling, or *text* unchanged if it is no address."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


_PATH = "TrimtabShares"
#: The member of the body for each namespace, as the policy lists them.
_MEMBERS = {"network": "Network", "ipc": "Ipc", "pid": "Pid"}


def shares_allowed(case: Case) -> Findings:
    """The policy allows the namespaces, and the request names another service."""
    asked = case.request.shares
    if not asked.is_asked:
        return
    if not case.by_controller:
        reason = "only documents share namespaces"
        yield Finding("namespace.client", _PATH, reason, "write spec.shares in a document")
        return
    if asked.host:
        return  # ``observers_confined``
    for name in asked.names:
        if name not in case.policy.security.shared_namespaces:
            reason = f"the policy admits no services that share the namespace {name}"
            remedy = "leave it out: each container has its own"
            where = f"{_PATH}.{_MEMBERS[name]}"
            permit = Grant("add", "security.sharedNamespaces", name)
            yield Finding("namespace.shared", where, reason, remedy, permit=permit)
    if not names.is_dns_label(asked.service, length=names.SERVICE_NAME_MAX):
        reason = f"{quote(asked.service)} is no name of a service"
        yield Finding("namespace.service", f"{_PATH}.Service", reason, "name a Service")
    elif asked.service == case.service:
        reason = "a container can't share its own namespaces"
        yield Finding("namespace.service", f"{_PATH}.Service", reason, "name another Service")
    elif not asked.names:
        reason = "no namespace is named"
        yield Finding("namespace.service", _PATH, reason, "name one of network, ipc and pid")
    if names.run_of_slot(case.request.label(names.SLOT)):
        reason = "a run of a job has no slot that another service has, too"
        yield Finding("namespace.service", _PATH, reason, "leave it out of a Job")
    yield from _own_settings(case.request)
    yield from _borrowed(case)
    yield from _target(case)


def observers_confined(case: Case) -> Findings:
    """An observer of the host has an exception, its own uid, and no way to change anything."""
    request, uid = case.request, case.observer
    if not request.observes or (uid is None and not request.shares.host):
        return  # without the exception, ``/`` is a mount that no policy admits
    if uid is None or not case.by_controller:
        reason = (
            "the host's network, processes or files are for a service with an exception as observer"
        )
        remedy = (
            "leave it out, or write an exception with loosens: {observer: UID} (docs/policy.md)"
        )
        yield Finding("observer", _PATH, reason, remedy)
        return
    binds = [mount for mount in request.mounts if mount.type == "bind"]
    for path, is_wrong, reason, remedy in (
        ("User", request.user != f"{uid}:{uid}", f"it runs as another user than {uid}:{uid}",
         f'write user: "{uid}:{uid}"'),
        ("HostConfig.CapAdd", bool(request.cap_add), "it has capabilities", "leave them out"),
        ("HostConfig.GroupAdd", bool(request.groups), "it has further groups", "leave them out"),
        ("HostConfig.Devices", bool(request.devices), "it has devices", "leave them out"),
        ("HostConfig.ReadonlyRootfs", not request.read_only_root, "its root filesystem is writable",
         "write security: {readOnlyRootFilesystem: true}"),
        ("HostConfig.Mounts", any(not mount.read_only for mount in binds),
         "it has a writable folder of the host", "write readOnly: true"),
        ("TrimtabHooks", bool(request.hooks.all), "it has hooks", "leave them out"),
        (_PATH, request.shares.ipc or request.shares.service != "",
         "it shares more than the host's network and processes", "leave it out"),
    ):  # fmt: skip
        if is_wrong:
            yield Finding("observer", path, f"an observer changes nothing, and {reason}", remedy)
    if case.facts is not None and case.facts.uid_user:
        reason = f"the uid {uid} of the observer is also that of {case.facts.uid_user}"
        remedy = "write a uid that nobody has into the exception, and into the document"
        yield Finding("observer", "User", reason, remedy)
    if request.shares.host:
        yield from _own_settings(request)


def _own_settings(request: CreateRequest) -> Findings:
    """Yield the settings of a namespace that the container doesn't have."""
    asked = request.shares
    whose = asked.service or "the host"
    of_network = {
        "Hostname": request.hostname,
        "Domainname": request.domainname,
        "ExposedPorts": request.exposed_ports,
        "NetworkDisabled": request.network_disabled,
        "HostConfig.NetworkMode": request.network_mode,
        "HostConfig.PortBindings": request.ports,
        "HostConfig.ExtraHosts": request.extra_hosts,
        "HostConfig.Dns": request.dns_servers,
        "HostConfig.DnsSearch": request.dns_search,
        "HostConfig.DnsOptions": request.dns_options,
        "HostConfig.Sysctls": [name for name, _ in request.sysctls if name.startswith("net.")],
        "NetworkingConfig.EndpointsConfig": request.endpoints,
    }
    of_ipc = {
        "HostConfig.IpcMode": request.ipc_mode,
        "HostConfig.ShmSize": request.shm_size,
        "HostConfig.Sysctls": [n for n, _ in request.sysctls if not n.startswith("net.")],
    }
    for shared, settings, word in (
        (asked.network, of_network, "network"),
        (asked.ipc, of_ipc, "ipc"),
    ):
        for path, value in settings.items():
            if shared and value:
                reason = f"it belongs to the namespace {word}, which is that of {whose}"
                yield Finding("namespace.own", path, reason, f"write it for {whose}")


def _borrowed(case: Case) -> Findings:
    """Yield the exceptions of the policy whose rights the namespaces would bring along.

    An exception is for one service with images of one repository: no other image gets the networks and
    ports of an exception by a shared network, nor the mounts by /proc/PID/root. An expired exception
    counts, because containers from before the expiry still have the rights.
    """
    asked, policy = case.request.shares, case.policy
    place, networks = Placement(case.owner, case.namespace, asked.service), policy.networks
    for exemption in exceptions_at(policy, place, role=case.actor.role):
        grant, own_ports = exemption.loosens, networks.ports
        if grant.observer is not None:
            reason = f"{asked.service} is an observer of the host, and shares nothing"
            yield Finding("namespace.service", f"{_PATH}.Service", reason, "leave it out")
        for name, rights, own, is_shared in (
            ("modes", grant.modes, networks.modes, asked.network),
            ("networks", grant.networks, networks.granted, asked.network),
            ("hostPorts", grant.host_ports, own_ports.granted, asked.network),
            ("hostIPs", grant.host_ips, own_ports.host_ips, asked.network),
            ("mounts", grant.mounts, policy.mounts.allowed, asked.pid),
        ):
            if is_shared and not {*rights} <= {*own}:
                reason = f"{asked.service} has an exception of the policy ({name}), and this service has not"
                remedy = "grant this service the same in an exception of its own"
                yield Finding("namespace.service", f"{_PATH}.Service", reason, remedy)


def _target(case: Case) -> Findings:
    target = case.facts.shared if case.facts else None
    if target is None:
        return
    asked = case.request.shares
    if target.joined:
        reason = f"{asked.service} shares the namespaces of another service itself"
        remedy = "share those of that service"
        yield Finding("namespace.service", f"{_PATH}.Service", reason, remedy)
    if asked.ipc and not target.shareable:
        reason = f"the containers of {asked.service} keep their IPC to themselves"
        remedy = f"write ipc: shareable for {asked.service}"
        yield Finding("namespace.service", f"{_PATH}.Ipc", reason, remedy)
