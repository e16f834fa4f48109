"""Networks, names and ports of a service."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from controller.core.compose.project import SERVICE, TreePath
from controller.core.compose.translation.container import Workload, refuse_namespace
from controller.core.compose.translation.rollout import replicas_of
from controller.core.compose.translation.scope import (
    DEFAULT_NETWORK,
    TranslationScope,
    Tree,
    dns_name,
    items,
    mapping,
    texts,
    whole_number,
)
from controller.core.engine_api.requests import MACVLAN


def put_networking(work: Workload) -> None:
    """Translate the networks, aliases and ports of a service."""
    mode = work.tree.get("network_mode")
    if mode:
        _put_mode(work, str(mode))
    else:
        _put_networks(work)
    if work.is_job:
        if work.tree.get("ports"):
            work.warn(("ports",), "a Job has no ports", "remove them")
    else:
        _put_ports(work)


def default_mode(scope: TranslationScope) -> str:
    """Return the network mode for the project's network ``default``."""
    declared = mapping(mapping(scope.project.tree.get("networks")).get(DEFAULT_NETWORK))
    return "isolated" if declared.get("internal") else scope.settings.network


def networks_of(tree: Tree) -> Mapping[str, Tree]:
    """Return the networks of a service, with its terms there."""
    declared = tree.get("networks")
    if isinstance(declared, Mapping) and declared:
        return {str(name): mapping(terms) for name, terms in declared.items()}
    listed = texts(declared) or [DEFAULT_NETWORK]
    return {name: {} for name in listed}


def _put_mode(work: Workload, mode: str) -> None:
    origin = "network_mode"
    if mode == "none":
        work.draft.put("spec.network.mode", "none", origin)
    elif mode in ("bridge", DEFAULT_NETWORK):
        work.draft.put("spec.network.mode", "bridge", origin)
        _put_aliases(work, "spec.network.aliases", (), ("network_mode",))
    elif mode == "host" and work.is_observer:
        work.draft.put("spec.observe.network", True, origin)
    elif mode == "host":
        message = "network_mode: host is not supported: a namespace of the host is never shared"
        remedy = (
            "remove it, and publish the ports with ports; or grant an observer (docs/policy.md)"
        )
        work.refuse((origin,), message, remedy)
    elif not mode.startswith(SERVICE):
        refuse_namespace(work, origin, mode)


def _put_networks(work: Workload) -> None:
    joined = networks_of(work.tree)
    work.draft.origins["spec", "network"] = (*work.draft.origin, "networks")
    is_implied = DEFAULT_NETWORK in joined and not work.scope.is_declared(DEFAULT_NETWORK)
    if is_implied:
        origin: TreePath = ("networks", DEFAULT_NETWORK)
        work.draft.put("spec.network.mode", default_mode(work.scope), origin)
        aliases = texts(joined[DEFAULT_NETWORK].get("aliases"))
        _put_aliases(work, "spec.network.aliases", aliases, origin)
        if joined[DEFAULT_NETWORK].get("ipv4_address"):
            message = "ipv4_address is not supported in a network without a subnet of its own"
            remedy = "declare a network with ipam.config.subnet, of /24 or larger, and join it"
            work.refuse((*origin, "ipv4_address"), message, remedy)
    else:
        work.draft.put("spec.network.mode", "declared", "networks")
    attach: list[object] = []
    declared = mapping(work.scope.project.tree.get("networks"))
    for name, terms in joined.items():
        if name == DEFAULT_NETWORK and is_implied:
            continue
        path = ("spec", "network", "attach", len(attach))
        work.draft.trace(path, ("networks", name))
        names = _names_of(work, texts(terms.get("aliases")))
        network = dns_name(name)
        more: dict[str, object] = {"aliases": names} if names else {}
        if address := terms.get("ipv4_address"):
            more["address"] = address
            written = mapping(work.draft.spec.get("rollout"))
            is_macvlan = mapping(declared.get(name)).get("driver") == MACVLAN
            if is_macvlan and "order" not in written and not work.is_job:
                # The host's network has the address once: the successor comes after the container.
                work.draft.put("spec.rollout.order", "StopFirst", ("networks", name))
            work.draft.trace((*path, "address"), ("networks", name, "ipv4_address"))
        attach.append({"name": network, **more} if more else network)
    if attach:
        work.draft.put("spec.network.attach", attach, "networks")


def _put_aliases(work: Workload, field: str, aliases: Iterable[str], origin: TreePath) -> None:
    if names := _names_of(work, aliases):
        work.draft.put(field, names, origin)


def _names_of(work: Workload, aliases: Iterable[str]) -> list[str]:
    """Return the names on a network beside the service's own, each once."""
    if work.is_job:
        return []
    own = work.draft.name
    named = [work.name, *aliases, *work.scope.linked_names.get(work.name, ())]
    if work.scope.settings.aliases and work.tree.get("container_name"):
        named.append(str(work.tree["container_name"]))
    names = {name.casefold(): name for name in reversed(named)}
    names.pop(own, None)
    return [name for name in dict.fromkeys(named) if names.get(name.casefold()) == name]


def _put_ports(work: Workload) -> None:
    random: list[tuple[int, object]] = []
    loopback: list[str] = []
    for index, port in enumerate(items(work.tree.get("ports"))):
        terms = mapping(port)
        origin: TreePath = ("ports", index)
        entry: dict[str, object] = {"container": terms.get("target")}
        published = str(terms.get("published") or "")
        if "-" in published:
            message = f"a free port of {published} is not supported: the port would change"
            work.refuse(origin, message, "write one port")
            continue
        number = whole_number(published)
        if number:
            entry["host"] = number
            address = str(terms.get("host_ip") or "").strip("[]")
            if not address:
                loopback.append(published)
            entry["hostIP"] = address or work.scope.settings.address
        elif published and number is None:
            entry["host"] = published  # a problem of the document
        else:
            random.append((index, terms.get("target")))
        protocol = str(terms.get("protocol") or "tcp")
        if protocol != "tcp":
            entry["protocol"] = protocol
        work.draft.add("ports", entry, origin)
    if not str(work.tree.get("network_mode") or "").startswith(SERVICE):
        # A sidecar has neither ports nor names: each port is an error, and needs no warning beside it.
        _warn_of_ports(work, random, loopback)
        if replicas_of(work.tree) == 1:
            _warn_name(work)


def _warn_of_ports(work: Workload, random: list[tuple[int, object]], loopback: list[str]) -> None:
    """Announce ports that aren't published, or on another address than with Docker Compose."""
    for index, target in random:
        message = f"port {target} is not published: a port of the host is never chosen at random"
        work.warn(
            ("ports", index), message, f'write "HOSTPORT:{target}"', "compose.port-unpublished"
        )
    if loopback and _is_loopback(work.scope.settings.address):
        plural = "ports" if len(loopback) > 1 else "port"
        message = (
            f"{plural} {', '.join(loopback)} without an address: published on "
            f"{work.scope.settings.address}, for this host alone"
        )
        own = work.scope.settings.address
        remedy = (
            f"write 0.0.0.0:HOST:CONTAINER for the whole network, or {own}:HOST:CONTAINER for this host"
            if work.scope.settings.everywhere
            else "write 0.0.0.0:HOST:CONTAINER, and allow 0.0.0.0 in the policy (networks.ports.hostIPs); "
            f"or write {own}:HOST:CONTAINER"
        )
        work.warn(("ports",), message, remedy, "compose.loopback")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _warn_name(work: Workload) -> None:
    """Announce an unresolvable container_name."""
    name = work.tree.get("container_name")
    if not name or work.scope.settings.aliases or str(name).casefold() == work.draft.name:
        return
    message = f"container_name {name} doesn't resolve: the policy allows no further names"
    remedy = (
        f"reach the service as {work.draft.name}, or allow networks.serviceAliases in the policy"
    )
    work.warn(("container_name",), message, remedy, "compose.container-name")
