"""How urgent a resource is, and who must act: by its conditions."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.view.attention import Urgency, Who, actor_of_stalled, attention_of


def row_of(
    *true: tuple[str, str], ready: tuple[str, str] = ("False", "NotReady")
) -> dict[str, Any]:
    status, reason = ready
    conditions = [{"type": "Ready", "status": status, "reason": reason, "message": ""}]
    conditions += [
        {"type": name, "status": "True", "reason": why, "message": ""} for name, why in true
    ]
    return {"kind": "Service", "conditions": conditions}


@pytest.mark.parametrize(
    ("row", "worst", "level", "who"),
    [
        (row_of(ready=("True", "AsDeclared")), "Ready", Urgency.OK, Who.NOBODY),
        (row_of(("Progressing", "Acting")), "Progressing", Urgency.PROGRESS, Who.TRIMTAB),
        (
            row_of(("Progressing", "Retrying"), ("Degraded", "TooFew")),
            "Progressing",
            Urgency.WARNING,
            Who.TRIMTAB,
        ),
        (row_of(("CrashLoop", "KeepsFailing")), "CrashLoop", Urgency.WARNING, Who.AUTHOR),
        (
            row_of(("CrashLoop", "KeepsFailing"), ("Degraded", "TooFew")),
            "CrashLoop",
            Urgency.PAGE,
            Who.AUTHOR,
        ),
        (row_of(("Stalled", "field.unknown")), "Stalled", Urgency.WARNING, Who.AUTHOR),
        (row_of(("Stalled", "volume.foreign")), "Stalled", Urgency.WARNING, Who.OPERATOR),
        (row_of(ready=("Unknown", "EngineUnavailable")), "Ready", Urgency.WARNING, Who.OPERATOR),
    ],
)
def test_the_worst_condition_says_how_urgent_it_is_and_who_must_act(row, worst, level, who):
    found = attention_of(row)
    assert (found.worst, found.level, found.who) == (worst, level, who)


def test_several_rules_are_judged_by_the_first():
    assert actor_of_stalled("mount.source, image.mutable") is Who.AUTHOR
