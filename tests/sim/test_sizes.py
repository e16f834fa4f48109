"""Volumes with a size in worlds of their own, on storage with project quotas and without."""

from __future__ import annotations

import json
from typing import Any

from controller.model.names import Key
from controller.model.policy.document import Policy
from tests.sim.controller import request_of
from tests.sim.faults import Faults
from tests.sim.files import Doc
from tests.sim.ground import POLICY
from tests.sim.people import OPERATOR
from tests.sim.stories import DB, Tale, edit, service
from tests.sim.world import World

DATA = Key("Volume", "default", "data")
MOUNT = {"type": "volume", "source": "data", "target": "/data"}
BEGIN = (Doc(DATA, {"size": "64Mi"}), service(DB, "db:1", mounts=[MOUNT]))
#: The policy of a host that says its storage can hold sizes.
DECLARED = POLICY.resources.model_copy(update={"volume_max": 1 << 30})


class Sized(World):
    """A world whose policy admits sizes. *holds*: its storage can hold them."""

    def __init__(self, *, holds: bool) -> None:
        super().__init__(0, story=Tale(frozenset(), BEGIN), faults=Faults.none())
        self.engine.holds_sizes = holds

    def make_policy(self) -> Policy:
        return POLICY.model_copy(update={"resources": DECLARED})

    @property
    def options(self) -> Any:
        """The options of the volume, as the engine shows them to an operator through the gate."""
        reply = self.ask(request_of(OPERATOR, "GET", "/volumes/data"))
        assert reply is not None and reply.status == 200, reply
        return json.loads(reply.body)["Options"]

    @property
    def problems(self) -> list[tuple[str, Key | None]]:
        """The problems of a plan for everything: code and object."""
        assert self.controller is not None
        self.controller.transport.turn(None, stale=False)
        found = self.controller.loop.plan_everything().plan.problems
        return [(each.code, each.key) for each in found]

    @property
    def running(self) -> list[str]:
        return [c.id for c in self.engine.containers.values() if c.status == "running"]


def test_a_volume_keeps_its_size_and_another_one_is_a_problem_of_the_volume_alone() -> None:
    world = Sized(holds=True)
    with world.begun():
        world.live(30)
        assert world.options == {"size": "67108864"}
        assert (world.problems, len(world.running)) == ([], 1)
        before = world.running
        edit(DATA, size="128Mi")(world)
        world.live(60)
        assert world.problems == [("volume.size", DATA)]
        assert (world.options, world.running) == ({"size": "67108864"}, before)
        edit(DATA, size="64Mi")(world)
        world.live(60)
        assert world.problems == []


def test_without_quotas_nothing_is_made_in_place_of_a_volume_with_a_size() -> None:
    world = Sized(holds=False)
    with world.begun():
        world.live(60)
        assert (list(world.engine.volumes), world.running) == ([], [])
        world.engine.holds_sizes = True
        world.live(15 * 60)
        assert world.options == {"size": "67108864"}
        assert len(world.running) == 1
