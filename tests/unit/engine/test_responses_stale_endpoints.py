"""Endpoints in a container's inspect that are missing in its networks' inspects."""

from __future__ import annotations

from typing import Any

import pytest

from controller.engine.responses import ObservedEndpoint, stale_endpoints

SINCE = "2026-01-01T00:00:00Z"


def shown(status: str = "running", **ends: str) -> dict[str, Any]:
    """A container's inspect; *ends* are names of networks and their ids."""
    joined = {name: {"NetworkID": known, "EndpointID": f"e-{name}"} for name, known in ends.items()}
    state = {"Status": status, "StartedAt": SINCE}
    return {"Id": "c1", "State": state, "NetworkSettings": {"Networks": joined}}


def network(identifier: str, *members: str) -> dict[str, Any]:
    return {"Id": identifier, "Containers": {member: {} for member in members}}


@pytest.mark.parametrize("status", ["running", "paused"])
def test_a_place_that_its_network_does_not_know_of_is_none(status: str) -> None:
    there = shown(status, lan="n1", dmz="n2", host="n3")
    known = [network("n1", "c0"), network("n2", "c0", "c1")]
    assert stale_endpoints(there, known) == {ObservedEndpoint("lan", "e-lan", SINCE)}


@pytest.mark.parametrize("status", ["created", "exited", "restarting", "dead"])
def test_what_does_not_run_has_places_that_nobody_knows_of_yet(status: str) -> None:
    assert stale_endpoints(shown(status, lan="n1"), [network("n1")]) == frozenset()


def test_without_networks_there_are_none() -> None:
    assert (
        stale_endpoints({"Id": "c1", "State": {"Status": "running"}}, [network("n1")])
        == frozenset()
    )
    assert stale_endpoints(shown(none="n9"), []) == frozenset()
