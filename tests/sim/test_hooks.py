"""Hooks: run in each container after its start and before its stop, and nothing is ready before."""

from __future__ import annotations

from controller.model import names
from controller.model.observed import HOOKS_SUCCEEDED
from tests.sim.doomed import DoomedWorld
from tests.sim.places import label
from tests.sim.stories import HOOKS, STORIES, WEB, edit, service


def test_hooks_are_run_at_each_start_and_before_each_stop() -> None:
    world = DoomedWorld(STORIES["hooks"])
    world.run()
    ran = [argv for _container, argv in world.engine.been_run]
    assert ran.count(("warm", "up")) == 4  # two replicas, twice
    assert ran.count(("drain",)) == 2
    assert world.broker.state is not None
    items = world.broker.state.inventory.containers.values()
    assert {item.post_start for item in items} == {HOOKS_SUCCEEDED}
    assert not world.broker.state.inventory.sessions


def test_a_container_whose_hook_fails_takes_over_nothing() -> None:
    failing = {**HOOKS, "postStart": [{"exec": ["/bin/sh", "-c", "exit 3"]}]}
    tale = STORIES["hooks"]
    begin = (service(WEB, replicas=2),)
    world = DoomedWorld(type(tale)(tale.does, begin, ((5, edit(WEB, lifecycle=failing)),)))
    with world.begun():
        world.live(120)
        kept = [
            each
            for each in world.engine.containers.values()
            if each.running and not label(each, names.HOOKS)
        ]
        assert len(kept) == 2
