"""Each two features meet once: a service comes, changes, is restarted and goes, in a calm world."""

from __future__ import annotations

import pytest

from controller.model.records import Reply, Request
from tests.sim.doomed import DoomedWorld
from tests.sim.faults import Action, Fault
from tests.sim.files import Doc
from tests.sim.pair_documents import Row
from tests.sim.pairs import ROWS, is_possible, lifetime, meetings, met_in
from tests.sim.planted import PLANTS
from tests.sim.scenario import APP_IMAGE
from tests.sim.stories import APP, Tale, edit, meddle
from tests.sim.violation import Violation


def _name(row: Row) -> str:
    return "-".join(row.values())


def test_all_values_meet_that_may() -> None:
    assert all(is_possible(row) for row in ROWS)
    assert frozenset[object]().union(*(met_in(row) for row in ROWS)) == meetings()


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_a_service_comes_changes_is_restarted_and_goes(row: Row) -> None:
    done = lifetime(row)
    assert done, "something was done"


def test_a_pull_that_is_repeated_for_ever_is_found() -> None:
    chosen = {"pull": "Always", "policy": "home", "order": "StartFirst"}
    row = next(each for each in ROWS if chosen.items() <= each.items())
    forgetful = next(each for each in PLANTS if each.patch == "pull-forgotten")
    with forgetful.growing(), pytest.raises(Violation) as found:
        lifetime(row)
    assert found.value.invariant == forgetful.invariant


class _OldSnapshot(DoomedWorld):
    """The pass after a pull sees the engine as it was before."""

    def act(self, action: Action, request: Request) -> Reply:
        if action is Action.PULL:
            self.faults.arm(Fault.STALE)
        return super().act(action, request)


class _FullDisk(DoomedWorld):
    """The disk is full once the first container is created: nobody can record that."""

    created = False

    def act(self, action: Action, request: Request) -> Reply:
        if action is Action.CREATE and not self.created:
            self.created = True
            self.faults.arm(Fault.FULL_OUTCOME)
        return super().act(action, request)


ALWAYS = Doc(APP, {"image": f"{APP_IMAGE}:1", "pullPolicy": "Always"})


def test_a_pull_follows_a_create_that_nobody_could_record() -> None:
    world = _FullDisk(Tale(frozenset(), (ALWAYS,), ((5, meddle("rm")),)))
    world.run()
    assert sum("pull-image" in line for line in world.trace.lines) > 1


def test_an_image_that_an_old_snapshot_lacks_is_pulled_again() -> None:
    then = ((20, edit(APP, image=f"{APP_IMAGE}:2")),)
    world = _OldSnapshot(Tale(frozenset(), (ALWAYS,), then))
    world.run()
    assert sum("app&tag=2" in line for line in world.trace.lines) > 1
