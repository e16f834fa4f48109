"""Host ports held by containers: another owner's container can't take them between two lives.

The engine gives a host port to whichever container starts first, and takes it back at each stop. So
a container that restarts could lose its port to another owner's. Here a container holds its host
ports from its create to its removal, in any state. Ports that the engine chooses aren't held.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from controller.core.engine_api.requests import Finding
from controller.core.records.parts import CreatePart, SummaryPart
from controller.model import names
from controller.model.inventory import ContainerItem
from controller.model.observed import HostPort

RULE = "port.taken"
_PUBLISHED = re.compile(
    r"([0-9.]+|[0-9a-f:]+):([0-9]{1,5})(?:-([0-9]{1,5}))?:[0-9]{1,5}/(tcp|udp|sctp)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class PortClaim:
    """A container with the host ports that it publishes."""

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


def of_item(item: ContainerItem) -> PortClaim:
    """Return the claim of a container in the inventory, without ranges: it holds no port of them."""
    service = f"{item.namespace}/{item.service}" if item.origin == "controller" else ""
    return make_claim(
        item.owner, item.admitted.name, item.ports, service=service, with_ranges=False
    )


def of_summary(summary: SummaryPart) -> PortClaim:
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
