from __future__ import annotations

from collections import Counter
from typing import Any, get_args

from controller.core.metrics.broker_values import engine_answer, of_record
from controller.core.records.parts import ResultPart, VerdictPart
from controller.model.records import Entry, Stage


def counted(*entries: Entry) -> Counter[tuple[str, ...]]:
    numbers: Counter[tuple[str, ...]] = Counter()
    for entry in entries:
        for name, number in of_record(entry):
            numbers[name] += number
    return numbers


def entry(stage: Stage, decision: str = "", *rules: str, **result: Any) -> Entry:
    verdict = VerdictPart(decision=decision, rules=rules).members
    return Entry("1", stage, verdict=verdict, result=ResultPart(**result).members)


def test_admissions_are_counted_by_verdict_and_by_the_rule_of_a_denial() -> None:
    assert counted(
        entry("intent", "allow"),
        entry("intent", "mutate", "image.pinned"),
        entry("intent", "audit-deny", "mount.path", "user.root"),
        entry("refusal", "deny", "mount.path"),
        entry("refusal", "deny", "mount.path"),
    ) == {
        ("trimtab_admissions_total", "allow", ""): 1,
        ("trimtab_admissions_total", "mutate", ""): 1,
        ("trimtab_admissions_total", "audit-deny", "mount.path"): 1,
        ("trimtab_admissions_total", "deny", "mount.path"): 2,
    }


def test_refusals_of_a_summary_count_each() -> None:
    summary = entry("summary", "deny", "a", "b", total=7, counts={"a": 3, "b": 4}, reads={})
    assert counted(summary) == {
        ("trimtab_admissions_total", "deny", "a"): 3,
        ("trimtab_admissions_total", "deny", "b"): 4,
    }


def test_outcomes_and_violations_are_counted() -> None:
    assert counted(
        entry("outcome", status=201),
        entry("outcome", status=500, error="no space"),
        entry("recovered", settled="applied"),
        entry("violation", "deny", "effective.user"),
    ) == {
        ("trimtab_changes_total", "done"): 1,
        ("trimtab_changes_total", "failed"): 1,
        ("trimtab_changes_total", "recovered"): 1,
        ("trimtab_violations_total", "effective.user"): 1,
    }


def test_each_stage_of_a_record_is_decided() -> None:
    for stage in get_args(Stage):
        list(of_record(entry(stage)))


def test_an_answer_of_the_engine_counts_by_its_class() -> None:
    assert engine_answer("GET", 204) == ("trimtab_engine_requests_total", "GET", "2xx")
    assert engine_answer("POST", None) == ("trimtab_engine_requests_total", "POST", "lost")
