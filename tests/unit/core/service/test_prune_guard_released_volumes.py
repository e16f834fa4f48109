"""Volumes of removed documents that said ``retain: false``: dumped, approved, and only then removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.encoding.stored_form import StoredForm
from controller.core.service.prune_guard import PruneDecision, PruneMemory, guard
from controller.model.desired.desired import Desired
from controller.model.desired.plan import Plan, RemoveVolume
from controller.model.desired.spec.mounts import VolumeSpec
from controller.model.names import Key
from controller.model.observed import Observed, ObservedVolume
from tests.worlds import HERE, container, declared, engine, perform, plan, service, volume

PRUNE_MEMORY_FORM = StoredForm(PruneMemory)

DATA = Key("Volume", "team", "data")
RELEASED = replace(volume("data", namespace="team"), spec=VolumeSpec(retain=False))
DUMPED = ObservedVolume("team.data", ours=True, origin="controller", dumped="2026-01-01T00:00:00Z")
KNOWN = PruneMemory(released=frozenset({DATA}))
WEB = service()


def look(
    desired: Desired, observed: Observed, memory: PruneMemory = KNOWN, *, approved: bool = False
) -> PruneDecision:
    return guard(desired, observed, memory, now=1000.0, approved=approved)


def there(*containers: Any, seen: ObservedVolume = DUMPED) -> Observed:
    return engine(container(), *containers, volumes=(seen,))


def removals(decision: PruneDecision, desired: Desired, observed: Observed) -> Plan:
    return plan(desired, observed, prunable=decision.prunable, blocked=decision.blocked)


def test_the_document_is_remembered_and_no_other() -> None:
    kept = volume("kept", namespace="team")
    decision = look(declared(WEB, RELEASED, kept), there(), PruneMemory())
    assert decision.memory.released == {DATA}
    assert (decision.prunable, decision.blocked) == (frozenset(), ())
    again = look(declared(WEB, replace(RELEASED, spec=VolumeSpec())), there())
    assert again.memory.released == frozenset()
    assert PRUNE_MEMORY_FORM.from_json(PRUNE_MEMORY_FORM.to_json(decision.memory)).released == {
        DATA
    }


@pytest.mark.parametrize(
    ("observed", "reason", "remedy"),
    [
        (
            there(seen=replace(DUMPED, dumped="")),
            "it was never dumped",
            "run `trimtab volume dump team.data -o FILE`",
        ),
        (
            there(container("db", writes=("team.data",))),
            "db.1-bbbbbbbb has it",
            "wait until its containers are removed",
        ),
        (
            there(),
            "its data was dumped at 2026-01-01T00:00:00Z and needs an approval to go",
            "look at `trimtab plan`, then approve it with `trimtab approve`",
        ),
    ],
)
def test_a_volume_waits_for_its_users_a_dump_and_an_approval(
    observed: Observed, reason: str, remedy: str
) -> None:
    decision = look(declared(WEB, service("db")), observed)
    ((key, code, told, how),) = [
        (b.key, b.code, b.reason, b.remedy) for b in decision.blocked if b.key == DATA
    ]
    assert (key, code) == (DATA, "PrunePending")
    assert told == f"the volume team.data would be removed with its data, but {reason}"
    assert how == f"{remedy}; to keep it, put its document back"
    assert DATA not in decision.prunable


def test_an_approved_removal_is_planned_until_the_volume_is_gone() -> None:
    desired, observed = declared(WEB), there()
    decision = look(desired, observed, approved=True)
    made = removals(decision, desired, observed)
    assert [(a.verb, str(a.object), a.target) for a in made.actions] == [
        ("remove-volume", "Volume/team/data", "team.data")
    ]
    assert isinstance(made.actions[0], RemoveVolume)
    later = look(desired, observed, decision.memory)
    assert (later.prunable, later.blocked) == (frozenset({DATA}), ())
    after, _ = perform(made, observed)
    assert after.volumes == ()
    ended = look(desired, after, later.memory)
    assert (ended.prunable, ended.memory.released) == (frozenset(), frozenset())


@pytest.mark.parametrize("seen", [replace(DUMPED, dumped=""), None])
def test_an_approval_removes_no_volume_without_a_dump_or_in_use(
    seen: ObservedVolume | None,
) -> None:
    user = [container("db", writes=("team.data",))] if seen is None else []
    observed = there(*user, seen=seen or DUMPED)
    decision = look(declared(WEB, service("db")), observed, approved=True)
    assert DATA not in decision.prunable


@pytest.mark.parametrize(
    "desired",
    [
        declared(WEB, blind_keys=frozenset({DATA})),
        declared(WEB, blind=True),
        declared(WEB, RELEASED),
        declared(WEB, volume("data", namespace="team")),
        declared(WEB, identity=replace(HERE, present=False), blind=True),
    ],
)
def test_nothing_goes_while_the_volume_is_or_may_be_declared(desired: Desired) -> None:
    decision = look(desired, there(), approved=True)
    assert DATA not in decision.prunable
    assert [b for b in decision.blocked if b.key == DATA] == []


@pytest.mark.parametrize(
    "seen",
    [
        replace(DUMPED, ours=False),
        replace(DUMPED, origin="client"),
        replace(DUMPED, belongs_to="team"),
        replace(DUMPED, name="data"),
    ],
)
def test_a_volume_of_others_under_the_name_is_left_alone(seen: ObservedVolume) -> None:
    decision = look(declared(WEB), there(seen=seen), approved=True)
    assert (decision.prunable, decision.blocked) == (frozenset(), ())


def test_a_volume_that_waits_keeps_no_network() -> None:
    desired = declared(service(network={"mode": "none"}))
    observed = engine(container(admitted={"networks": ()}), volumes=(DUMPED,))
    made = removals(look(desired, observed), desired, observed)
    assert [a.target for a in made.actions] == ["platform-network"]
