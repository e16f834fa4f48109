"""Which services of a project reach each other, with Docker Compose and with trimtab."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.core.compose.project import ComposeProject
from controller.core.compose.translation.container import SERVICE
from controller.core.compose.translation.names import dns_name
from controller.core.compose.translation.networking import networks_of
from controller.core.compose.translation.scope import Tree, items, mapping
from controller.model.desired.desired import Desired
from controller.model.desired.spec.network import NetworkMode
from controller.model.desired.spec.service import ServiceSpec
from controller.model.names import JOB_NAME_MAX

_IMPLIED = "(default)"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - the address that Docker Compose publishes on


@dataclass(frozen=True, slots=True)
class Side:
    """The reach of a service with one of the two programs."""

    #: The other services, by their names in the file.
    services: tuple[str, ...]
    #: The service reaches the internet.
    internet: bool
    #: Published ports, such as ``127.0.0.1:8080``.
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceReach:
    """The reach of a service. ``after`` is None for a refused service."""

    service: str
    before: Side
    after: Side | None


def reach_of(project: ComposeProject, desired: Desired) -> tuple[ServiceReach, ...]:
    """Return the reach of each service of a project."""
    trees = {name: mapping(tree) for name, tree in mapping(project.tree.get("services")).items()}
    networks = mapping(project.tree.get("networks"))
    joined = {name: _networks_before(_network_owner(tree, trees)) for name, tree in trees.items()}
    found = specs_of(project, desired)
    own = {dns_name(name): spec for name, spec in found.items()}
    # A sidecar reaches whatever the service reaches whose network it shares.
    specs = {name: _sharing(spec, own) for name, spec in found.items()}
    attached = {name: _networks_after(spec) for name, spec in specs.items()}
    outward = {each.key.name for each in desired.networks if not each.spec.internal}
    return tuple(
        ServiceReach(
            name,
            Side(
                _neighbours(name, joined),
                any(_leads_out(each, networks) for each in joined[name]),
                tuple(_ports_before(tree)),
            ),
            None
            if name not in specs
            else Side(
                _neighbours(name, attached),
                specs[name].network.mode is NetworkMode.BRIDGE or bool(attached[name] & outward),
                tuple(_ports_after(found[name])),
            ),
        )
        for name, tree in trees.items()
    )


def specs_of(project: ComposeProject, desired: Desired) -> dict[str, ServiceSpec]:
    """Return the specs of the services that aren't refused, by their names in the file."""
    by_name = {each.key.name: each.spec for each in desired.workloads}
    found: dict[str, ServiceSpec] = {}
    for name in mapping(project.tree.get("services")):
        spec = by_name.get(dns_name(name)) or by_name.get(dns_name(name, JOB_NAME_MAX))
        if spec is not None:
            found[name] = spec
    return found


def _network_owner(tree: Tree, trees: Mapping[str, Tree]) -> Tree:
    mode = str(tree.get("network_mode") or "")
    return trees.get(mode.removeprefix(SERVICE), tree) if mode.startswith(SERVICE) else tree


def _sharing(spec: ServiceSpec, own: Mapping[str, ServiceSpec]) -> ServiceSpec:
    shares = spec.shares
    return own.get(shares.service, spec) if shares is not None and shares.network else spec


def _networks_before(tree: Tree) -> frozenset[str]:
    mode = str(tree.get("network_mode") or "")
    if mode == "none":
        return frozenset()
    return frozenset({f"mode {mode}"}) if mode else frozenset(networks_of(tree))


def _networks_after(spec: ServiceSpec) -> frozenset[str]:
    named = frozenset(each.name for each in spec.network.attach)
    is_implied = spec.network.mode in (NetworkMode.ISOLATED, NetworkMode.BRIDGE)
    return named | {_IMPLIED} if is_implied else named


def _neighbours(name: str, joined: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    return tuple(
        other for other in sorted(joined) if other != name and joined[other] & joined[name]
    )


def _leads_out(network: str, networks: Tree) -> bool:
    return not mapping(networks.get(network)).get("internal")


def _ports_before(tree: Tree) -> Iterator[str]:
    for port in items(tree.get("ports")):
        terms = mapping(port)
        yield f"{terms.get('host_ip') or _EVERYWHERE}:{terms.get('published') or 'any'}"


def _ports_after(spec: ServiceSpec) -> Iterator[str]:
    for port in spec.ports:
        if port.host is not None:
            yield f"{port.host_ip}:{port.host}"
