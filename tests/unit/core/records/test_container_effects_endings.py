"""Who ended a container's last run, or removed it, as far as the journal shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from controller.core.encoding.json_values import canonical
from controller.core.engine_api.translate import is_of_last_run
from controller.core.records import container_effects
from controller.core.records.container_effects import describe_ending
from controller.core.records.inventory import fold
from controller.core.records.inventory_json import from_json, to_json
from controller.model.inventory import Inventory
from controller.model.observed import Ending, Observed
from controller.model.records import Entry, Record
from tests.unit.core.records.test_inventory import FULL, MADE, TIME, change, entry, folded
from tests.worlds import container


def end(
    route: str,
    *,
    role: str = "operator",
    status: int = 204,
    onto: Inventory = MADE,
    **summary: object,
) -> Inventory:
    return folded(*change(route, FULL, summary, {"status": status}, role=role), onto=onto)


def told(inventory: Inventory) -> str:
    ending = inventory.endings.get(FULL)
    return "" if ending is None else describe_ending(ending)


@pytest.mark.parametrize(
    ("route", "role", "words"),
    [
        ("container.stop", "operator", "was stopped by uid:-1 through the gate"),
        ("container.kill", "client", "was killed by uid:-1 through the gate"),
        ("container.remove", "operator", "was removed by uid:-1 through the gate"),
        ("container.remove", "broker", "was removed by the broker"),
        ("container.stop", "controller", "was stopped by trimtab"),
        ("container.pause", "operator", ""),
        ("container.restart", "operator", ""),
    ],
)
def test_what_ends_a_run_is_known_with_who_asked_for_it(route: str, role: str, words: str) -> None:
    assert told(end(route, role=role)) == words


@pytest.mark.parametrize(
    ("signal", "words"),
    [("SIGHUP", ""), ("15", "was killed by"), ("SIGTERM", "was killed by"), ("usr1", "")],
)
def test_a_signal_that_asks_no_program_to_end_ends_none(signal: str, words: str) -> None:
    assert told(end("container.kill", signal=signal)).startswith(words)
    assert bool(told(end("container.kill", signal=signal))) is bool(words)


def test_what_failed_or_was_down_already_ended_nothing_and_a_start_forgets() -> None:
    assert told(end("container.stop", status=500)) == ""
    assert told(end("container.stop", status=304)) == ""
    assert told(end("container.remove", status=404)) == "was removed by uid:-1 through the gate"
    stopped = end("container.stop")
    assert told(end("container.start", status=304, onto=stopped)) != ""
    assert told(end("container.start", onto=stopped)) == ""


def test_a_violation_stays_the_ending_though_the_broker_kills_for_it() -> None:
    request: dict[str, object] = {"route": "container.start", "object": FULL, "summary": {}}
    breach = Entry(
        "v1",
        "violation",
        request=request,
        verdict={"rules": ["effective.mount"]},
        result={"found": ["tmpfs / is mounted at /x", "which was not admitted"]},
    )
    known = folded(breach, onto=MADE)
    known = end("container.kill", role="broker", onto=known)
    reason = "effective.mount: tmpfs / is mounted at /x; which was not admitted"
    assert told(known) == f"was ended by the broker: {reason}"
    assert from_json(json.loads(canonical(to_json(known)))) == known


def test_the_oldest_endings_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_effects, "ENDINGS_MAX", 2)
    kept: Mapping[str, Ending] = {}
    for name in ("a", "b", "a", "c"):
        kept = container_effects.add_ending(
            kept, Ending(name, "container.stop", "operator", 0, TIME)
        )
    assert [*kept] == ["a", "c"]


@pytest.mark.parametrize(
    ("finished_at", "same"),
    [
        ("2026-01-01T11:59:00.5Z", True),
        ("2026-01-01T12:00:01Z", True),
        ("2026-01-01T12:00:03Z", False),
        ("", False),
    ],
)
def test_a_later_exit_is_another_run_than_the_one_that_was_ended(
    finished_at: str, same: bool
) -> None:
    assert is_of_last_run(Ending("c", "container.stop", "operator", 0, TIME), finished_at) is same


@pytest.mark.parametrize(
    ("action", "signal", "asked"),
    [
        ("kill", "15", True),
        ("kill", "9", True),
        ("kill", "1", False),
        ("kill", "", False),
        ("stop", "", True),
        ("die", "", False),
        ("destroy", "", False),
    ],
)
def test_an_event_of_a_stop_shows_that_somebody_asked_for_it(
    action: str, signal: str, asked: bool
) -> None:
    assert container_effects.is_asked(action, signal) is asked


#: 12:00:10, as the engine's events tell it.
ASKED = 1_767_268_810_000_000_000
RAN: dict[str, Any] = {
    "state": "exited",
    "started_at": "2026-01-01T12:00:00Z",
    "finished_at": "2026-01-01T12:00:11.5Z",
}


@pytest.mark.parametrize(
    ("fields", "by_gate", "asked"),
    [
        ({}, "", True),
        ({"stop_grace_s": 1}, "", True),
        # The event of a stop follows the end.
        ({"finished_at": "2026-01-01T12:00:08.5Z"}, "", True),
        ({"finished_at": "2026-01-01T12:00:07Z"}, "", False),
        # It ignored the signal, and ended for another reason.
        ({"finished_at": "2026-01-01T12:00:30Z"}, "", False),
        ({"finished_at": "2026-01-01T12:00:30Z", "stop_grace_s": 30}, "", True),
        ({"oom_killed": True}, "", False),
        # It was started again since, and ended by itself.
        ({"started_at": "2026-01-01T12:00:10.5Z"}, "", False),
        ({"state": "running"}, "", False),
        ({"started_at": ""}, "", False),
        # The gate sent the signal, and the program took its time.
        ({}, "2026-01-01T12:00:10.1Z", False),
        ({}, "2026-01-01T11:00:00Z", True),
    ],
)
def test_an_end_soon_after_it_was_asked_for_past_the_gate_is_a_stop_from_outside(
    fields: dict[str, Any], by_gate: str, asked: bool
) -> None:
    down, other = container(**RAN | fields), container("web.2-bbbbbbbb", **RAN)
    recorded = {down.id: Ending(down.id, "container.kill", "client", 1000, by_gate)}
    seen = Observed("i1", containers=(down, other), endings=recorded if by_gate else {})
    found, left = container_effects.with_asked(seen, {down.id: ASKED, "gone": ASKED}).containers
    outside = Ending(down.id, "container.stop", "outside", -1, down.finished_at)
    assert found == (replace(down, ending=outside) if asked else down)
    assert left == other


def test_who_asked_at_the_gate_is_known_better_than_by_events() -> None:
    ending = Ending("c", "container.stop", "operator", 0, "2026-01-01T12:00:12Z")
    seen = Observed("i1", containers=(container(**RAN, ending=ending),))
    assert container_effects.with_asked(seen, {seen.containers[0].id: ASKED}) is seen


def test_the_last_time_that_all_was_taken_down_is_known() -> None:
    down = entry("d1", "operator", {"route": "own.records", "summary": {"act": "down"}})
    assert fold(MADE, Record(MADE.seq + 1, TIME, down, "", "")).taken_down == "d1"
