"""What a project would gain and lose, and which services reach each other, before any change.

What a project gains and loses with trimtab, against Docker Compose.

Which services of a project reach each other, with Docker Compose and with trimtab.

Settings of containers that trimtab completes or replaces: restarts, health checks, names, tmpfs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from controller.core.compose.project import SERVICE, ComposeProject
from controller.core.compose.translation.networking import networks_of
from controller.core.compose.translation.rollout import restart_of
from controller.core.compose.translation.scope import Tree, dns_name, items, mapping, texts
from controller.core.engine_api.create_body import RESTART
from controller.core.manifests.object_checks import exclusive_resources
from controller.model.desired.desired import Desired, Service
from controller.model.desired.spec.mounts import FileMount, TmpfsMount
from controller.model.desired.spec.network import NetworkMode
from controller.model.desired.spec.service import JobSpec, Order, ServiceSpec
from controller.model.names import JOB_NAME_MAX, qualified
from controller.model.policy.document import Policy
from controller.model.quantities import format_bytes, format_duration_ms

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
    inward = {name for name, tree in networks.items() if mapping(tree).get("internal")}
    joined = {name: _networks_before(_network_owner(tree, trees)) for name, tree in trees.items()}
    found = specs_of(project, desired)
    own = {dns_name(name): spec for name, spec in found.items()}
    # A sidecar reaches whatever the service reaches whose network it shares.
    specs = {name: _sharing(spec, own) for name, spec in found.items()}
    attached = {name: _networks_after(spec) for name, spec in specs.items()}
    outward = {each.key.name for each in desired.networks if not each.spec.internal}

    def after(name: str) -> Side:
        leads_out = specs[name].network.mode is NetworkMode.BRIDGE or attached[name] & outward
        ports = tuple(_ports_after(found[name]))
        return Side(_neighbours(name, attached), bool(leads_out), ports)

    return tuple(
        ServiceReach(
            name,
            Side(
                _neighbours(name, joined), bool(joined[name] - inward), tuple(_ports_before(tree))
            ),
            after(name) if name in specs else None,
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


def _ports_before(tree: Tree) -> Iterator[str]:
    for port in items(tree.get("ports")):
        terms = mapping(port)
        yield f"{terms.get('host_ip') or _EVERYWHERE}:{terms.get('published') or 'any'}"


def _ports_after(spec: ServiceSpec) -> Iterator[str]:
    for port in spec.ports:
        if port.host is not None:
            yield f"{port.host_ip}:{port.host}"


def completed_settings(
    project: ComposeProject, desired: Desired
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each setting that trimtab completes or replaces, in words, with the names of its services."""
    trees = mapping(project.tree.get("services"))
    by_text: dict[str, list[str]] = {}
    for name, spec in specs_of(project, desired).items():
        for text in _settings(mapping(trees[name]), spec):
            by_text.setdefault(text, []).append(name)
    for name, text in _links(trees):
        by_text.setdefault(text, []).append(name)
    for text, names in sorted(by_text.items()):
        yield text, tuple(names)


def _settings(tree: Tree, spec: ServiceSpec) -> Iterable[str]:
    if isinstance(spec, JobSpec):
        yield "a run of the job has a tmpfs at each VOLUME of its image that no mount covers"
    else:
        yield from _restart(tree, spec)
        yield from _secrets(spec)
        yield from _health(tree, spec)
        yield from _networking(spec)
    yield from _tmpfs(tree, spec)


def _restart(tree: Tree, spec: ServiceSpec) -> Iterator[str]:
    word, _ = restart_of(tree)
    policy, retries = RESTART[spec.restart.policy]
    if not word:
        yield f"restart isn't written, and becomes {policy}: an ended container is started again"
    elif word == "unless-stopped":
        yield (
            f"restart unless-stopped becomes {policy}: a container that somebody stops is started again; "
            "`trimtab suspend NAME` leaves it stopped"
        )
    elif word.startswith("on-failure"):
        yield (
            f"restart {word}: the engine restarts a failing container {retries} times, and trimtab goes on "
            "after growing pauses"
        )


def _secrets(spec: ServiceSpec) -> Iterator[str]:
    if any(isinstance(mount, FileMount) and mount.type == "secret" for mount in spec.mounts):
        yield (
            "a Secret is mounted: without trimtab-files.service, trimtab starts the containers at boot, and "
            "their restart policy on the engine is no"
        )


def _health(tree: Tree, spec: ServiceSpec) -> Iterator[str]:
    check = spec.healthcheck
    if check is None:
        return
    written = mapping(tree.get("healthcheck"))
    completed = (
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start_period", check.start_period),
    )
    missing = [f"{name} {format_duration_ms(v)}" for name, v in completed if not written.get(name)]
    if missing:
        yield f"the healthcheck is completed, whatever the image's own has: {', '.join(missing)}"


def _networking(spec: ServiceSpec) -> Iterator[str]:
    leads_in = spec.network.mode in (NetworkMode.ISOLATED, NetworkMode.DECLARED)
    if leads_in and any(port.host is not None for port in spec.ports):
        yield "published ports lead through a network of their own, which has no names"


def _links(trees: Tree) -> Iterator[tuple[str, str]]:
    """Yield the linked services, each with its second name in words."""
    for tree in trees.values():
        for link in texts(mapping(tree).get("links")):
            service, _, alias = link.partition(":")
            if alias and service in trees:
                yield service, f"links: {alias} names the service for all services of its networks"


def _tmpfs(tree: Tree, spec: ServiceSpec) -> Iterator[str]:
    unbounded = {
        entry.partition(":")[0].rstrip("/")
        for entry in texts(tree.get("tmpfs"))
        if "size=" not in entry
    }
    for each in items(tree.get("volumes")):
        terms = mapping(each)
        if terms.get("type") == "tmpfs" and not mapping(terms.get("tmpfs")).get("size"):
            unbounded.add(str(terms.get("target")).rstrip("/"))
    for mount in spec.mounts:
        if isinstance(mount, TmpfsMount) and mount.target in unbounded:
            yield f"the tmpfs {mount.target} has no size, and holds at most {format_bytes(mount.size)}"


#: The capabilities of a container that Docker starts without further options.
DOCKER_CAPABILITIES = (
    *(
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
    ),
    *("NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)


@dataclass(frozen=True, slots=True)
class TrialChange:
    """A difference for some services."""

    kind: Literal["gain", "loss"]
    services: tuple[str, ...]
    text: str


def changes_of(
    project: ComposeProject, desired: Desired, reaches: Iterable[ServiceReach], policy: Policy
) -> tuple[TrialChange, ...]:
    """Return the gains and losses of the services that trimtab would run."""
    services = [each for each in desired.services if not isinstance(each.spec, JobSpec)]
    found = [
        *_gains(services, desired, policy),
        *_losses(desired, reaches, policy),
        *(TrialChange("loss", names, text) for text, names in completed_settings(project, desired)),
    ]
    return tuple(each for each in found if each.services)


def _named(services: Iterable[Service], fits: Callable[[Service], bool]) -> tuple[str, ...]:
    return tuple(each.key.name for each in services if fits(each))


def _gains(services: list[Service], desired: Desired, policy: Policy) -> Iterator[TrialChange]:
    everything = _named(desired.workloads, lambda _each: True)
    memory, pids = policy.resources.memory.default, policy.resources.pids.default
    yield TrialChange(
        "gain",
        _named(
            services,
            lambda each: (
                not exclusive_resources(each.spec)
                and each.spec.rollout.order is not Order.STOP_FIRST
            ),
        ),
        "a change stops a container only when its successor is available: open connections end",
    )
    yield TrialChange(
        "gain",
        _named(services, lambda each: not _changes_address(each, desired, policy)),
        "a container's successor has its address: clients that resolve names once go on",
    )
    yield TrialChange(
        "gain",
        _named(services, lambda _each: True),
        "a change that fails is rolled back; a container that is removed, altered or unhealthy is replaced",
    )
    yield TrialChange(
        "gain",
        _named(
            desired.workloads, lambda each: any(isinstance(m, FileMount) for m in each.spec.mounts)
        ),
        "a changed file of the project reaches the containers",
    )
    yield TrialChange(
        "gain",
        _named(desired.workloads, lambda each: each.spec.resources.memory is None),
        f"a memory limit of {format_bytes(memory)} and at most {pids} processes",
    )
    yield TrialChange(
        "gain", everything, "no new privileges; logs rotate; every change is on record"
    )


def _changes_address(service: Service, desired: Desired, policy: Policy) -> bool:
    """Return True if a network of a service was or is made by others, or the engine chooses its subnet."""
    attached = {service.network_name(each.name) for each in service.spec.network.attach}
    others = {each.engine_name for each in desired.networks if each.spec.engine_name is not None}
    return not policy.networks.address_pools or bool(attached & others)


def _losses(
    desired: Desired, reaches: Iterable[ServiceReach], policy: Policy
) -> Iterator[TrialChange]:
    reaches = [*reaches]
    running = [each for each in desired.services if not isinstance(each.spec, JobSpec)]
    yield TrialChange(
        "loss",
        _named(running, lambda each: _changes_address(each, desired, policy)),
        "a container's successor has another address, since trimtab doesn't choose addresses on its network: "
        "clients that resolve names once need a reload",
    )
    yield TrialChange(
        "loss",
        tuple(each.service for each in reaches if each.after is None),
        "isn't started: the problems above say why",
    )
    yield TrialChange(
        "loss",
        tuple(r.service for r in reaches if r.after and r.before.internet and not r.after.internet),
        "no way to the internet: join a network that isn't internal, or the policy's "
        "networks.composeDefault: bridge",
    )
    for names, dropped in _by_dropped(desired).items():
        yield TrialChange(
            "loss",
            names,
            f"no capabilities {', '.join(dropped)}: an image that starts as root can need them; set user, or "
            "cap_add and the policy's capabilities.allowed",
        )
    for reach in reaches:
        if reach.after is not None and reach.after.ports != reach.before.ports:
            before, after = ", ".join(reach.before.ports), ", ".join(reach.after.ports) or "none"
            text = f"published ports: {before} becomes {after}"
            yield TrialChange("loss", (reach.service,), text)
    volumes = [each for each in desired.volumes if each.spec.engine_name is None]
    named = ", ".join(qualified(each.key.namespace, each.key.name) for each in volumes)
    yield TrialChange(
        "loss",
        tuple(each.key.name for each in volumes),
        f"volumes that begin empty ({named}): to keep the volumes of Docker Compose, write x-trimtab: "
        "{volumes: compose}, and adopt the project (docs/adopt.md) or each volume (trimtab volume adopt)",
    )
    yield TrialChange(
        "loss",
        _named(desired.services, lambda each: bool(exclusive_resources(each.spec))),
        "a change interrupts the service, as with Docker Compose: a port of the host or a volume can't "
        "be held twice",
    )


def _by_dropped(desired: Desired) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the lost capabilities, by the services."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for each in desired.workloads:
        user = (each.spec.user or "").partition(":")[0]
        if user.isdecimal() and int(user) != 0:
            continue
        kept = {name.removeprefix("CAP_") for name in each.spec.security.cap_add}
        dropped = tuple(name for name in DOCKER_CAPABILITIES if name not in kept)
        groups.setdefault(dropped, []).append(each.key.name)
    return {tuple(names): dropped for dropped, names in groups.items() if dropped}
