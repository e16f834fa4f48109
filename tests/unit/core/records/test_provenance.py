"""Where each thing that holds of a container comes from, by its records."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.records.inventory_json import settings_to_json
from controller.core.records.provenance import (
    DOCUMENT_FIELDS,
    Provenance,
    provenance,
    without_replaced,
)
from controller.core.records.query import SHAPING_MAX, RecordSubject, chronicle, containers, story
from controller.model.desired.desired import TRACED
from controller.model.observed import Settings
from tests.unit.core.happened import (
    BROKER,
    ID,
    MI,
    NAME,
    OPERATOR,
    OTHER,
    SETTINGS,
    SUMMARY,
    Happened,
    uuid7,
)


def facts(told: Provenance) -> str:
    """A line a fact: its record, its rule, what holds."""
    return "".join(
        f"{fact.origin.record.seq:>2} {fact.rule or '-':<20} {fact.name}: {fact.value}\n"
        for fact in told.facts
    )


CREATED = f"""\
 1 -                    name: {NAME}
 1 -                    image: trimtab.local/web:1
 1 image.pinned         image id: sha256:{"1" * 64}
 1 -                    revision: v2:{"1f0c22aa" * 8}
 1 -                    memory: 512Mi
 1 -                    memory and swap: 512Mi
 1 -                    cpus: 0.5
 1 default.pids         processes: 256
 1 -                    restart: always
 1 -                    network: platform-network
 1 -                    answers to: web
 1 -                    port: 127.0.0.1:18080:8080/tcp
 1 -                    mount: bind /srv/a at /a, read-only
 1 -                    mount: tmpfs /scratch
 1 -                    root filesystem: read-only
 1 -                    capabilities: CHOWN
 1 hardening.privileges new privileges: never
 1 -                    environment: LOG_LEVEL, TOKEN
 1 -                    healthcheck: CMD
 1 default.logs         logs: rotate
"""


def test_what_was_created_is_its_create_s_or_the_policy_s() -> None:
    told = Happened().created().told
    assert facts(told) == CREATED
    assert (told.about.service, told.about.owner, told.slot) == ("web", "team", "1")
    assert told.state == "created"


def test_a_volume_that_the_policy_keeps_is_the_policy_s() -> None:
    volume = {"type": "volume", "source": "web.1.data-81ce9a", "target": "/data"}
    summary = {**SUMMARY, "mounts": [{**volume, "readOnly": False, "rule": "volume.slot"}]}
    happened = Happened()
    rules: dict[str, object] = {"decision": "mutate", "rules": ["volume.slot"]}
    number = happened.ask("container.create", NAME, summary, cause="slot 1", verdict=rules)
    happened.close(number, status=201, container=ID)
    (fact,) = [fact for fact in happened.told.facts if fact.name == "mount"]
    assert (fact.value, fact.rule) == ("volume web.1.data-81ce9a at /data", "volume.slot")


def test_a_fact_has_the_line_of_its_field_or_of_the_document() -> None:
    told = Happened().created().told
    lines = {fact.name: fact.line for fact in told.facts if not fact.rule}
    assert lines["memory"] == 12
    assert (lines["image"], lines["mount"], lines["capabilities"]) == (7, 9, 14)
    # What isn't written in the document, or isn't a field of it.
    assert {lines[name] for name in ("name", "revision", "restart", "answers to")} == {3}


def test_what_is_explained_by_a_line_is_a_field_whose_line_is_kept() -> None:
    assert set(DOCUMENT_FIELDS.values()) <= set(TRACED)


def test_a_later_change_takes_over_what_it_changes_and_nothing_else() -> None:
    happened = Happened().created()
    raised = settings_to_json(Settings(**{**as_kwargs(SETTINGS), "memory": 768 * MI, "pids": 64}))
    happened.change("container.update", {"settings": raised}, actor=OPERATOR)
    happened.change("network.connect", {"network": "platform-ingress"}, actor=OPERATOR)
    happened.change("network.disconnect", {"network": "platform-network"})
    happened.change("container.rename", {"name": "tmp"}, actor=OPERATOR)
    told = happened.told
    assert told.about.name == "tmp"
    changed = [line for line in facts(told).splitlines() if not line.startswith(" 1")]
    assert changed == [
        " 9 -                    name: tmp",
        " 3 -                    memory: 768Mi",
        " 3 -                    processes: 64",
        " 5 -                    network: platform-ingress",
    ]
    assert "platform-network" not in facts(told)


def as_kwargs(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__dataclass_fields__}


def test_a_change_that_did_not_take_effect_changes_nothing() -> None:
    happened = Happened().created()
    raised = settings_to_json(Settings(NAME, memory=768 * MI))
    happened.change("container.update", {"settings": raised}, status=500)
    happened.change("container.stop", status=404)
    assert facts(happened.told) == CREATED
    assert happened.told.state == "created"


@pytest.mark.parametrize(
    ("routes", "state"),
    [
        (["start"], "running"),
        (["start", "stop"], "stopped"),
        (["start", "stop", "restart"], "running"),
        (["start", "pause"], "paused"),
        (["start", "pause", "unpause"], "running"),
        (["start", "kill"], "stopped"),
        (["start", "stop", "remove"], "removed"),
    ],
)
def test_it_is_as_it_was_last_asked_to_be(routes: list[str], state: str) -> None:
    happened = Happened().created()
    for route in routes:
        happened.change(f"container.{route}", cause=route)
    told = happened.told
    assert told.state == state
    assert told.since is not None
    assert told.since.record.entry.claims["cause"] == routes[-1]


@pytest.mark.parametrize(
    ("routes", "again", "state"),
    [
        (["start"], "start", "running"),
        (["start", "stop"], "stop", "stopped"),
        (["start", "kill"], "stop", "stopped"),
        ([], "stop", "created"),
    ],
)
def test_who_asked_for_what_already_was_did_not_do_it(
    routes: list[str], again: str, state: str
) -> None:
    happened = Happened().created()
    for route in routes:
        happened.change(f"container.{route}")
    before = happened.told
    happened.change(f"container.{again}", actor=OPERATOR, status=304)
    after = happened.told
    assert (after.state, after.since, after.note) == (state, before.since, "")


@pytest.mark.parametrize(
    ("routes", "asked", "state"), [(["start"], "stop", "stopped"), ([], "start", "running")]
)
def test_what_came_to_be_unrecorded_is_nobody_s(routes: list[str], asked: str, state: str) -> None:
    happened = Happened().created()
    for route in routes:
        happened.change(f"container.{route}")
    number = happened.ask(f"container.{asked}", ID, actor=OPERATOR)
    happened.close(number, status=304)
    told = happened.told
    seq = len(happened.records) - 1
    assert (told.state, told.since) == (state, None)
    assert told.note == f"it already was when record {seq} asked for it"


def test_a_signal_that_ends_nothing_is_noted() -> None:
    happened = Happened().created()
    happened.change("container.start")
    happened.change("container.kill", {"signal": "SIGHUP"})
    assert (happened.told.state, happened.told.note) == (
        "running",
        "it was sent SIGHUP by record 5",
    )


def test_what_is_under_way_is_told_as_such_and_what_nobody_saw_as_unknown() -> None:
    happened = Happened().created()
    happened.change("container.start")
    stop = happened.ask("container.stop", ID)
    told = happened.told
    assert told.pending is not None
    assert (told.state, told.pending.about.action) == ("running", "container.stop")
    happened.close(stop, "recovered", settled="unknown")
    assert (happened.told.state, happened.told.pending) == ("unknown", None)


def test_one_that_went_past_the_broker_is_gone() -> None:
    happened = Happened().created()
    happened.add("read", 99, actor=BROKER, request={"route": "container.gone", "object": ID})
    assert happened.told.state == "gone"


@pytest.mark.parametrize(
    ("told", "state", "note"),
    [
        ({"effective": "verified"}, "running", "it was adopted then, and ran already"),
        ({}, "stopped", "it was adopted then, and didn't run"),
        ({"started": False}, "created", "it was adopted then"),
    ],
)
def test_one_that_was_adopted_is_its_adoption_s(
    told: dict[str, Any], state: str, note: str
) -> None:
    happened = Happened()
    happened.adopt(**told)
    happened.adopt(thing=OTHER, kind="network")  # of the same name
    assert [each.id for each in containers(happened.find, NAME)] == [ID]
    found = happened.told
    assert [line[24:] for line in facts(found).splitlines()] == [
        line[24:]
        for line in CREATED.splitlines()
        if "privileges" not in line and "logs" not in line
    ]
    assert {fact.origin.record.seq for fact in found.facts} == {1}
    assert (found.about.service, found.about.owner, found.slot) == ("web", "team", "1")
    assert found.since is not None
    assert found.since.record.entry.actor == OPERATOR
    assert (found.state, found.note) == (state, note)


def test_after_an_adoption_it_is_what_later_records_make_it() -> None:
    happened = Happened()
    happened.adopt(effective="verified")
    happened.change("network.disconnect", {"network": "platform-network"})
    happened.change("container.stop")
    told = happened.told
    assert "platform-network" not in facts(told)
    assert (told.state, told.note) == ("stopped", "")
    # What a create said that an older journal had is the past.
    happened = Happened().created()
    happened.adopt(settings=settings_to_json(Settings(NAME, memory=768 * MI)), effective="verified")
    assert {fact.origin.record.seq for fact in happened.told.facts} == {3}


def test_recovery_s_word_counts_as_much() -> None:
    happened = Happened()
    number = happened.ask("container.create", NAME, SUMMARY, cause="slot 1 is empty")
    happened.close(number, "recovered", settled="applied", container=ID)
    assert happened.told.state == "created"


def test_of_a_container_whose_create_is_not_kept_the_rest_is_told() -> None:
    happened = Happened()
    happened.change("container.start", {"name": NAME, "service": "web"})
    told = happened.told
    assert (told.about.name, told.facts, told.state) == (NAME, (), "running")


def test_nothing_is_told_of_nothing() -> None:
    assert provenance(()) is None


def test_a_container_whose_name_a_later_one_has_is_gone() -> None:
    def named(name: str, identifier: str, state: str = "running") -> Provenance:
        return Provenance(RecordSubject(id=identifier, name=name), state=state)

    old, other = named("web.1", "a" * 64), named("web.2", "b" * 64)
    new, unsure = named("web.1", "c" * 64), named("web.2", "d" * 64, "unknown")
    assert without_replaced([old, other, new]) == [other, new]
    assert other in without_replaced([old, other, unsure])


def test_a_chronicle_is_bounded_and_keeps_the_create() -> None:
    happened = Happened().created()
    for _ in range(25):
        happened.change("container.start")
    found = chronicle(happened.find, ID)
    assert [each.record.seq for each in found] == [1, 2, *range(33, 53)]


def test_of_more_changes_than_are_told_it_is_said_since_which_they_are() -> None:
    happened = Happened().created()
    for _ in range(SHAPING_MAX // 2):
        happened.change("network.connect", {"network": "platform-ingress"})
    assert happened.told.shown_since == 0
    happened.change("container.rename", {"name": NAME})
    assert happened.told.shown_since == 4


def test_a_container_is_meant_by_its_name_or_the_start_of_its_id_and_the_last_one_is_told_last() -> (
    None
):
    happened = Happened().created()
    happened.change("container.remove")
    number = happened.ask("container.create", NAME, SUMMARY)
    happened.close(number, status=201, container=OTHER)
    assert [each.id for each in containers(happened.find, NAME)] == [ID, OTHER]
    assert [each.id for each in containers(happened.find, "bbbb")] == [OTHER]
    assert containers(happened.find, "nothing") == []
    happened = Happened()
    happened.change("container.start", {"name": NAME})
    assert [each.id for each in containers(happened.find, NAME)] == [ID]


def renamed(
    happened: Happened, thing: str, name: str, *, status: int = 204, kept: str = ""
) -> Happened:
    """A rename; with *kept* of a container whose create isn't, and that is called that."""
    told: dict[str, object] = {"name": name}
    if kept:
        happened.close(happened.ask("container.start", thing, {"name": kept}))
    happened.close(happened.ask("container.rename", thing, told), status=status)
    return happened


def created_as(happened: Happened, name: str, thing: str) -> Happened:
    happened.close(
        happened.ask("container.create", name, {**SUMMARY, "name": name}),
        status=201,
        container=thing,
    )
    return happened


def test_a_name_means_the_container_that_got_it_last() -> None:
    happened = created_as(Happened(), "web", ID)
    happened.change("container.remove")
    renamed(created_as(happened, "tmp", OTHER), OTHER, "web")
    assert [(each.id, each.name) for each in containers(happened.find, "web")] == [
        (ID, "web"),
        (OTHER, "web"),
    ]
    assert [each.name for each in containers(happened.find, OTHER)] == ["web"]
    # One that has it no longer isn't meant while another has it.
    happened = created_as(Happened(), "web", ID)
    renamed(happened, ID, "old")
    assert [(each.id, each.name) for each in containers(happened.find, "web")] == [(ID, "old")]
    created_as(happened, "web", OTHER)
    assert [each.id for each in containers(happened.find, "web")] == [OTHER]


def test_a_name_that_was_refused_is_nobody_s() -> None:
    happened = created_as(created_as(Happened(), "web", ID), "tmp", OTHER)
    renamed(happened, OTHER, "web", status=409)
    renamed(happened, ID, "evil", status=409)
    assert [(each.id, each.name) for each in containers(happened.find, "web")] == [(ID, "web")]
    assert containers(happened.find, "evil") == []
    assert happened.told.about.name == "web"
    # Nor where the creates aren't kept.
    happened = renamed(Happened(), ID, "evil", status=409, kept="web")
    assert [(each.id, each.name) for each in containers(happened.find, "web")] == [(ID, "web")]
    assert containers(happened.find, "evil") == []
    assert happened.told.about.name == "web"


def test_what_was_under_way_when_it_was_renamed_names_it_as_it_is_called() -> None:
    happened = Happened().created()
    stop = happened.ask("container.stop", ID)
    renamed(happened, ID, "web")
    happened.close(stop)
    assert happened.told.about.name == "web"


def test_a_story_has_its_neighbours() -> None:
    happened = Happened().created()
    for cause in ("one", "two", "three", "four", "five"):
        happened.change("container.start", cause=cause)
    told = story(happened.find, "7")
    assert told is not None
    assert [each.record.seq for each in told.found] == [7, 8]
    assert [each.record.seq for each in told.before] == [3, 5]
    assert [each.record.seq for each in told.after] == [9, 11]
    assert story(happened.find, "99") is None
    assert story(happened.find, uuid7(99)) is None
