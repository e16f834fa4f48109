"""Signed admission in worlds of their own: no death brings a superseded commit back.

Each bug that is planted here accepts one. Some do so without a death; the others wait for theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from controller.broker.handlers import proof_uploads
from controller.core.records import inventory_json, signed_revisions
from controller.model.inventory import AcceptedCommit
from controller.model.names import service_key
from controller.model.records import Reply, Request
from tests.sim.broker import BrokerDied
from tests.sim.controller import ControllerDied
from tests.sim.doomed import Moment, Who
from tests.sim.faults import Action
from tests.sim.parallel import mapped
from tests.sim.planted import Plant, always
from tests.sim.signed import SUPERSEDED, SignedWorld, usurp
from tests.sim.sourced import NAME
from tests.sim.stories import (
    IMAGES,
    LAB,
    WEB,
    Tale,
    by_hand,
    edit,
    meddle,
    rename,
    service,
)
from tests.sim.violation import Violation
from tests.sim.world import World

#: Deaths of an ordinary run besides those around a proof; ``make sim KIND=sweep`` has all deaths.
OTHERS = 6
CHUNK = 8
ABOUT_MOVES = ("service.moved", str(Action.MOVE))
ABOUT_PROOFS = ("source.accepted", "VerifyProof", str(Action.PROVE))


def somebody_uploads(world: World) -> str:
    assert isinstance(world, SignedWorld)
    return usurp(world)


def save(world: World) -> str:
    """The broker writes its snapshot."""
    if world.broker.state is not None:
        world.broker.save()
    return "the snapshot is written"


ADVANCES = Tale(
    frozenset({Action.PROVE, Action.CREATE, Action.START, Action.REMOVE}),
    (service(LAB, "job:1"), service(WEB)),
    (
        (5, edit(LAB, image=f"{IMAGES}/web:2")),
        (6, somebody_uploads),
        (12, edit(LAB, env={"LEVEL": "debug"})),
        (12.5, edit(LAB, env={"LEVEL": "trace"})),
        (25, save),
        (30, edit(LAB, image=f"{IMAGES}/job:1")),
        (32, somebody_uploads),
    ),
)


#: A service gets another name.
SITE = service_key("lab", "site")
MOVES = Tale(
    frozenset({Action.PROVE, Action.MOVE, Action.CREATE, Action.START, Action.REMOVE}),
    (service(LAB, "job:1"),),
    (
        (10, rename(LAB, SITE)),
        (20, edit(SITE, env={"LEVEL": "debug"})),
        (30, by_hand("rollback", SITE)),
        (40, by_hand("resume", SITE)),
    ),
)

STORIES = {"advances": ADVANCES, "moves": MOVES}


@cache
def told(story: str = "advances") -> SignedWorld:
    """Tell a story to its end, in which nobody dies."""
    world = SignedWorld(STORIES[story])
    world.run()
    return world


def die(at: int, story: str = "advances") -> str:
    """Tell a story with a death in it. Return what went wrong, '' if nothing did."""
    world = SignedWorld(STORIES[story], at)
    try:
        world.run()
    except Violation as violation:
        if violation.invariant == SUPERSEDED:
            return f"{at} ({world.moments[at]}): {violation}"
        raise
    except (BrokerDied, ControllerDied) as error:
        return f"{at}: {type(error).__name__}"
    return "" if len(world.moments) > at else f"{at}: its moment didn't come again"


def deaths(config: pytest.Config) -> list[int]:
    """Return the moments of a run: the first of some kinds, those about proofs before others; or all."""
    if config.getoption("moments") == 0:
        return list(range(len(told().moments)))
    kinds: dict[Moment, int] = {}
    for at, moment in enumerate(told().moments):
        kinds.setdefault(moment, at)
    about_proofs = [at for kind, at in kinds.items() if kind.what.endswith(ABOUT_PROOFS)]
    others = [at for at in kinds.values() if at not in about_proofs]
    return sorted([*about_proofs, *others[:: max(1, len(others) // OTHERS)]])


def test_the_story_accepts_each_commit_and_refuses_what_is_superseded() -> None:
    world = told()
    assert world.did >= ADVANCES.does
    assert world.broker.state is not None
    assert world.broker.state.inventory.accepted[NAME].commit == world.files.commits[-1]
    assert len(world.files.commits) >= 5
    assert world.refused >= 5


def forget_proofs(world: World) -> str:
    """The policy is reloaded, with the same text: the broker forgets its renderings."""
    assert world.broker.state is not None
    world.broker.state.proofs.forget()
    return "the proofs are forgotten"


class _TimedWorld(SignedWorld):
    """Keeps when proofs were accepted."""

    def __init__(self, tale: Tale) -> None:
        self.accepted_at: list[float] = []
        super().__init__(tale)

    def act(self, action: Action, request: Request) -> Reply:
        reply = super().act(action, request)
        if action is Action.PROVE and reply.status == 200:
            self.accepted_at.append(self.clock.monotonic())
        return reply


def test_a_missing_proof_is_uploaded_as_soon_as_a_change_needs_it() -> None:
    """And not only with the next observation of everything: a failed container waits that long."""
    world = _TimedWorld(
        Tale(frozenset(), (service(LAB, "job:1"),), ((40, forget_proofs), (41, meddle("rm"))))
    )
    began = world.clock.monotonic()
    world.run()
    first, again = (each - began for each in world.accepted_at[:2])
    assert first < 40
    assert 41 <= again < 60


@pytest.mark.timeout(1800)
def test_no_death_of_the_crash_sweep_brings_a_superseded_commit_back(
    pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    swept = deaths(pytestconfig)
    problems = [problem for problem in mapped(die, swept, chunk=CHUNK) if problem]
    told_of = f"{len(swept)} deaths of {len(told().moments)}"
    record_property("crash sweep of signed commits", [told_of])
    assert problems == []


def test_a_moved_service_goes_on_with_its_revisions() -> None:
    """The controller's own acts: no proof refuses one, and the world ends as the commit declares."""
    world = told("moves")
    assert world.did >= MOVES.does
    assert world.unproven == []
    assert world.broker.state is not None
    signed = world.broker.state.inventory.signed
    assert [key for key in signed if key.startswith("Service/")] == ["Service/lab/site"]


@pytest.mark.timeout(1800)
def test_no_death_around_a_move_loses_the_revisions(pytestconfig: pytest.Config) -> None:
    """An ordinary run has the first death of each kind; ``make sim KIND=sweep`` has all."""
    kinds: dict[Moment, list[int]] = {}
    for at, moment in enumerate(told("moves").moments):
        if moment.what.endswith(ABOUT_MOVES):
            kinds.setdefault(moment, []).append(at)
    most = None if pytestconfig.getoption("moments") == 0 else 1
    swept = [at for found in kinds.values() for at in found[:most]]
    assert swept
    assert [die(at, "moves") for at in swept] == [""] * len(swept)


def _without_accepted(original: Callable[..., dict[str, object]]) -> Callable[..., object]:
    return lambda inventory: {**original(inventory), "accepted": []}


class _InMemoryAlone:
    """A wrong record of an accepted commit: the broker knows it, and the journal doesn't."""

    def __init__(self) -> None:
        self._state: Any = None

    def anchor(self, original: Any) -> Any:
        def wrong(rule: Any, state: Any) -> Any:
            self._state = state
            return original(rule, state)

        return wrong

    def record(self, _original: Any) -> Any:
        def wrong(_call: Any, rule: Any, proven: Any) -> Generator[Any, Any, None]:
            yield from ()
            known = self._state.inventory
            accepted = AcceptedCommit(
                rule.source, proven.commit, rule.since, proven.signer, proven.key, "", ""
            )
            self._state.inventory = replace(
                known, accepted={**known.accepted, rule.source: accepted}
            )

        return wrong


_MEMORY = _InMemoryAlone()
PLANTED = (
    Plant(
        SUPERSEDED,
        "accepted-in-memory",
        "an accepted commit isn't in the journal before its use",
        ((proof_uploads, "_anchor", _MEMORY.anchor), (proof_uploads, "_record", _MEMORY.record)),
    ),
    Plant(
        SUPERSEDED,
        "accepted-not-saved",
        "the broker's snapshot has no accepted commits",
        ((inventory_json, "to_json", _without_accepted),),
    ),
)
AT_ONCE = (
    Plant(
        SUPERSEDED,
        "accepted-not-folded",
        "the inventory ignores the records of accepted commits",
        ((signed_revisions, "accept_commit", always(lambda inventory, _record: inventory)),),
    ),
    Plant(
        SUPERSEDED,
        "anchored-at-since",
        "each commit that descends from the policy's first commit is accepted",
        ((proof_uploads, "_anchor", always(lambda rule, _state: rule.since)),),
    ),
)


@pytest.mark.parametrize("plant", AT_ONCE, ids=lambda plant: plant.patch)
def test_a_planted_bug_is_found_without_a_death(plant: Plant) -> None:
    with plant.growing(), pytest.raises(Violation, match=f"invariant {SUPERSEDED}:"):
        SignedWorld(ADVANCES).run()


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.patch)
def test_a_planted_bug_is_found_by_a_death_alone(plant: Plant) -> None:
    """A death before the snapshot, and one after, lose what is in memory or isn't in the snapshot."""
    brokers = [at for at, each in enumerate(told().moments) if each.who is Who.BROKER]
    with plant.growing():
        SignedWorld(ADVANCES).run()
        # The first three find both bugs; the others are for another order of commands.
        late = [brokers[-1], brokers[len(brokers) // 2], brokers[-22], *brokers[::-7]]
        assert any("superseded" in die(at) or "accepted after" in die(at) for at in late)
