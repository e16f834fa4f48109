"""What a project gains and loses with trimtab, against Docker Compose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from controller.core.compose.project import ComposeProject
from controller.core.compose.trial.reach import ServiceReach
from controller.core.compose.trial.running import completed_settings
from controller.core.manifests.checks.claims import exclusive_resources
from controller.model.desired.desired import Desired, Service
from controller.model.desired.spec.files import FileMount
from controller.model.desired.spec.job import JobSpec
from controller.model.desired.spec.rollout import Order
from controller.model.names import qualified
from controller.model.policy.document import Policy
from controller.model.quantities import format_bytes

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
        _named(services, lambda each: not exclusive_resources(each.spec) and _may_overlap(each)),
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
        _named(desired.workloads, _has_files),
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


def _may_overlap(service: Service) -> bool:
    return service.spec.rollout.order is not Order.STOP_FIRST


def _changes_address(service: Service, desired: Desired, policy: Policy) -> bool:
    """Return True if a network of a service was or is made by others, or the engine chooses its subnet."""
    attached = {service.network_name(each.name) for each in service.spec.network.attach}
    others = {each.engine_name for each in desired.networks if each.spec.engine_name is not None}
    return not policy.networks.address_pools or bool(attached & others)


def _has_files(service: Service) -> bool:
    return any(isinstance(mount, FileMount) for mount in service.spec.mounts)


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
