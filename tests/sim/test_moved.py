"""Moves in worlds of their own: a renamed service runs on, wherever a process dies, and nobody's is taken."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controller.broker.handlers import trimtab_api
from controller.core.planning import context
from controller.core.records import container_effects
from controller.core.service import prune_guard
from controller.loop import passes
from controller.model.names import Key
from tests.sim.controller import request_of
from tests.sim.doomed import DoomedWorld
from tests.sim.files import Doc
from tests.sim.people import CLAIM, USURPER
from tests.sim.places import label, slot_of
from tests.sim.planted import Plant, always, returning
from tests.sim.stories import (
    CELLAR,
    DB,
    ILL,
    PROBE,
    RENAMED,
    STORIES,
    WEB,
    Tale,
    by_hand,
    edit,
    meddle,
    rename,
    service,
)
from tests.sim.test_crash_sweep import Death, die, some, told
from tests.sim.violation import Violation
from tests.sim.world import World

MOVED = "moved"
#: Deaths of an ordinary run; ``make sim KIND=sweep`` has all of them.
DEATHS = 7
FOREIGN, SERVING = 4, 7


def usurped(source: Key, target: Key, owner: str):
    """Return an act: to ask with the controller's user for a move."""

    def act(world: World) -> str:
        body = {
            "act": "service.moved",
            "object": str(target),
            "from": str(source),
            "owner": owner,
        }
        path, sent = "/trimtab/v1/records", json.dumps(body).encode()
        reply = world.ask(request_of(USURPER, "POST", path, body=sent, context=CLAIM))
        return f"somebody moves {source} to {target} for {owner}: {0 if reply is None else reply.status}"

    return act


TAKEN = Tale(
    frozenset(),
    (service(WEB), Doc(DB, service(DB, "db:1").spec, owner="others")),
    (
        (5, usurped(DB, RENAMED, "team")),
        (6, usurped(WEB, DB, "team")),
        (7, usurped(WEB, Key("Service", "lab", "web"), "team")),
    ),
)
PLANTS = (
    Plant(
        FOREIGN,
        "moved-on-the-controllers-word",
        "the gate records each move that the controller asks for",
        ((trimtab_api, "judge_move", always(lambda *_args, **_named: ())),),
    ),
)


def test_nobody_takes_a_service_by_a_move() -> None:
    world = DoomedWorld(TAKEN)
    world.run()
    asked = [line for line in world.trace.lines if "somebody moves" in line]
    assert [line.rpartition(": ")[2] for line in asked] == ["403", "403", "403"]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.patch)
def test_a_service_taken_by_a_move_is_found(plant: Plant) -> None:
    with plant.growing(), pytest.raises(Violation) as found:
        DoomedWorld(TAKEN).run()
    assert found.value.invariant == plant.invariant


def test_a_renamed_service_runs_on_and_is_rolled_out_under_its_new_name() -> None:
    world = told(MOVED)
    mine = [c for c in world.engine.containers.values() if label(c, "io.trimtab.service") == "site"]
    assert sorted(slot[2] for c in mine if (slot := slot_of(c))) == ["1", "2"]
    assert {label(each, "io.trimtab.image") for each in mine} == {"trimtab.local/web:2"}


MOVES = (
    Plant(
        FOREIGN,
        "moved-and-forgotten",
        "a move is recorded, and the inventory keeps the earlier name",
        ((container_effects, "move_service", always(lambda known, *_named: known)),),
    ),
    Plant(
        SERVING,
        "claimed-and-pruned",
        "containers of a claimed name are removed like those of a removed document",
        (
            (context, "pending_moves", always(lambda _desired, _observed: ())),
            (passes, "pending_moves", always(lambda _desired, _observed: ())),
            (prune_guard, "claimed_keys", always(lambda _desired, _observed: frozenset())),
        ),
    ),
    Plant(
        SERVING,
        "moved-beside-unread",
        "a service begins anew while an unread document possibly declares its earlier name",
        (
            (
                passes,
                "pending_moves",
                returning(lambda moves: tuple(move for move in moves if not move.waits)),
            ),
        ),
    ),
)


#: A service is renamed, and its new program never answers: the containers of the earlier name serve on.
NEVER_ANSWERS = Tale(
    frozenset(),
    (service(WEB, healthcheck=PROBE), service(CELLAR, "db:1")),
    ((30, rename(WEB, RENAMED)), (30, edit(RENAMED, image=ILL))),
    ill=frozenset({ILL}),
)


def litter(world: World) -> str:
    world.files.litter()
    world.files_changed()
    return "a file that may declare anything comes"


def mend(world: World) -> str:
    world.files.mend()
    world.files_changed()
    return "the files are mended"


#: A service is renamed beside a file that can't be read, and that possibly declares the earlier name.
BESIDE_UNREAD = Tale(
    frozenset(),
    (service(WEB),),
    (
        (10, litter),
        (20, rename(WEB, RENAMED)),
        (60, mend),
        (90, edit(RENAMED, image="trimtab.local/web:2")),
    ),
)


def test_a_renamed_service_whose_new_program_never_answers_serves_on() -> None:
    DoomedWorld(NEVER_ANSWERS).run()


def test_a_service_renamed_beside_an_unread_file_takes_its_containers_over_later() -> None:
    world = DoomedWorld(BESIDE_UNREAD)
    world.run()
    steps = ["renamed to", "are mended", "move-service", "image"]
    times = [next(n for n, line in enumerate(world.trace.lines) if step in line) for step in steps]
    assert times == sorted(times), "the containers go on before the rollout replaces them"


@pytest.mark.parametrize(
    ("plant", "tale"),
    [(MOVES[0], STORIES[MOVED]), (MOVES[1], NEVER_ANSWERS), (MOVES[2], BESIDE_UNREAD)],
    ids=["known", "claimed", "unread"],
)
def test_a_planted_bug_about_moves_is_found(plant: Plant, tale: Tale) -> None:
    with plant.growing(), pytest.raises(Violation) as found:
        DoomedWorld(tale).run()
    assert found.value.invariant == plant.invariant


@pytest.mark.parametrize("doing", ["disconnect", "alias"])
def test_a_renamed_service_that_somebody_cut_off_joins_under_its_new_name(doing: str) -> None:
    world = DoomedWorld(
        Tale(frozenset(), (service(WEB),), ((10, rename(WEB, RENAMED)), (30, meddle(doing))))
    )
    world.run()
    (only,) = world.people.ours()
    assert {name for end in only.networks.values() for name in end.aliases or ()} == {RENAMED.name}


def claim_ends(world: World) -> str:
    world.files.put(replace(world.files.docs[RENAMED], moved=""))
    world.files.put(service(WEB))
    world.files_changed()
    return f"another {WEB} comes"


def test_a_suspension_goes_with_a_renamed_service_and_leaves_its_earlier_name_free() -> None:
    then = (
        (10, by_hand("suspend")),
        (20, rename(WEB, RENAMED)),
        (40, by_hand("suspend")),  # by its earlier name
        (60, by_hand("resume", RENAMED)),
        (100, claim_ends),
    )
    world = DoomedWorld(Tale(frozenset(), (service(WEB),), then))
    world.run()
    names = {label(each, "io.trimtab.service") for each in world.people.ours()}
    assert names == {WEB.name, RENAMED.name}


def test_wherever_a_process_dies_a_renamed_service_runs_on() -> None:
    moments = {Death(MOVED, at): moment for at, moment in enumerate(told(MOVED).moments)}
    problems = [problem for death in some(moments, DEATHS) if (problem := die(death))]
    assert problems == []
