"""When passes of a sidecar follow those of the service whose namespaces it shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from controller.model.names import service_key
from controller.ports import EngineEvent
from tests.unit.loop.test_controller import house
from tests.unit.loop.toy import House, ToyEngine
from tests.worlds import container, service

APP = service("app", shares={"service": "vpn", "network": True})
REPLACED = [
    "create-container app.1-bbbbbbbb.2",
    "update-container app.1-bbbbbbbb",
    "stop-container app.1-bbbbbbbb",
    "start-container app.1-bbbbbbbb.2",
]


def settled(folder: Path) -> House:
    home = house(folder, services=(service("vpn"), APP))
    home.let_pass(30)
    return home


def test_a_sidecar_is_replaced_right_after_its_service(tmp_path: Path) -> None:
    home = settled(tmp_path)
    home.declare(service("vpn", "c"), APP)
    rollout = home.let_pass(10.5)
    assert rollout[-5:] == ["remove-container vpn.1-bbbbbbbb", *REPLACED]


def test_a_sidecar_is_replaced_right_after_the_engine_restarted_its_service(tmp_path: Path) -> None:
    home = settled(tmp_path)
    home.watch.jumped = 2_000_000_000.0 - home.watch.time

    def joined(engine: ToyEngine) -> None:
        engine.change(
            "app.1-bbbbbbbb.2",
            lambda c: replace(c, started_at="2026-01-04T00:00:00Z") if c.started_at else c,
        )

    home.engine.before_look = joined
    home.engine.change("vpn.1-bbbbbbbb", lambda c: replace(c, started_at="2026-01-03T00:00:00Z"))
    key = service_key("default", "vpn")
    home.controller.handle_event(EngineEvent(1, "container", "start", "", key))
    assert home.let_pass(1) == REPLACED


def test_a_sidecar_rests_while_a_slot_of_its_service_is_down(tmp_path: Path) -> None:
    there = container("vpn"), container("vpn", 2, state="restarting")
    shares = {"service": "vpn", "network": True}
    services = service("vpn", replicas=2), service("app", replicas=2, shares=shares)
    home = house(tmp_path, *there, services=services)
    assert home.settle() == ["create-container app.1-bbbbbbbb", "start-container app.1-bbbbbbbb"]
    looks = home.engine.looks
    home.let_pass(30)
    assert home.engine.looks - looks <= 12, "one each five seconds, of both services"
