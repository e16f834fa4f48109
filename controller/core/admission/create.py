"""The admission of a container create: what to look up, the ordered rules, host ports, the decision.

Pure. The controller runs the same rules as a preview (``core.admission.preview``); the broker's
decision is authoritative. A create is denied or completed, never silently weakened: the broker
does all of the request or refuses it. A refusal names every finding, the first rule's first.

Host ports held by containers: another owner's container can't take them between two lives.

The engine gives a host port to whichever container starts first, and takes it back at each stop. So
a container that restarts could lose its port to another owner's. Here a container holds its host
ports from its create to its removal, in any state. Ports that the engine chooses aren't held.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from controller.core.admission.engine_body import body_of, finish, refused_summary, summary_of
from controller.core.effective import named_by_image
from controller.core.enforcement import kept_settings
from controller.core.engine_api.requests import CreateRequest, Finding
from controller.core.jobs import memory
from controller.core.policy.grants import with_grants
from controller.core.records.parts import CreatePart, SummaryPart
from controller.core.rules import (
    container,
    context,
    host_routes,
    identity,
    images,
    logs,
    mounts,
    networks,
    verdict,
)
from controller.model import names
from controller.model.host_paths import is_below
from controller.model.inventory import ContainerItem
from controller.model.observed import HostPort
from controller.model.policy.document import Policy
from controller.model.records import Actor, Role

Rule = Callable[[context.Case], Iterable[Finding]]

#: All rules run, in this order; the first finding leads the verdict.
CREATE_RULES: tuple[Rule, ...] = (
    # First: an unknown or impersonating actor must not learn what the other rules would say.
    identity.owner_known,
    identity.labels_free,
    identity.slot_labelled,
    identity.service_named,
    identity.name_valid,
    identity.host_named,
    # A run that there was already is refused before anything about its settings.
    memory.runs_once,
    # The image before its settings: "image not admitted" is the shortest answer.
    images.image_allowed,
    images.platform_known,
    images.image_trusted,
    # Rights over the host, the gravest first.
    container.namespaces_private,
    networks.shares_allowed,
    networks.observers_confined,
    container.capabilities_listed,
    container.security_options,
    container.user_allowed,
    container.groups_allowed,
    container.devices_granted,
    container.root_filesystem,
    mounts.sources_allowed,
    mounts.files_own,
    mounts.mounts_bounded,
    images.anonymous_volumes,
    networks.mode_granted,
    networks.endpoints_implied,
    networks.networks_ours,
    networks.aliases_own,
    host_routes.addresses_allowed,
    networks.hosts_allowed,
    networks.dns_allowed,
    networks.ports_allowed,
    # Shares of the host.
    container.limits_bounded,
    kept_settings.limits_kept,
    container.cpuset_allowed,
    container.ulimits_bounded,
    container.sysctls_listed,
    container.storage_bounded,
    container.restart_bounded,
    container.healthcheck_bounded,
    logs.logs_kept,
    container.environment_bounded,
    container.arguments_bounded,
    container.hooks_allowed,
    # Last: a request that is wrong by itself must not be refused for the quota's sake.
    identity.quotas_kept,
)


def needs(
    request: CreateRequest,
    *,
    actor: Actor,
    policy: Policy,
    volumes_root: str = context.DEFAULT_VOLUMES_ROOT,
) -> context.Needs:
    """Return the objects and paths to look up before the rules can judge this create.

    Useful only for a request that the preview does not deny.
    """
    case = context.make_case(request, name="", actor=actor, policy=policy)
    binds = [mount.source for mount in request.mounts if mount.type == "bind"]
    nodes = [device.source for device in request.devices if not device.cdi]
    named = [mount.source for mount in request.mounts if mount.type == "volume"]
    named += [
        mounts.volume_below(source, volumes_root)
        for source in binds
        if is_below(source, volumes_root)
    ]
    joined = networks.wanted(case)
    made_here = set(case.networks.all()) if not case.by_controller else set()
    return context.Needs(
        image=case.reference.canonical if case.reference else "",
        paths=tuple(sorted({*binds, *nodes, *(m.source for m in mounts.mount_points(case))})),
        networks=joined,
        volumes=tuple(sorted({name for name in named if name})),
        implied=tuple(name for name in joined if name in made_here),
        cdi=tuple(device.source for device in request.devices if device.cdi),
    )


def _with_exceptions_told(findings: tuple[Finding, ...], case: context.Case) -> tuple[Finding, ...]:
    """Return findings; the first one tells of the service's exceptions that permit nothing here."""
    told = []
    if case.ended:
        told.append(f"the policy's exception for {case.service} ended on {max(case.ended)}")
    if case.exceptions_of_others:
        whose, wanted = ("clients", "documents") if case.by_controller else ("documents", "clients")
        exception = f"the policy's exception for {case.service} is for {whose} (for: {wanted})"
        told.append(exception)
    if not told:
        return findings
    first = replace(findings[0], remedy="; ".join(filter(None, (findings[0].remedy, *told))))
    return (first, *findings[1:])


def admit_create(
    request: CreateRequest,
    *,
    name: str,
    actor: Actor,
    policy: Policy,
    facts: context.CreateFacts | None,
    stamp: context.Stamp,
    platform: str = "",
) -> verdict.AdmissionDecision:
    """Judge a create by all rules, on a request that is completed by the image of *facts*.

    Args:
        request: the parsed body.
        name: the query's ``name``. If unset (''), a client's container gets a generated name.
        actor: the authenticated sender.
        policy: the policy in force.
        facts: the results of the look-ups. None for a preview, which skips the rules with facts.
        stamp: the instance and the intent, which become labels.
        platform: the query's ``platform``, '' if unset.
    """
    case = context.make_case(
        request,
        name=name,
        actor=actor,
        policy=policy,
        facts=facts,
        stamp=stamp,
        platform=platform,
    )
    return judge_create(case, policy)


def judge_create(case: context.Case, policy: Policy) -> verdict.AdmissionDecision:
    """Judge a create by all rules. *policy* is the one in force, without the service's exceptions."""
    findings = [*case.request.findings]
    for rule in CREATE_RULES:
        findings += named_by_image(rule(case), case.inherited)
    modes = case.policy.modes
    if refused := verdict.enforced_findings(findings, modes):
        advised = with_grants(refused, policy, by_client=case.actor.role is Role.CLIENT)
        advised = _with_exceptions_told(advised, case)
        return verdict.deny(advised, refused_summary(case))
    final = finish(case)
    decision = verdict.AdmissionDecision(
        verdict=verdict.verdict_of((), final.changes, case.exceptions),
        body=body_of(final),
        query=(("name", final.name),),
        summary=summary_of(case, final),
        settings=final.settings,
        warnings=mounts.warnings(case.request.mounts),
        folders=mounts.folders_to_make(case),
    )
    return verdict.with_tolerated(decision, findings, modes)


RULE = "port.taken"
_PUBLISHED = re.compile(
    r"([0-9.]+|[0-9a-f:]+):([0-9]{1,5})(?:-([0-9]{1,5}))?:[0-9]{1,5}/(tcp|udp|sctp)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class PortClaim:
    """A container and the published host ports."""

    owner: str
    name: str
    ports: tuple[HostPort, ...] = ()
    #: The ports from which the engine chooses one. The container holds none of them.
    ranges: tuple[HostPort, ...] = ()
    service: str = ""  # key of the service if the controller created the container, else ''


@dataclass(frozen=True, slots=True)
class PortConflict:
    """A host port of a new container that another owner's container holds."""

    port: HostPort
    holder: PortClaim


def make_claim(
    owner: str,
    name: str,
    published: Iterable[str],
    *,
    service: str = "",
    with_ranges: bool = True,
) -> PortClaim:
    """Return the claim of a container with published ports as recorded (``SummaryPart.ports``).

    Examples of such ports are ``127.0.0.1:8080:80/tcp`` and ``::1:8000-8010:80/udp``. Ports without
    a host port are left out: the engine chooses any free one. Ranges can have thousands of ports.
    """
    ports: list[HostPort] = []
    ranges: list[HostPort] = []
    for text in published:
        match = _PUBLISHED.fullmatch(text)
        if match is None or (match[3] and not with_ranges):
            continue
        address, first, last, protocol = match.groups()
        numbers = range(int(first), int(last or first) + 1)
        found = ranges if last else ports
        found += [HostPort(address, number, protocol) for number in numbers]
    return PortClaim(owner, name, tuple(ports), tuple(ranges), service)


def host_ports_of_item(item: ContainerItem) -> PortClaim:
    """Return the claim of a container in the inventory, without ranges: it holds no port of them."""
    service = f"{item.namespace}/{item.service}" if item.origin == "controller" else ""
    return make_claim(
        item.owner, item.admitted.name, item.ports, service=service, with_ranges=False
    )


def host_ports_of_summary(summary: SummaryPart) -> PortClaim:
    """Return the claim of the container of an open create, by the summary of its intent."""
    service = ""
    if summary.label(names.ORIGIN) == "controller":
        service = f"{summary.label(names.NAMESPACE)}/{summary.label(names.SERVICE)}"
    owner = summary.label(names.OWNER)
    return make_claim(owner, summary.name, summary.part(CreatePart).ports, service=service)


def conflict_of(mine: PortClaim, others: Iterable[PortClaim]) -> PortConflict | None:
    """Return a port of *mine* that another owner's container holds, None if there is none.

    Containers of the same service don't conflict, whoever owned the service at their create.
    """
    wanted = _wanted((*mine.ports, *mine.ranges))
    for other in others:
        same = mine.service != "" and other.service == mine.service
        if other.owner == mine.owner or same:
            continue
        for held in other.ports:
            at = wanted.get((held.port, held.protocol))
            if at is not None and (port := _overlapping(at, held)) is not None:
                return PortConflict(port, other)
    return None


def _wanted(ports: Iterable[HostPort]) -> dict[tuple[int, str], dict[str, HostPort]]:
    """Return ports by number and protocol, and there by address and by version (``v4``, ``v6``).

    A container can want thousands of ports, and others hold thousands: no pairs are compared.
    """
    found: dict[tuple[int, str], dict[str, HostPort]] = {}
    for port in ports:
        address = _read_address(port.address)
        at = found.setdefault((port.port, port.protocol), {})
        at.setdefault(address.text, port)
        at.setdefault(address.version, port)
    return found


def _overlapping(wanted: dict[str, HostPort], held: HostPort) -> HostPort | None:
    """Return the port of *wanted*, all with the same number, that overlaps a held one."""
    address = _read_address(held.address)
    if address.text == address.unspecified:
        return wanted.get(address.version)
    return wanted.get(address.text) or wanted.get(address.unspecified)


@dataclass(frozen=True, slots=True)
class _Address:
    text: str
    version: str
    unspecified: str  # all addresses of the version


@lru_cache(maxsize=1024)
def _read_address(text: str) -> _Address:
    address = ipaddress.ip_address(text)
    whole = "0.0.0.0" if address.version == 4 else "::"  # noqa: S104 - compared, never bound
    return _Address(str(address), f"v{address.version}", whole)


def finding_of(conflict: PortConflict, *, names_holder: bool) -> Finding:
    """Return the refusal; only *names_holder* names the holder."""
    port, holder = conflict.port, conflict.holder
    named = f"the container {holder.name} of {holder.owner}" if names_holder else "a container"
    return Finding(
        RULE,
        "HostConfig.PortBindings",
        f"host port {port.port}/{port.protocol} on {port.address} belongs to {named}"
        + ("" if names_holder else " of another owner")
        + ", also while that container is stopped",
        "publish on another port, or have that container removed",
    )
