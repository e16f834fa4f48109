"""A change of the journal on one line."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest

from controller.cli.journal.table import (
    TimeFormat,
    clock_for,
    outcome_of,
    render_changes,
    verdict_of,
)
from controller.cli.output.tables import cell_width
from controller.core.records.parts import VerdictPart
from controller.core.records.query import QueryResult, RecordSubject
from controller.model.records import Entry, Record

NOW = 1_772_366_400.0  # 2026-03-01T12:00:00Z


def found(seq: int, stage: Any, time: str, **parts: Any) -> QueryResult:
    entry = Entry(f"id{parts.pop('change', seq)}", stage, **parts)
    about = RecordSubject(name="shop.postgres.1-0c3ab8df", action="container.create")
    return QueryResult(Record(seq, time, entry, "", ""), about)


def outcome(stage: Any = "outcome", action: str = "container.create", **result: Any) -> str:
    return outcome_of(
        QueryResult(
            Record(1, "", Entry("i", stage, result=result), "", ""), RecordSubject(action=action)
        )
    )


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (outcome(status=201, durationMs=11), "created in 11 ms"),
        (outcome(status=204, durationMs=10_250, action="container.stop"), "stopped in 10 s"),
        (outcome(status=304, action="container.start"), "unchanged"),
        (outcome(status=200, action="network.connect"), "connected"),
        (outcome(status=409), "failed (409)"),
        (outcome("recovered", settled="applied"), "done (found later)"),
        (outcome("refusal", status=403), "refused"),
        (outcome("intent"), "open"),
        (outcome("segment", action=""), "-"),
    ],
)
def test_a_result_is_in_words(shown: str, text: str) -> None:
    assert shown == text


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ({}, "-"),
        ({"decision": "allow"}, "-"),
        ({"decision": "mutate", "rules": ["image.pinned", "default.memory"]}, "-"),
        ({"decision": "deny", "rules": ["privileged"]}, "-"),
        ({"decision": "audit-deny", "rules": ["image"]}, "audit-deny image"),
    ],
)
def test_a_verdict_is_shown_where_it_is_more_than_permission(verdict: Any, text: str) -> None:
    assert verdict_of(VerdictPart.read(verdict)) == text


def test_the_date_stands_where_it_changes() -> None:
    clock = clock_for(NOW, utc=True, exact=False)
    assert clock == TimeFormat(UTC, "2026-03-01")
    times = ["2026-02-28T23:59:59.000Z", "2026-02-28T23:59:59.500Z", "2026-03-01T00:00:01.000Z"]
    assert clock.cells(times) == [
        "2026-02-28 23:59:59",
        "           23:59:59",
        "2026-03-01 00:00:01",
    ]
    assert clock.cells(["2026-03-01T11:00:00.000Z"]) == ["11:00:00"]
    assert TimeFormat(UTC, "", exact=True).cells(times) == times


def test_at_120_columns_a_change_is_one_line() -> None:
    actor = {"role": "controller", "uid": 990}
    verdict = {"decision": "mutate", "rules": ["image.pinned", "default.memory"]}
    claims = {"cause": "revision is 2bdaa731, want 9999e53a"}
    records = [
        found(
            41, "intent", "2026-03-01T11:00:00.000Z", actor=actor, verdict=verdict, claims=claims
        ),
        found(
            42,
            "intent",
            "2026-03-01T11:00:01.000Z",
            actor=actor,
            claims={"cause": "slot 2 is missing"},
        ),
        found(
            43,
            "outcome",
            "2026-03-01T11:00:02.000Z",
            change=41,
            result={"status": 201, "durationMs": 11},
        ),
    ]
    clock = clock_for(NOW, utc=True, exact=False)
    shown = render_changes(records, clock, limit=50, width=120).split("\n")
    assert shown == [
        "SEQ  TIME      ACTOR       ACTION  OBJECT                    RESULT            WHY",
        "41   11:00:00  controller  create  shop.postgres.1-0c3ab8df  created in 11 ms  revision is 2bdaa731, want 9999e53a",
        "42   11:00:01  controller  create  shop.postgres.1-0c3ab8df  open              slot 2 is missing",
    ]
    assert max(map(cell_width, shown)) <= 120
