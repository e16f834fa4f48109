"""Stale endpoints: endpoints of a container without an entry in their network.

After a failed join, an engine still shows the endpoint at the container, with address and aliases.
But no other container can resolve the name. Engine 26.1 fails in this way with every container that
outlived a restart of the engine (live-restore). The old interface stays after the container leaves
a network, and blocks the next join.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: States with real endpoints. In other states the engine only shows the requested endpoints.
_CONNECTED = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class ObservedEndpoint:
    """An endpoint of a container in a network, during one run of the container."""

    #: The name of the network.
    network: str
    id: str
    started_at: str


def endpoints_of(inspect: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a container's inspect that ``stale_endpoints`` reads."""
    state, settings = inspect.get("State") or {}, inspect.get("NetworkSettings") or {}
    return {
        "Id": inspect["Id"],
        "State": {"Status": state.get("Status"), "StartedAt": state.get("StartedAt")},
        "NetworkSettings": {"Networks": settings.get("Networks")},
    }


def stale_endpoints(
    inspect: Mapping[str, Any], networks: Iterable[Mapping[str, Any]]
) -> frozenset[ObservedEndpoint]:
    """Return the endpoints in a container's inspect without an entry in the network's inspect.

    Endpoints in networks outside of *networks* are ignored.
    """
    state = inspect.get("State") or {}
    if state.get("Status") not in _CONNECTED:
        return frozenset()
    members = {each["Id"]: each.get("Containers") or {} for each in networks}
    joined = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    return frozenset(
        ObservedEndpoint(name, str(end.get("EndpointID") or ""), str(state.get("StartedAt") or ""))
        for name, end in joined.items()
        if end and inspect["Id"] not in members.get(end.get("NetworkID"), {inspect["Id"]})
    )
