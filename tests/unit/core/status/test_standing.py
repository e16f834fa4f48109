"""Whether everything is as declared, by the rows of a status report."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.status.standing import Word, everything, standing_of, unmet
from tests.unit.cli.reports import condition, problem, report, resource

READY = condition("Ready", reason="AsDeclared")


@pytest.mark.parametrize(
    ("conditions", "members", "expected"),
    [
        ([READY], {}, (Word.AS_DECLARED, "")),
        ([READY, condition("AdoptedAsFound")], {}, (Word.AS_DECLARED, "")),
        ([READY, condition("RolledBack", reason="Automatic")], {}, (Word.FAILED, "Automatic")),
        (
            [READY, condition("Paused", reason="rollout.failed")],
            {},
            (Word.FAILED, "rollout.failed"),
        ),
        ([READY, condition("PolicyViolation", reason="x")], {}, (Word.FAILED, "x")),
        ([READY, condition("Progressing", reason="Acting")], {}, (Word.UNDER_WAY, "Acting")),
        ([READY], {"generation": 2, "observedGeneration": 1}, (Word.UNDER_WAY, "AsDeclared")),
        ([READY], {"kind": "Release", "generation": 1}, (Word.AS_DECLARED, "")),
        ([READY, condition("Suspended", reason="ByCommand")], {}, (Word.AS_DECLARED, "")),
        (
            [READY, condition("Suspended", reason="ByCommand")],
            {"generation": 2, "observedGeneration": 1},
            (Word.SUSPENDED, "ByCommand"),
        ),
        ([condition("Quarantined", reason="Pruned")], {}, (Word.AS_DECLARED, "")),
        ([condition("Ready", reason="Failed", status="False")], {}, (Word.FAILED, "Failed")),
        ([condition("Ready", reason="Blind", status="Unknown")], {}, (Word.FAILED, "Blind")),
        ([condition("Ready", reason="NotSeen", status="Unknown")], {}, (Word.UNKNOWN, "NotSeen")),
        ([condition("Ready", reason="NotReady", status="False")], {}, (Word.UNDER_WAY, "NotReady")),
    ],
)
def test_a_resource_stands_as_its_gravest_condition_says(
    conditions: list[dict[str, str]], members: dict[str, Any], expected: tuple[Word, str]
) -> None:
    standing = standing_of(resource("web", *conditions, **members))
    assert (standing.word, standing.reason) == expected


BAD = condition("Stalled", "no such image", reason="image.not-found")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (report(), Word.AS_DECLARED),
        (report(resource("web")), Word.AS_DECLARED),
        (report(resource("web"), resource("api", BAD)), Word.FAILED),
        (report(resource("web"), problems=[problem("no")]), Word.FAILED),
        (report(resource("web"), problems=[problem("no", severity="warning")]), Word.AS_DECLARED),
        (report(resource("api", BAD)) | {"unread": {"since": "x"}}, Word.UNKNOWN),
        (report() | {"unread": {"since": "x"}}, Word.UNKNOWN),
        (report() | {"sources": [{"state": "Ready"}, {"state": "Held"}]}, Word.FAILED),
        (report() | {"sources": [{"state": "Ready"}, {"state": "Suspended"}]}, Word.AS_DECLARED),
        (report() | {"sources": [{"state": "Ready"}, {"state": "Pending"}]}, Word.UNDER_WAY),
        (report() | {"sources": [{"state": "Unknown"}]}, Word.UNDER_WAY),
        (report() | {"sources": [{"state": "Pending"}, {"state": "Broken"}]}, Word.FAILED),
    ],
)
def test_everything_is_as_declared_only_if_all_was_read_and_nothing_is_missing(
    given: dict[str, Any], expected: Word
) -> None:
    assert everything(given) is expected


def test_of_chosen_resources_only_the_rows_count() -> None:
    assert everything(report(resource("web"), problems=[problem("no")]), rows_only=True) is (
        Word.AS_DECLARED
    )


def test_what_is_not_as_declared_is_told_with_its_reason() -> None:
    assert unmet(report(resource("web"), resource("api", BAD))) == [
        {
            "object": "Service/default/api",
            "standing": "failed",
            "condition": "Stalled",
            "reason": "image.not-found",
            "message": "no such image",
        }
    ]
