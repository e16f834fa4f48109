"""The word and the message that stand for a resource's conditions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from controller.cli.status.table import (
    COLOURS,
    GRAVE,
    conditions_of,
    is_settled,
    message_of,
    messages_of,
    word_of,
)


def condition(
    kind: str, message: str = "", *, reason: str = "", status: str = "True"
) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def resource(*conditions: dict[str, str], **members: Any) -> dict[str, Any]:
    return {"conditions": list(conditions), **members}


@pytest.mark.parametrize("kind", ["Contended", "Paused", "RolledBack", "CrashLoop"])
def test_a_condition_to_know_about_is_shown_also_where_all_is_ready(kind: str) -> None:
    assert word_of(resource(condition("Ready"), condition(kind))) == kind
    assert word_of(resource(condition("Ready"), condition(kind, status="False"))) == "Ready"


def test_of_several_conditions_the_gravest_is_the_word() -> None:
    failed = [condition(kind) for kind in ("Degraded", "Paused", "Stalled", "CrashLoop")]
    assert word_of(resource(*failed)) == "CrashLoop"
    assert word_of(resource(*failed[:3])) == "Stalled"
    assert word_of(resource(*failed, condition("PolicyViolation"))) == "PolicyViolation"
    assert word_of(resource(condition("Ready", status="False"))) == "NotReady"
    assert word_of(resource()) == "-"


def test_a_task_that_has_ended_is_completed() -> None:
    ended, running = {"state": "exited"}, {"state": "running"}
    assert word_of(resource(condition("Ready"), slots=[ended])) == "Completed"
    assert word_of(resource(condition("Ready"), slots=[ended, running])) == "Ready"


def test_a_ready_service_with_adopted_containers_says_so() -> None:
    adopted = condition("AdoptedAsFound", "slot 1: old-web lacks dropped capabilities")
    found = resource(condition("Ready"), adopted)
    assert word_of(found) == "AdoptedAsFound"
    assert is_settled(found)
    assert message_of(found) == "slot 1: old-web lacks dropped capabilities"
    assert word_of(resource(condition("Ready", status="False"), adopted)) == "NotReady"
    assert word_of(resource(condition("Ready"), adopted, condition("Contended"))) == "Contended"


def test_a_message_of_two_conditions_is_shown_once() -> None:
    stalled = condition("Stalled", "it died (resume it)", reason="rollout.failed")
    degraded = condition("Degraded", "0 of 1 running; web.1 exited with 1", reason="TooFew")
    assert messages_of([stalled, condition("Paused", "it died"), degraded]) == (
        "it died (resume it); 0 of 1 running; web.1 exited with 1"
    )
    before = condition("Stalled", "would be removed, but 4 of 7 go", reason="PrunePending")
    now = condition("PrunePending", "would be removed, but 5 of 9 go (approve)", reason="Held")
    assert messages_of([before, now]) == "would be removed, but 5 of 9 go (approve)"
    assert messages_of(
        [condition("Stalled", "no name"), condition("PolicyViolation", "no name")]
    ) == ("no name")
    assert messages_of([before]) == "would be removed, but 4 of 7 go"


def test_a_crash_loop_and_its_failed_rollout_are_one_cause_and_one_remedy() -> None:
    failed = "web.1 failed 3 times in a row: it exited with 1"
    stalled = condition("Stalled", f"{failed} (resume it)", reason="rollout.failed")
    paused = condition("Paused", failed, reason="rollout.failed")
    loop = condition("CrashLoop", "slot 1 failed 6 times in a row: exited with 1 (see its logs)")
    assert messages_of([loop, stalled, paused]) == (
        "slot 1 failed 6 times in a row: exited with 1 (see its logs); resume it"
    )


def test_the_instant_of_the_next_try_is_left_to_the_table() -> None:
    waiting = condition(
        "Progressing",
        "failed 2 times in a row (it exited with 1), next try at 2026-11-28T06:14:47Z",
    )
    assert messages_of([waiting]) == "failed 2 times in a row (it exited with 1)"


def test_a_count_that_the_table_shows_is_not_repeated() -> None:
    assert message_of(resource(condition("Ready", "1 of 1 ready", reason="AsDeclared"))) == ""
    not_ready = condition("Ready", "0 of 1 ready", reason="NotReady", status="False")
    assert message_of(resource(not_ready)) == ""
    degraded = condition("Degraded", "0 of 1 running", reason="TooFew")
    assert message_of(resource(degraded)) == "0 of 1 running"
    assert message_of(resource(degraded, condition("CrashLoop", "it exited with 1"))) == (
        "it exited with 1"
    )


def test_replicas_of_the_previous_revision_are_shown_before_why_the_new_one_fails() -> None:
    failing = condition("Progressing", "no such image")
    assert message_of(resource(failing, ready=0, desired=2, earlier=2)) == (
        "2 of 2 replicas still run the previous container; no such image"
    )
    assert message_of(resource(failing, ready=0, desired=2)) == "no such image"
    assert conditions_of(resource(failing)) == [failing]


def test_the_manual_has_each_word_of_the_column_in_the_order_of_gravity() -> None:
    manual = (Path(__file__).parents[4] / "docs" / "cli.md").read_text()
    row = next(line for line in manual.splitlines() if line.startswith("| CONDITION |"))
    grave, _, others = row.partition("; else ")
    assert re.findall(r"`(\w+)`", grave) == [*GRAVE]
    assert {*re.findall(r"`(\w+)`", others)} == {*COLOURS} - {*GRAVE} | {"NotReady"}


def test_a_new_service_progresses_and_is_not_degraded_before_something_fails() -> None:
    degraded = condition("Degraded", "0 of 1 running", reason="TooFew")
    acting = condition("Progressing", "create-container web.1", reason="Acting")

    def word(generations: tuple[int, int], **members: Any) -> str:
        number, observed = generations
        more = {"generation": number, "observedGeneration": observed, "slots": [{}], **members}
        return word_of(resource(acting, degraded, **more))

    assert word((1, 0)) == "Progressing"
    assert word((2, 1)) == "Degraded"
    assert word((1, 0), slots=[{"cause": "exited with 1"}]) == "Degraded"
    assert word((1, 0), nextTry={"at": "", "reason": "failed once"}) == "Degraded"


@pytest.mark.parametrize("reason", ["Pulling", "Building"])
def test_an_image_that_comes_is_told_beside_a_grave_condition(reason: str) -> None:
    few = condition("Degraded", "0 of 1 running", reason="TooFew")
    coming = condition("Progressing", "web:1: step 2/9, RUN make", reason=reason)
    new = resource(few, coming, generation=1, observedGeneration=0)
    assert (word_of(new), message_of(new)) == ("Progressing", "web:1: step 2/9, RUN make")
    known = resource(few, coming, generation=2, observedGeneration=1)
    assert (word_of(known), message_of(known)) == ("Degraded", "web:1: step 2/9, RUN make")


def test_the_log_below_a_message_is_no_part_of_a_row() -> None:
    failed = condition("Progressing", "build.failed: web:1: no\n  Step 1/1 : RUN no\n  no")
    assert message_of(resource(failed)) == "build.failed: web:1: no"
