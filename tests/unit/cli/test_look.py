"""What the table of services shows of their conditions."""

from __future__ import annotations

import pytest

from controller.cli.look import conditions_of, message_of, told_of


def condition(
    kind: str, message: str = "", *, reason: str = "", status: str = "True"
) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def words(*conditions: dict[str, str]) -> list[str]:
    return [c["type"] for c in conditions_of({"conditions": list(conditions)})]


@pytest.mark.parametrize("kind", ["Contended", "Paused", "RolledBack", "CrashLoop"])
def test_what_a_person_should_know_of_is_shown_also_where_all_is_ready(kind: str) -> None:
    assert words(condition("Ready"), condition(kind)) == [kind]
    assert words(condition("Ready"), condition(kind, status="False")) == ["Ready"]


def test_what_two_conditions_say_is_told_once() -> None:
    stalled = condition("Stalled", "it died (resume it)", reason="rollout.failed")
    degraded = condition("Degraded", "0 of 1 serve")
    assert told_of([stalled, condition("Paused", "it died"), degraded]) == (
        "it died (resume it); 0 of 1 serve"
    )
    before = condition("Stalled", "would be removed, but 4 of 7 go", reason="PrunePending")
    now = condition("PrunePending", "would be removed, but 5 of 9 go (approve)", reason="Held")
    assert told_of([before, now]) == "would be removed, but 5 of 9 go (approve)"
    assert told_of([condition("Stalled", "no name"), condition("PolicyViolation", "no name")]) == (
        "no name"
    )
    assert told_of([before]) == "would be removed, but 4 of 7 go"


def test_that_another_revision_serves_is_told_before_why_the_new_one_does_not() -> None:
    shown = [condition("Progressing", "no such image")]
    stuck = {"ready": 0, "desired": 2, "earlier": 2}
    assert message_of(stuck, shown) == "another revision serves 2 of 2; no such image"
    assert message_of({"ready": 0, "desired": 2}, shown) == "no such image"
