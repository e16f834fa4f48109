"""Adoption of one foreign volume or network by an operator, for the documents of a namespace.

Pure. The object was made past the gate, so an operator vouches for the object. Only plain local
volumes and plain bridge networks can be adopted: others can reach any path of the host, or another
network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from controller.core.encoding.quoting import quote
from controller.core.engine_api.mount_grammar import is_plain_volume
from controller.core.engine_api.requests import ICC, MASQUERADE, Finding, Grant
from controller.core.records.parts import AdoptionPart, SummaryPart
from controller.core.rules.identity import adopt_remedy, judge_name, judge_owner
from controller.core.rules.networks import WAY_OUT
from controller.core.rules.verdict import enforced_findings
from controller.model import names
from controller.model.inventory import OwnedObject
from controller.model.policy.document import Policy
from controller.model.records import Role

#: The name of a volume that the engine named.
_UNNAMED = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: The engine's own networks.
_ENGINES = frozenset({"bridge", "host", "none", "default", "ingress", "docker_gwbridge"})
#: Options of a bridge that reach nothing beyond the network.
_HARMLESS = frozenset(
    {MASQUERADE, ICC, "com.docker.network.bridge.name", "com.docker.network.driver.mtu"}
)


@dataclass(frozen=True, slots=True)
class ObjectUser:
    """A container that mounts the volume, or is joined to the network."""

    name: str
    running: bool
    #: In the inventory.
    ours: bool


@dataclass(frozen=True, slots=True)
class AdoptionRequest:
    """An operator's request to adopt a foreign object."""

    kind: Literal["volume", "network"]
    #: The engine's name.
    name: str
    namespace: str
    owner: str


def judge_object(
    request: AdoptionRequest,
    inspect: Mapping[str, Any],
    *,
    owned: OwnedObject | None,
    users: tuple[ObjectUser, ...],
    instance: str,
    policy: Policy,
) -> tuple[Finding, ...]:
    """Return the reasons why an object can't be adopted.

    *owned* is its item in the inventory; *users* are the containers with the volume or network.
    """
    found = [
        *_names(request, policy),
        *_labels(request, inspect, instance),
        *(_volume(inspect) if request.kind == "volume" else _network(inspect, policy)),
        *_users(request, owned, users),
    ]
    return tuple(enforced_findings(found, policy.modes))


def _names(request: AdoptionRequest, policy: Policy) -> Iterator[Finding]:
    if not names.is_dns_label(request.namespace, length=names.NAMESPACE_MAX):
        reason = f"{quote(request.namespace)} is no namespace"
        yield Finding("adopt.namespace", "namespace", reason, "name it as --as NAMESPACE/NAME")
        return
    yield from judge_owner(policy, Role.CONTROLLER, request.owner, request.namespace)
    # The engine names a volume by 64 hex digits, and finds volumes by their whole names alone.
    if not (request.kind == "volume" and _UNNAMED.fullmatch(request.name)):
        yield from judge_name(request.name, "Name", most=policy.names.max)
    bases = (policy.networks.isolated, policy.networks.ingress, policy.networks.bridge)
    implied = any(request.name == base or request.name.startswith(f"{base}.") for base in bases)
    if request.kind == "network" and (implied or request.name in _ENGINES):
        reason = f"{request.name} is a network of the engine, or of every namespace"
        yield Finding("name.reserved", "Name", reason, "adopt a network that somebody made")


def _labels(
    request: AdoptionRequest, inspect: Mapping[str, Any], instance: str
) -> Iterator[Finding]:
    made_by = str((inspect.get("Labels") or {}).get(names.INSTANCE) or "")
    if made_by == instance:
        reason = f"the {request.kind} {request.name} carries this instance's label"
        yield Finding("adopt.labels", "Labels", reason, "use 'trimtab adopt --yes'")
    elif made_by:
        reason = f"the labels of {request.name} name the instance {quote(made_by)}"
        yield Finding("adopt.labels", "Labels", reason, adopt_remedy(made_by))


def _volume(inspect: Mapping[str, Any]) -> Iterator[Finding]:
    options = {str(name): str(value) for name, value in (inspect.get("Options") or {}).items()}
    if not is_plain_volume(str(inspect.get("Driver")), options.items()):
        reason = "the volume has options or a driver, and can reach any path of the host"
        remedy = "copy its data into a plain local volume"
        yield Finding("volume.options", "Driver", reason, remedy)


def _network(inspect: Mapping[str, Any], policy: Policy) -> Iterator[Finding]:
    ipam = inspect.get("IPAM") or {}
    special = [name for name in ("Ingress", "ConfigOnly") if inspect.get(name)]
    options = sorted((inspect.get("Options") or {}).keys() - _HARMLESS)
    plain = inspect.get("Driver") == "bridge" and str(inspect.get("Scope") or "local") == "local"
    if not plain or special or options or str(ipam.get("Driver") or "default") != "default":
        unusual = ", ".join((*special, *options)) or f"the driver {inspect.get('Driver')!r}"
        reason = f"the network isn't a plain bridge: {unusual}"
        yield Finding("network.options", "Driver", reason, "make a network without options")
    if inspect.get("EnableIPv6") and not policy.networks.ipv6:
        reason = "IPv6 needs a firewall of its own (CVE-2024-32473)"
        remedy, permit = "make the network without IPv6", Grant("set", "networks.ipv6", True)
        yield Finding("network.ipv6", "EnableIPv6", reason, remedy, permit=permit)
    if not inspect.get("Internal") and "bridge" not in policy.networks.modes:
        reason = "the network has a way out, which the policy doesn't grant"
        remedy = "grant bridge, or make it internal"
        yield Finding("network.internal", "Internal", reason, remedy, permit=WAY_OUT)


def _users(
    request: AdoptionRequest, owned: OwnedObject | None, users: tuple[ObjectUser, ...]
) -> Iterator[Finding]:
    if owned is not None and not owned.adopted:
        reason = f"the {request.kind} {request.name} is this instance's already"
        yield Finding("adopt.known", "Name", reason, "leave out engineName, or name another one")
        return
    mine = [user.name for user in users if user.ours]
    moves = owned is not None and (owned.namespace, owned.owner) != (
        request.namespace,
        request.owner,
    )
    if moves and owned is not None and mine:
        reason = f"{mine[0]} of the namespace {owned.namespace} uses {request.name}"
        yield Finding("adopt.in-use", "namespace", reason, "remove that container first")
    # A stopped container can't write. A network shows its running members only to each other.
    others = [user.name for user in users if not user.ours and user.running]
    if others:
        reason = f"{others[0]} runs with {request.name}, and isn't this instance's"
        yield Finding("adopt.in-use", "Name", reason, "stop that container, or adopt it first")


def summary_of(request: AdoptionRequest, *, identity: str, intent: str, note: str) -> SummaryPart:
    """Return the summary of the record, from which the inventory takes the object."""
    labels = {
        names.INTENT: intent,
        names.NAMESPACE: request.namespace,
        names.ORIGIN: Role.CONTROLLER.value,
        names.OWNER: request.owner,
    }
    return AdoptionPart(
        act="adopt-object",
        kind=request.kind,
        name=request.name,
        namespace=request.namespace,
        owner=request.owner,
        labels=labels,
        identity=identity,
        note=note,
    )
