"""Releases in simulated worlds: whatever dies, the service's one container runs, and the repeated request does the rest.

The broker may die before each of its commands. The real gate, controller and engine's rules go on meanwhile.
"""

from __future__ import annotations

import json
from itertools import count

import pytest

from controller.broker.gate import state as gate_state
from controller.broker.gate.commands import Forward, Lost
from controller.core.records import container_effects
from controller.model import inventory as inventories
from controller.model.records import Reply
from tests.sim.doomed import NumberedWorld
from tests.sim.files import Doc
from tests.sim.planted import Plant, always
from tests.sim.stories import FILES, SITE, WEB, Tale, service
from tests.sim.violation import Violation

#: The invariants: one container on the data, and nothing of ours beside it.
DATA, OURS = 5, 4

COPY = "/var/lib/platform/copy"
PLAIN = Tale(frozenset(), (service(WEB),))
WITH_FILES = Tale(frozenset(), (Doc(SITE, {"data": {"a": "1"}}), service(WEB, mounts=FILES[:1])))


class ReleasingWorld(NumberedWorld):
    """A world in which the broker dies before the command of a number, counted from the release on."""

    def release(self) -> Reply | None:
        """Release what is left to release, as the command does."""
        reply: Reply | None = None
        state = self.broker.state
        known = [] if state is None else [*state.inventory.containers, *state.inventory.released]
        for identifier in known:
            asked = self.send("/trimtab/v1/releases", container=identifier, dryRun=True)
            if asked is None or asked.status != 200:
                continue
            found = json.loads(asked.body)["container"]
            files = {each["target"]: COPY for each in found["files"]}
            if found["findings"]:
                continue
            self.marks.touched.add(identifier)
            reply = self.send("/trimtab/v1/releases", container=identifier, files=files)
        return reply


def tell(world: ReleasingWorld) -> None:
    """Tell the story of one release; raise Violation if it goes wrong."""
    with world.begun():
        world.live(60)
        (before,) = world.running(WEB)
        world.count = 0
        world.release()
        world.live(120)
        world.count = -1
        world.release()
        world.live(300)
        state = world.broker.state
        if state is None or len(world.running(WEB)) != 1:
            raise Violation(DATA, f"{len(world.running(WEB))} containers of the service run")
        known = state.inventory
        if known.containers or [*known.released] != world.running(WEB) or known.open:
            raise Violation(OURS, "the service's one container isn't released")
        started = world.engine.containers[world.running(WEB)[0]]
        kept = before == started.id
        if kept != (world.story is PLAIN):
            raise Violation(DATA, "a container without files was replaced, or one with files kept")


@pytest.mark.parametrize("story", [PLAIN, WITH_FILES], ids=["plain", "with-files"])
def test_a_released_service_goes_on_alone(story: Tale) -> None:
    tell(ReleasingWorld(story))


@pytest.mark.parametrize("story", [PLAIN, WITH_FILES], ids=["plain", "with-files"])
def test_wherever_the_broker_dies_the_repeated_release_does_the_rest(story: Tale) -> None:
    for at in count(1, 2):
        world = ReleasingWorld(story, at)
        tell(world)
        if not world.died:
            break
    assert at > 10, "a release gives more commands"


class RefusingWorld(ReleasingWorld):
    """A world in which the engine fails to start any other container than those that ran before."""

    def __init__(self) -> None:
        super().__init__(WITH_FILES)
        self.able: list[str] = []

    def forward(self, command: Forward) -> Reply | Lost:
        starts = command.path.endswith("/start")
        if starts and self.able and not any(each in command.path for each in self.able):
            refused = Reply(500, b'{"message": "no room"}')
            self.checkers.answered(self.checkers.forwarding(command), refused)
            return refused
        return super().forward(command)


def test_if_the_new_container_cannot_start_the_old_one_runs_again() -> None:
    world = RefusingWorld()
    with world.begun():
        world.live(60)
        world.able = world.running(WEB)
        reply = world.release()
        assert reply is not None
        assert (reply.status, b"no room" in reply.body) == (500, True)
        assert world.running(WEB) == world.able
        state = world.broker.state
        assert state is not None
        assert [*state.inventory.released] == world.able
        world.able = []
        assert (reply := world.release()) is not None
        assert reply.status == 200
        world.live(60)
        assert [*state.inventory.released] == world.running(WEB)


PLANTS = (
    Plant(
        DATA,
        "start-beside-a-released-one",
        "the slot of a released container counts as free",
        (
            (inventories, "released_holders", always(lambda _inventory: ())),
            (gate_state, "released_holders", always(lambda _inventory: ())),
        ),
    ),
    Plant(
        OURS,
        "released-and-supervised",
        "the container in the place of a released one is supervised",
        ((container_effects, "_let_go", always(lambda inventory, _item: inventory)),),
    ),
)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.patch)
def test_a_planted_bug_about_released_containers_is_found(plant: Plant) -> None:
    with plant.growing(), pytest.raises(Violation):
        tell(ReleasingWorld(WITH_FILES))
