"""``events``: changes of the journal with their outcome, and conditions of the view."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.cli.journal.table import pairs_of
from controller.cli.main import main
from controller.cli.status.events import (
    EventFeed,
    EventFilter,
    HostEvent,
    event_of_change,
    events_of_conditions,
    folded,
)
from controller.core.records.query import Filter, Page, QueryResult, Question
from controller.settings import StateFolder
from tests.unit.cli.journal.test_explain_queries import made, the_story
from tests.unit.cli.reports import condition, resource
from tests.unit.cli.status.test_status import answering
from tests.unit.core.happened import NAME, OPERATOR, SUMMARY, Happened, search

ALL = EventFilter((), None, "", "")


class Journal:
    """The records of a story, as a command queries them."""

    def __init__(self, happened: Happened) -> None:
        self.happened = happened

    def find(self, wanted: Filter, *, limit: int = 0, last: bool = True) -> Iterator[QueryResult]:
        assert not (limit and last), "events reads all records in order"
        yield from search(self.happened.records, wanted)

    def ask(self, question: Question) -> Page:
        raise AssertionError(question)


def texts(happened: Happened) -> list[tuple[str, str, str, str]]:
    pairs = pairs_of(search(happened.records, Filter()))
    events = [event_of_change(*pair) for pair in pairs]
    return [(each.type, each.object, each.reason, each.message) for each in events]


def test_a_change_is_named_with_its_outcome_its_actor_and_its_cause() -> None:
    happened = Happened().created()
    happened.change("container.stop", {"name": NAME}, actor=OPERATOR)
    started = happened.ask("container.start", NAME, {"name": NAME, "labels": SUMMARY["labels"]})
    happened.close(started, status=500, error="no space left")
    happened.ask("container.remove", NAME, {"name": NAME, "labels": SUMMARY["labels"]})
    assert texts(happened) == [
        ("Normal", "web", "created", f"container.create {NAME} by controller: slot 1 is empty"),
        ("Normal", "web", "stopped", f"container.stop {NAME} by root"),
        ("Warning", "web", "failed (500)", f"container.start {NAME} by controller: no space left"),
        ("Normal", "web", "open", f"container.remove {NAME} by controller"),
    ]


def test_a_condition_is_an_event_at_the_time_it_began() -> None:
    row = resource(
        "api",
        condition("Ready", "0 of 1 ready", reason="NotReady", status="False"),
        condition("CrashLoop", "exited with 1, next try at 2026-03-01T12:00:40Z\nFATAL"),
        condition("Progressing", "", reason="Waiting"),
        namespace="shop",
    )
    first, second = events_of_conditions(row)
    assert first == HostEvent(
        "2026-03-01T11:00:00Z", "Warning", "CrashLoop", "shop", "api", "exited with 1"
    )
    assert (second.type, second.reason, second.message) == ("Normal", "Progressing", "Waiting")
    assert {each.at for each in events_of_conditions(row, "later")} == {"later"}


def test_equal_events_are_one_row_at_the_last_time() -> None:
    pull = HostEvent("1", "Warning", "failed (500)", "", "", "image.pull a:1", record=1)
    other = replace(pull, at="2", message="image.pull b:1", record=3)
    rows = folded([pull, other, replace(pull, at="3", record=5)])
    assert [(each.at, each.message) for each in rows] == [
        ("2", "image.pull b:1"),
        ("3", "image.pull a:1 (2 times since 1)"),
    ]


@pytest.mark.parametrize(
    ("names", "namespace", "shown"),
    [
        ((), None, True),
        (("api",), None, True),
        (("shop/api",), None, True),
        (("Service/shop/api", "x"), None, True),
        (("default/api",), None, False),
        (("web",), None, False),
        ((), "shop", True),
        ((), "default", False),
    ],
)
def test_events_of_names_and_namespaces(
    names: tuple[str, ...], namespace: str | None, *, shown: bool
) -> None:
    event = HostEvent("2026-03-01T11:00:00Z", "Normal", "created", "shop", "api", "")
    assert EventFilter(names, namespace, "", "").has(event) is shown
    early = EventFilter(names, namespace, "2026-03-01T11:00:01.000Z", "")
    late = EventFilter(names, namespace, "", "2026-03-01T10:00:00.000Z")
    assert not early.has(event) and not late.has(event)


def test_the_pull_of_a_services_image_and_its_network_are_events_of_the_service(
    tmp_path: Path,
) -> None:
    happened = Happened().created()
    for image in ("docker.io/library/nginx:1", "docker.io/library/nginx:2", "docker.io/other:1"):
        happened.close(happened.ask("image.pull", image, {"reference": image}))
    for network in ("back", "other"):
        happened.close(happened.ask("network.create", network, {"name": network}))
    slot = {"addresses": [{"network": "back", "address": "10.0.0.2"}]}
    old = [{"image": "nginx:1"}]
    web = resource("web", image="nginx:2", slots=[slot], revisions=old)
    state = StateFolder(tmp_path, tmp_path)
    chosen: tuple[tuple[tuple[str, ...], str | None], ...]
    chosen = ((("web",), None), (("web", "x"), None), ((), "default"))
    feeds = [EventFeed(state, EventFilter(names, space, "", "")) for names, space in chosen]
    with answering(state, *(view("1", web) for _ in feeds)):
        for feed in feeds:
            feed.conditions()
    for feed in feeds:
        told = [each.message.split()[:2] for each in feed.changes(Journal(happened), final=True)]
        assert told == [
            ["container.create", NAME],
            ["image.pull", "docker.io/library/nginx:1"],
            ["image.pull", "docker.io/library/nginx:2"],
            ["network.create", "back"],
        ]


def test_a_change_is_shown_once_when_its_outcome_is_known(tmp_path: Path) -> None:
    happened = Happened().created()
    feed = EventFeed(StateFolder(tmp_path, tmp_path), ALL)
    journal = Journal(happened)
    assert [each.reason for each in feed.changes(journal, final=False)] == ["created"]
    intent = len(happened.records) + 1
    stop = happened.ask("container.stop", NAME, {"name": NAME}, actor=OPERATOR)
    assert feed.changes(journal, final=False) == []
    happened.ask("container.start", NAME, {"name": NAME})
    happened.close(stop)
    (stopped,) = feed.changes(journal, final=False)
    assert (stopped.reason, stopped.record) == ("stopped", intent)
    assert [each.reason for each in feed.changes(journal, final=True)] == ["open"]


def view(version: str, *rows: dict[str, Any], gone: tuple[str, ...] = ()) -> dict[str, Any]:
    at = f"2026-03-01T12:00:0{version}Z"
    return {"version": version, "at": at, "resources": list(rows), "gone": list(gone)}


def test_only_new_conditions_are_events(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, tmp_path)
    well = resource("web")
    ill = resource("web", condition("Ready", "1 of 1 ready"), condition("Degraded", "0 of 1"))
    views = (view("1", well), view("2"), view("3", ill), view("4", gone=("Service/default/web",)))
    feed = EventFeed(state, ALL)
    with answering(state, *views):
        told = [[(each.at[-3:], each.reason) for each in feed.conditions()] for _ in views]
    assert told == [[("00Z", "Ready")], [], [("03Z", "Degraded")], [("04Z", "gone")]]
    assert feed.have == "4"


def test_without_a_controller_the_journals_events_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = made(tmp_path / "state", the_story())
    range_ = ("--since", "2026-01-01T12:00:00Z", "--until", "2026-01-01T12:00:06Z")

    def shown(*words: str) -> tuple[str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["events", *range_, *words, "--state", str(state)])
        assert ended.value.code == 0
        return capsys.readouterr()

    out, err = shown("web")
    rows = [re.split(r" {3,}", line) for line in out.split("\n")[:-1]]
    assert [row[2:4] for row in rows] == [
        ["OBJECT", "REASON"],
        ["web", "created"],
        ["web", "started"],
        ["web", "updated"],
    ]
    assert err.startswith("warning: no conditions: ")
    lines = [json.loads(line) for line in shown("--json", "-n", "default")[0].splitlines()]
    assert [each["reason"] for each in lines[:3]] == ["created", "started", "updated"]
    assert lines[0].keys() == {
        *("at", "type", "reason", "namespace", "name", "message", "record"),
    }
    assert shown("nothing")[0] == "No events since 2026-01-01T12:00:00.000Z.\n"
