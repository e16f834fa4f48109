"""Networks and ports of a service, and the spec of a Network."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from controller.model.desired.field_types import PortNumber
from controller.model.desired.spec.fields import Model, PublishAddress
from controller.model.observed import HostPort


class NetworkMode(StrEnum):
    """The implied network of a service's containers."""

    ISOLATED = "isolated"
    BRIDGE = "bridge"
    NONE = "none"


class Port(Model):
    """A port of the container; ``host`` publishes it."""

    container: PortNumber
    host: PortNumber | None = None
    host_ip: PublishAddress = Field(default="127.0.0.1", alias="hostIP")
    protocol: Literal["tcp", "udp"] = "tcp"

    @property
    def published(self) -> HostPort | None:
        """The port of the host; None if the port is not published."""
        return None if self.host is None else HostPort(self.host_ip, self.host, self.protocol)


class ServiceNetwork(Model):
    """The implied network of the namespace, and declared networks to join in addition."""

    mode: NetworkMode = NetworkMode.ISOLATED
    attach: tuple[str, ...] = ()


class NetworkSpec(Model):
    """The spec of a Network: a bridge of the namespace, without internet access by default."""

    internal: bool = True
