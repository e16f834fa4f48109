"""Whatever an engine's object looks like, the controller observes the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.engine.requests import EngineResponse
from controller.engine.responses import BrokerObservation, EventStream
from controller.model import names
from controller.model.errors import EngineError
from tests.unit.broker.hostile_answers import BODIES, altered
from tests.unit.engine.test_adapter import KEY, LAN, Lines, engine, inspected, world

NETWORK = {"Id": "n1", "Name": "platform-network", "Driver": "bridge", "IPAM": {"Config": [{}]}}
VOLUME = {"Name": "data", "Driver": "local", "Options": {}}
CONTAINER = {
    **inspected("c1"),
    "State": {"Status": "running", "Running": True, "Health": {"Status": "x", "Log": [{}]}},
    "NetworkSettings": {"Networks": {"a": {"NetworkID": "n"}}, "Ports": {"1/tcp": [{}]}},
    "Mounts": [{"Type": "volume", "Name": "x", "RW": True}],
}


@pytest.mark.parametrize("name", BODIES)
def test_no_reply_ends_a_look_with_another_error_than_the_engines(name: str) -> None:
    paths = [each for each in world().answers if each.startswith("GET")]
    for path in (*paths, "GET /trimtab/v1/observe"):
        adapter = engine(world(**{path: EngineResponse(200, BODIES[name])}))
        for ask in (
            adapter.list_containers,
            lambda made=adapter: made.observe(images=frozenset({"web:1"})),
            lambda made=adapter: made.observe(images=frozenset({"web:1"}), only=KEY),
        ):
            try:
                ask()
            except EngineError:
                continue


def test_no_container_of_unexpected_form_hides_another() -> None:
    for other in altered(CONTAINER):
        wire = world(**{"GET /containers/c1/json": other})
        wire.answers["GET /containers/c2/json"] = inspected("c2")
        seen = engine(wire).observe(images=frozenset())
        assert "c2" in [each.id for each in seen.containers], other


def test_no_network_or_volume_of_unexpected_form_hides_another() -> None:
    for other in altered(NETWORK):
        seen = engine(world(**{"GET /networks/n1": other})).observe(images=frozenset(), only=LAN)
        assert [each.id for each in seen.containers] == ["c1"], other
    for other in altered(VOLUME):
        there = {"Volumes": [other, VOLUME]}
        seen = engine(world(**{"GET /volumes": there})).observe(images=frozenset())
        assert "data" in [each.name for each in seen.volumes], other


def test_no_event_of_unexpected_form_ends_a_subscription() -> None:
    good = {"Type": "container", "Action": "start", "timeNano": 7, "Actor": {"ID": "c1"}}
    good["Actor"] = {"ID": "c1", "Attributes": {names.SERVICE: "web", names.NAMESPACE: "default"}}
    lines = [json.dumps(other).encode() for other in altered(good)]
    last = json.dumps({**good, "timeNano": 8}).encode()
    events = EventStream(Lines(200, [*BODIES.values(), *lines, last]))
    told = []
    with pytest.raises(StopIteration):
        while True:
            told.append(next(events))
    assert (told[-1].time_ns, told[-1].id, told[-1].key) == (8, "c1", KEY)


def test_a_look_at_one_service_of_unexpected_form_is_that_services_problem() -> None:
    inventory = json.loads(json.dumps(world().answers["GET /trimtab/v1/inventory"]))
    for other in altered(CONTAINER):
        told: dict[str, Any] = {"networks": [], "volumes": [], "images": {}, "containers": [other]}
        try:
            BrokerObservation.of({"inventory": inventory, **told}, {})
        except EngineError as error:
            assert error.code == "engine.garbled"
