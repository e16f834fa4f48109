"""Endpoints: the places of a container in networks, and those that the networks don't know of.

An engine that failed to join a container to a network shows it there all the same, with address and
aliases; by name nobody reaches it. Engine 26.1 fails so with every container that outlived a restart of
the engine (live-restore): its old interface stays behind when it leaves a network, and is in the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: Words for a container whose endpoints are there; of another the engine has only what it was asked for.
_PLUGGED = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class ObservedEndpoint:
    """A container's place in a network, in one run of it."""

    network: str  # its name
    id: str
    started_at: str


def strays(
    inspect: Mapping[str, Any], networks: Iterable[Mapping[str, Any]]
) -> frozenset[ObservedEndpoint]:
    """Return the endpoints that a container's inspect shows, and the inspects of *networks* don't.

    Of networks that aren't among those nothing is said.
    """
    state = inspect.get("State") or {}
    if state.get("Status") not in _PLUGGED:
        return frozenset()
    members = {each["Id"]: each.get("Containers") or {} for each in networks}
    joined = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    return frozenset(
        ObservedEndpoint(name, str(end.get("EndpointID") or ""), str(state.get("StartedAt") or ""))
        for name, end in joined.items()
        if end and inspect["Id"] not in members.get(end.get("NetworkID"), {inspect["Id"]})
    )
