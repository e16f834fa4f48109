"""Networks and ports of a service, and the spec of a Network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from controller.model.desired.spec import fields
from controller.model.desired.spec.fields import PortNumber
from controller.model.observed import HostPort

#: Ports of one range, names of one network, and items of each list of ``dns``.
PORTS_MAX = 1_024
ALIASES_MAX = 16
DNS_MAX = 8
_PORT_RANGE = re.compile(r"[1-9][0-9]{0,4}-[1-9][0-9]{0,4}", re.ASCII)


class NetworkMode(StrEnum):
    """The implied network of a service's containers."""

    ISOLATED = "isolated"
    BRIDGE = "bridge"
    NONE = "none"
    DECLARED = "declared"  # no implied network: only the networks in ``attach``


def _range_of(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last)


def _port_range(text: str) -> str:
    match = _PORT_RANGE.fullmatch(text)
    if match is None:
        raise ValueError("expected a port, or a range such as 8000-8010")
    first, last = _range_of(text)
    if first >= last:
        raise ValueError("ends before its first port; expected a range such as 8000-8010")
    if last > 65535 or last - first >= PORTS_MAX:
        raise ValueError(f"is too large; expected at most {PORTS_MAX} ports up to 65535")
    return text


def _form_of(value: object) -> str:
    return "range" if isinstance(value, str) and "-" in value else "one"


#: A port, or a range such as ``8000-8010``.
PortOrRange = Annotated[
    Annotated[PortNumber, Tag("one")] | Annotated[str, AfterValidator(_port_range), Tag("range")],
    Discriminator(_form_of),
]


def _ports_of(value: int | str) -> range:
    first, last = (value, value) if isinstance(value, int) else _range_of(value)
    return range(first, last + 1)


class Port(fields.Model):
    """A port of the container, or a range of ports; ``host`` publishes it."""

    #: The port of the container, or a range.
    container: PortOrRange
    #: The port of the host, or a range. Unset: not published.
    host: PortOrRange | None = None
    #: The address of the host.
    host_ip: fields.PublishAddress = Field(default="127.0.0.1", alias="hostIP")
    #: The protocol.
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"

    @model_validator(mode="after")
    def _is_even(self) -> Port:
        if self.host is not None and len(_ports_of(self.host)) != len(_ports_of(self.container)):
            raise ValueError(
                "has ranges of two lengths; expected as many ports in host as in container"
            )
        return self

    @property
    def each(self) -> Iterator[SinglePort]:
        """Each port of a range, or the one port."""
        containers = _ports_of(self.container)
        hosts = [None] * len(containers) if self.host is None else _ports_of(self.host)
        for container, host in zip(containers, hosts, strict=True):
            yield SinglePort(container, host, self.host_ip, self.protocol)


@dataclass(frozen=True, slots=True)
class SinglePort:
    """A port of the container, with its port on the host."""

    container: int
    host: int | None
    host_ip: str
    protocol: str

    @property
    def published(self) -> HostPort | None:
        """The port of the host; None if the port is not published."""
        return None if self.host is None else HostPort(self.host_ip, self.host, self.protocol)


Aliases = Annotated[tuple[fields.HostName, ...], Field(max_length=ALIASES_MAX)]


def _named(value: object) -> object:
    match value:
        case str():
            return {"name": value}
        case {"aliases": list(aliases), **others}:
            # The result is validated as a value of Python, where a list is no tuple.
            return {**others, "aliases": tuple(aliases)}
        case _:
            return value


class Attachment(fields.Model):
    """A declared network to join, with further names and an address there. Written as a name or as a mapping."""

    #: The name of the Network.
    name: str
    #: Further names there.
    aliases: Aliases = ()
    #: The address of the one container there. Unset: the gate's choice for the slot.
    address: fields.ContainerAddress | None = None

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> object:
        # A name alone keeps the revision of documents from before the other members.
        if self.address is None:
            return (
                {"name": self.name, "aliases": handler(self)["aliases"]}
                if self.aliases
                else self.name
            )
        return handler(self)


class Dns(fields.Model):
    """The resolver of the containers: servers, search domains and options of resolv.conf."""

    #: Addresses of DNS servers.
    servers: Annotated[tuple[fields.DnsServer, ...], Field(max_length=DNS_MAX)] = ()
    #: Search domains.
    search: Annotated[tuple[fields.SearchDomain, ...], Field(max_length=DNS_MAX)] = ()
    #: Options of resolv.conf.
    options: Annotated[tuple[fields.DnsOption, ...], Field(max_length=DNS_MAX)] = ()


class ServiceNetwork(fields.Model):
    """The implied network of the namespace, and declared networks to join in addition."""

    #: isolated: names, no internet; bridge: names and internet; none: loopback; declared: attach alone.
    mode: NetworkMode = NetworkMode.ISOLATED
    #: Further names of the containers on the implied network.
    aliases: Aliases = ()
    #: Declared networks to join.
    attach: tuple[Annotated[Attachment, BeforeValidator(_named)], ...] = ()


class NetworkSpec(fields.Model):
    """The spec of a Network: a bridge of the namespace, without internet access by default."""

    internal: bool = True
    #: The addresses. Unset: the engine chooses them.
    subnet: fields.NetworkRange | None = None
    #: IPv6 addresses in addition, of this subnet.
    ipv6_subnet: fields.Ipv6Range | None = Field(default=None, alias="ipv6Subnet")
    #: The host's interface of a macvlan network, whose containers are on the host's network. Unset: a bridge.
    macvlan: fields.InterfaceName | None = None
    #: The router of a macvlan network. Unset: the first address of the subnet.
    gateway: fields.ContainerAddress | None = None
    #: The addresses for containers of a macvlan network, within the subnet.
    ip_range: fields.ContainerRange | None = None
    #: The engine's name of an existing network, which an operator adopted.
    engine_name: fields.EngineName | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> NetworkSpec:
        if self.macvlan is None and (self.gateway or self.ip_range):
            raise ValueError("has gateway or ipRange without macvlan; expected subnet alone")
        if self.macvlan is not None and (
            self.internal or self.subnet is None or self.ip_range is None or self.ipv6_subnet
        ):
            raise ValueError("has macvlan; expected internal: false with subnet and ipRange")
        return self
