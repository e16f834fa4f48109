"""Dumps and restores in simulated worlds: no container runs on held data, and each runs afterwards.

The command of an operator begins a hold, stops the containers, and dies or ends. The broker may
die before each of its commands. The real gate, controller and engine's rules go on meanwhile.
"""

from __future__ import annotations

import json

import pytest

from controller.broker.handlers import container_lifecycle, volumes
from controller.broker.handlers.volumes import LEASE_S
from controller.core.records import inventory as inventories
from controller.model.records import Reply, Request
from tests.sim.broker import BrokerDied
from tests.sim.doomed import NumberedWorld
from tests.sim.people import OPERATOR
from tests.sim.planted import Plant, always
from tests.sim.stories import DB, Tale, service
from tests.sim.violation import Violation

#: The invariant of data: nothing removes it, and nobody writes while it is copied or exchanged.
DATA = 5
CONVERGES = 10
VOLUME = "data"
MOUNT = {"type": "volume", "source": VOLUME, "target": "/data"}
STORY = Tale(frozenset(), (service(DB, "db:1", mounts=[MOUNT]),))
#: Commands of a hold, the stop and the end, and of what follows.
MOMENTS = 60


class HeldWorld(NumberedWorld):
    """A world in which the broker dies before the command of a number, counted from a hold on."""

    def __init__(self, at: int = -1) -> None:
        super().__init__(STORY, at)

    def record(self, **body: object) -> Reply | None:
        return self.send("/trimtab/v1/records", **body)

    def stop_all(self) -> None:
        """Stop the containers through the gate, as the command does."""
        for identifier in self.running(DB):
            self.ask(Request("POST", f"/v1.45/containers/{identifier}/stop", "", (), b"", OPERATOR))

    def end_expired(self) -> None:
        """Do what the broker does every few seconds."""
        if self.broker.state is None:
            return
        try:
            self.broker._drive(volumes.end_expired_holds(self.broker.state))
        except BrokerDied:
            self.broker.die()


def tell(world: HeldWorld, *, dies: bool) -> None:
    """Tell the story of one dump; raise Violation if it goes wrong."""
    with world.begun():
        world.live(60)
        assert len(world.running(DB)) == 1, "the service runs"
        world.count = 0
        reply = world.record(act=volumes.HOLD_BEGIN, object=VOLUME, **{"for": "dump"})
        begun = reply is not None and reply.status == 200
        if begun:
            world.stop_all()
        if begun and not world.running(DB):
            _copy(world)
        if begun and not dies and reply is not None:
            told = json.loads(reply.body)
            world.record(act=volumes.HOLD_END, object=VOLUME, id=told["id"], outcome="succeeded")
        for _ in range(6):
            world.live(LEASE_S)
            world.end_expired()
        world.count = -1
        world.rest()
        state = world.broker.state
        if state is None or state.inventory.holds:
            raise Violation(DATA, "the volume is held although the command is gone")
        if len(world.running(DB)) != 1:
            raise Violation(DATA, "the service isn't started after a dump")


def _copy(world: HeldWorld) -> None:
    """Copy the data for less than a lease, and watch."""
    for _ in range(int(LEASE_S) // 2):
        world.live(1)
        if world.running(DB):
            raise Violation(DATA, "a container runs while its volume is copied")


@pytest.mark.parametrize("dies", [False, True])
def test_no_container_runs_on_a_held_volume_and_each_runs_afterwards(dies: bool) -> None:
    tell(HeldWorld(), dies=dies)


def test_wherever_the_broker_dies_a_dump_ends_and_the_service_runs() -> None:
    for at in range(1, MOMENTS, 3):
        world = HeldWorld(at)
        tell(world, dies=at % 2 == 1)
        assert world.died


PLANTS = (
    Plant(
        DATA,
        "start-on-a-held-volume",
        "a container is started while its volume is dumped",
        ((container_lifecycle, "refuse_if_volume_held", always(lambda *_: None)),),
    ),
    Plant(
        CONVERGES,
        "hold-without-an-end",
        "a hold outlives the command that died",
        ((volumes, "LEASE_S", always(10.0**9)),),
    ),
    Plant(
        DATA,
        "hold-forgotten",
        "a broker doesn't know the holds of its journal",
        ((inventories, "_hold_volume", always(lambda inventory, *_: inventory)),),
    ),
)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.patch)
def test_a_planted_bug_about_held_data_is_found(plant: Plant) -> None:
    with plant.growing(), pytest.raises(Violation) as found:
        tell(HeldWorld(), dies=True)
    assert found.value.invariant == plant.invariant
