"""Containers with this instance's label that it didn't make, and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, Lost, ReadEngine
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import OWN_CREATES_MAX, GateState
from controller.broker.guards import recovery
from controller.core.encoding.identifiers import timestamp_s
from controller.model.inventory import Inventory
from controller.model.names import ForeignContainer
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    NO_CONTENT,
    NOON,
    OPERATOR,
    RECORDED,
    Step,
    converse,
    lost,
    reply,
    request,
    state,
)
from tests.unit.broker.guards.test_recovery import MUTATIONS, opened
from tests.unit.broker.world import SLOT, WEB, inspect, inventory, item, labels

LOOK_AROUND = ReadEngine(
    "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22io.trimtab.instance%3Di1%22%5D%7D"
)
OTHER = "f0" * 32


def minted(seconds: float) -> str:
    """A UUIDv7 of so long after noon."""
    digits = f"{round((NOON + seconds) * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def stray(identifier: str = OTHER, *, intent: str, name: str = "/web.1-x") -> dict[str, Any]:
    place = {"namespace": "default", "slot": "1"}
    ours = labels("team", origin="controller", intent=intent, **place)
    return {"Id": identifier, "Names": [name], "Labels": ours}


def lost_unreadable() -> Lost:
    return Lost("the engine's answer passes 16777216 bytes", unreadable=True)


def forked(*, since: float = 0.0) -> GateState:
    """A broker that began at noon, and is in doubt."""
    knows = state(replace(inventory(), time=""))
    knows.split_brain.alone_since, knows.split_brain.in_doubt = NOON + since, True
    return knows


def test_what_carries_our_label_and_was_not_made_here_is_told_of_and_not_taken_in() -> None:
    knows = opened(MUTATIONS["create"])
    (identifier,) = knows.inventory.open
    before = knows.inventory
    copied = {"io.trimtab.instance": "i1", "io.trimtab.owner": "alice", "io.trimtab.intent": "i0"}
    told = [
        {"Id": WEB, "Names": ["/alice-web"], "Labels": copied},  # ours
        {"Id": "f0" * 32, "Names": ["/copy\n"], "Labels": copied},
        {"Id": "f1" * 32, "Labels": copied},
        {"Id": "f2" * 32, "Names": ["/x"], "Labels": {"io.trimtab.instance": "i2"}},
        {"Id": "f3" * 32, "Names": ["/y"], "Labels": {**copied, "io.trimtab.intent": identifier}},
    ]
    recovery.record_listed(knows, told)
    assert knows.split_brain.unknown == {"f0" * 32: "copy\\u000a", "f1" * 32: ""}
    assert knows.split_brain.rivals == {}, "a copy is no other broker's"
    assert knows.inventory == before


@pytest.mark.parametrize(
    ("intent", "rival"),
    [
        (minted(10), True),
        (minted(-10), False),  # of this journal, or older than it
        ("i9", False),
        ("", False),
        (minted(10).replace("-7", "-4", 1), False),
    ],
)
def test_a_later_intent_that_is_nobody_elses_is_another_brokers(
    intent: str, *, rival: bool
) -> None:
    knows = forked()
    recovery.record_listed(knows, [stray(intent=intent)])
    assert knows.split_brain.unknown == {OTHER: "web.1-x"}
    assert (OTHER in knows.split_brain.rivals) is rival
    assert not knows.split_brain.in_doubt


def test_an_unknown_container_that_runs_or_may_run_holds_its_slot_and_its_volumes() -> None:
    knows = forked()
    mounts = [
        {"Type": "volume", "Name": "data", "RW": True},
        {"Type": "volume", "Name": "read", "RW": False},
        {"Type": "bind", "Source": "/srv", "RW": True},
    ]
    rows = [
        {**stray("f0" * 32, intent=""), "State": "running", "Mounts": mounts},
        {**stray("f1" * 32, intent=""), "State": "exited", "Restarts": True},
        {**stray("f2" * 32, intent=""), "State": "exited", "Restarts": False},
        {**stray("f3" * 32, intent=""), "State": "removing"},
    ]
    recovery.record_listed(knows, rows)
    first = ForeignContainer("f0" * 32, "web.1-x", "default", "web", "1", ("data",))
    assert knows.split_brain.holders == (first, replace(first, id="f1" * 32, writes=()))


def test_a_survey_asks_whether_the_engine_may_start_what_is_down() -> None:
    knows = forked()
    row = {**stray(intent=""), "State": "exited", "Mounts": []}
    down = {"HostConfig": {"RestartPolicy": {"Name": "always"}}}
    steps = [
        (LOOK_AROUND, reply([row])),
        (ReadEngine(f"/containers/{OTHER}/json"), reply(down)),
    ]
    dialogue = recovery.survey(knows)
    converse(dialogue, steps, knows)
    assert [each.id for each in knows.split_brain.holders] == [OTHER]


def test_nothing_is_started_in_a_slot_that_an_unknown_container_has() -> None:
    knows = forked()
    knows.split_brain.in_doubt = False
    own = knows.inventory.containers[SLOT]
    holder = ForeignContainer(OTHER, "stray", own.namespace, own.service, own.slot_label)
    knows.split_brain.holders = (holder,)
    with pytest.raises(Denied) as refused:
        recovery.refuse_if_slot_held(knows, own)
    assert (refused.value.rule, refused.value.status) == ("container.foreign", 409)
    knows.split_brain.holders = (replace(holder, slot="2"),)
    recovery.refuse_if_slot_held(knows, own)


def test_a_copy_of_what_this_broker_made_is_not_another_brokers() -> None:
    knows = forked()
    knows.split_brain.add_create(minted(10))
    recovery.record_listed(knows, [stray(intent=minted(10))])
    assert knows.split_brain.rivals == {}
    copied = replace(item(SLOT, "web.1-x", "team"), intent=minted(20))
    knows.inventory = replace(knows.inventory, containers={SLOT: copied})
    recovery.record_listed(knows, [stray(intent=minted(20))])
    assert (knows.split_brain.unknown, knows.split_brain.rivals) == ({OTHER: "web.1-x"}, {})


def test_only_so_many_intents_are_remembered() -> None:
    knows = forked()
    for number in range(OWN_CREATES_MAX + 1):
        knows.split_brain.add_create(str(number))
    assert len(knows.split_brain.own_creates) == OWN_CREATES_MAX
    assert "0" not in knows.split_brain.own_creates


@pytest.mark.parametrize(
    ("known", "since"),
    [
        (Inventory(), 0.0),  # a new folder: whatever is there is another's
        (Inventory(seq=3, time="2026-01-01T12:00:00.500Z"), NOON + 0.5),
        (Inventory(seq=3), NOON),  # a snapshot from before times were saved
    ],
)
def test_a_broker_begins_in_doubt_of_all_that_is_later_than_its_journal(
    known: Inventory, since: float
) -> None:
    knows = state(known)
    recovery.begin_in_doubt(knows)
    assert (knows.split_brain.alone_since, knows.split_brain.in_doubt) == (since, True)


STOP = ("POST", f"/v1.45/containers/{SLOT}/stop?t=1")
REMOVE = ("DELETE", f"/v1.45/containers/{WEB}")


@pytest.mark.parametrize(
    ("actor", "target"), [(CONTROLLER, STOP), (ALICE, REMOVE)], ids=["controller", "client"]
)
def test_while_another_broker_is_this_instance_nothing_is_changed(
    actor: Any, target: tuple[str, str]
) -> None:
    knows = forked()
    there = reply([stray(intent=minted(10))])
    for _ in range(2):  # it is looked at each time: the other one may have been ended
        steps: list[Step] = [(LOOK_AROUND, there), ("refusal", RECORDED)]
        told = converse(handle(request(*target, actor=actor), knows), steps, knows)
        assert (told.status, told.rule) == (403, "state.forked")
        assert "made web.1-x" in told.json["message"]
    steps = [
        (LOOK_AROUND, reply([])),
        (ReadEngine(f"/containers/{WEB}/json"), reply(inspect(WEB, "alice-web", "alice"))),
        ("intent", RECORDED),
        (Forward("DELETE", f"/containers/{WEB}"), NO_CONTENT),
        ("outcome", RECORDED),
    ]
    done = converse(handle(request(*REMOVE, actor=ALICE), knows), steps, knows)
    assert done.status == 204


@pytest.mark.parametrize("found", [reply({}, 404), reply({"Config": []}), lost_unreadable()])
def test_an_unknown_container_with_too_many_labels_to_read_is_unknown_all_the_same(
    found: Any,
) -> None:
    knows = forked()
    row = {"Id": OTHER, "Names": ["/web.1-x"], "State": "running"}
    look: Step = (ReadEngine(f"/containers/{OTHER}/json"), found)
    converse(recovery.survey(knows), [(LOOK_AROUND, reply([row])), look], knows)
    assert (knows.split_brain.unknown, knows.split_brain.rivals) == ({OTHER: "web.1-x"}, {})


def test_the_place_of_a_container_with_too_many_labels_to_read_is_that_of_its_inspect() -> None:
    knows = forked()
    shown = {"Config": {"Labels": stray(intent=minted(-10))["Labels"]}}
    row = {"Id": OTHER, "Names": ["/web.1-x"], "State": "running", "Mounts": []}
    look: Step = (ReadEngine(f"/containers/{OTHER}/json"), reply(shown))
    converse(recovery.survey(knows), [(LOOK_AROUND, reply([row])), look], knows)
    assert [each.slot for each in knows.split_brain.holders] == ["1"]


def test_operators_put_it_right_and_reads_go_on() -> None:
    knows = forked()
    knows.split_brain.rivals = {OTHER: "web.1-x"}
    ours = [(ReadEngine(f"/containers/{WEB}/json"), reply(inspect(WEB, "alice-web", "alice")))]
    removal: list[Step] = [
        *ours,
        ("intent", RECORDED),
        (Forward("DELETE", f"/containers/{WEB}"), NO_CONTENT),
        ("outcome", RECORDED),
    ]
    read = request("GET", f"/v1.45/containers/{WEB}/json", actor=ALICE)
    assert converse(handle(read, knows), ours, knows).status == 200
    done = converse(handle(request(*REMOVE, actor=OPERATOR), knows), removal, knows)
    assert done.status == 204


def test_what_cannot_be_looked_at_is_not_changed_and_stays_in_doubt() -> None:
    knows = forked()
    told = converse(
        handle(request(*STOP, actor=CONTROLLER), knows), [(LOOK_AROUND, lost(sent=False))], knows
    )
    assert told.status == 502
    assert knows.split_brain.in_doubt


def test_an_id_tells_when_it_was_made() -> None:
    assert timestamp_s(minted(1.25)) == NOON + 1.25
    assert timestamp_s("id-1") is None


@pytest.mark.parametrize(
    ("actor", "target"), [(CONTROLLER, STOP), (ALICE, REMOVE)], ids=["controller", "client"]
)
def test_a_restored_folder_changes_nothing_until_an_operator_confirms_it(
    actor: Any, target: tuple[str, str]
) -> None:
    """Also if no unknown container is there: one can have come and gone."""
    knows = state(replace(inventory(), restored="2026-01-01T12:00:00.000Z"))
    told = converse(handle(request(*target, actor=actor), knows), [("refusal", RECORDED)], knows)
    assert (told.status, told.rule) == (403, "state.unconfirmed")


def test_what_was_made_between_a_backup_and_its_restore_is_another_brokers() -> None:
    """The record of the restore is later."""
    times = ("2026-01-01T13:00:00.000Z", "2026-01-01T12:00:00.000Z")
    knows = state(replace(inventory(), time=times[0], restored=times[1]))
    recovery.begin_in_doubt(knows)
    assert recovery.is_rival(knows, minted(10))
