"""A released volume in worlds of its own: its data goes after a dump and an approval, and no sooner."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.core.service import prune_guard
from controller.model.names import Key
from tests.sim.controller import request_of
from tests.sim.doomed import DoomedWorld
from tests.sim.files import Doc
from tests.sim.people import OPERATOR
from tests.sim.stories import DB, WEB, Tale, Then, approve, drop, service
from tests.sim.world import World

DATA = Key("Volume", "default", "data")
MOUNT = {"type": "volume", "source": "data", "target": "/data"}


def dump(world: World) -> str:
    """An operator dumps the volume."""

    def record(**body: Any) -> Any:
        sent = json.dumps(body).encode()
        reply = world.ask(request_of(OPERATOR, "POST", "/trimtab/v1/records", body=sent))
        assert reply is not None and reply.status == 200, reply
        return json.loads(reply.body)

    begun = record(act="volume.hold", object="data", **{"for": "dump"})
    record(act="volume.end", object="data", id=begun["id"], outcome="succeeded")
    return "the volume is dumped"


BEGIN = (Doc(DATA, {"retain": False}), service(DB, "db:1", mounts=[MOUNT]), service(WEB))
GOES: Then = (20, drop(DATA, DB))


def told(*then: Then) -> DoomedWorld:
    world = DoomedWorld(Tale(frozenset(), BEGIN, (GOES, *then)))
    with world.begun():
        world.live(90)
    return world


def test_a_released_volume_goes_after_a_dump_and_an_approval() -> None:
    assert "data" not in told((30, dump), (40, approve)).engine.volumes


@pytest.mark.parametrize("then", [(), ((30, dump),), ((30, approve),), ((30, approve), (40, dump))])
def test_a_released_volume_stays_without_a_dump_before_the_approval(then: tuple[Then, ...]) -> None:
    assert "data" in told(*then).engine.volumes


def test_the_gate_keeps_the_data_if_the_controller_forgets_to_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A planted bug: the controller takes each released volume for approved."""

    def wrong(*args: Any, approved: bool, **named: Any) -> prune_guard.ReleasedVolumes:
        del approved
        return original(*args, approved=True, **named)

    original = prune_guard.decide_releases
    monkeypatch.setattr(prune_guard, "decide_releases", wrong)
    assert "data" in told((30, dump)).engine.volumes
