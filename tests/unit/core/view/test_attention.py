"""How urgent a resource is, and who must act: by its conditions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from controller.core.view.attention import (
    OPERATORS_FAMILIES,
    Urgency,
    Who,
    actor_of_stalled,
    attended,
    attention_of,
    state_of,
)

ERRORS = Path(__file__).parents[4] / "docs" / "errors"
#: The families of codes that are no reason of Stalled, or whose cause stands in a document.
OTHERS = """
api approve backup body build bundle chart client command compose config context control
controller crash-point cwd default dependency device dir docker document engine-name env exec
export failure field file filters git hardening header healthcheck hook image job kind label
line log logs memory mount move moved name namespace nothing notification
notify observe owner path port problem
process project query record records remove request resource resources restart restore resume
rollback rollout route scale settings shares ship signal snapshot socket source stale start stop
suspend update usage user values viewer web webhook wire workdir yaml
"""


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
    ("row", "worst", "severity", "who"),
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
        # A held service isn't repaired, and a repair doesn't hide what a person did or must undo.
        (
            row_of(("Degraded", "TooFew"), ("Suspended", "ByCommand")),
            "Suspended",
            Urgency.WARNING,
            Who.OPERATOR,
        ),
        (
            row_of(("Degraded", "TooFew"), ("RolledBack", "Automatic")),
            "RolledBack",
            Urgency.PAGE,
            Who.AUTHOR,
        ),
        # Nothing goes on that nobody can see.
        (
            row_of(("Progressing", "Waiting"), ready=("Unknown", "EngineUnavailable")),
            "Ready",
            Urgency.WARNING,
            Who.OPERATOR,
        ),
        (row_of(("Stalled", "field.unknown")), "Stalled", Urgency.WARNING, Who.AUTHOR),
        (row_of(("Stalled", "volume.foreign")), "Stalled", Urgency.WARNING, Who.OPERATOR),
        (row_of(ready=("Unknown", "EngineUnavailable")), "Ready", Urgency.WARNING, Who.OPERATOR),
    ],
)
def test_the_worst_condition_says_how_urgent_it_is_and_who_must_act(row, worst, severity, who):
    found = attention_of(row)
    assert (found.worst, found.severity, found.who) == (worst, severity, who)


def test_what_is_stalled_says_what_ends_it():
    """trimtab tries some causes again, and goes on when the other resource does."""

    def following(reason: str, **members: Any) -> str:
        return attention_of({**row_of(("Stalled", reason)), "namespace": "shop", **members}).next

    assert following("image.notfound") == "nothing until its document is corrected"
    assert following("volume.foreign") == "nothing until an operator removes the cause"
    again = {"at": "2026-03-01T12:00:40Z", "reason": "image.notfound: no such image"}
    told = "trimtab tries again by itself; a person must remove the cause"
    assert following("image.notfound", nextTry=again) == told
    assert following("image", nextTry=again) == "nothing until its document is corrected"
    goes_on = "it goes on by itself when {} ready"
    keys = ["Job/shop/seed", "Service/other/db", "Service/shop/api", "Service/shop/web"]
    for count, names in enumerate(
        (
            "what it depends on is",
            "seed is",
            "seed and other/db are",
            "seed, other/db and 1 more are",
        )
    ):
        found = following("dependency.failed", waitsFor=keys[:count])
        assert found == goes_on.format(names)


def test_the_state_counts_sources_in_which_a_person_must_act():
    def state(*states: str) -> tuple[object, object, Any]:
        sources = [{"name": each, "state": each} for each in states]
        rows = [attended(row_of(ready=("True", "AsDeclared")))]
        found: Any = state_of({"resources": rows, "problems": [], "sources": sources})
        return found["word"], found["text"], found["counts"]["sources"]

    all_of_one = "1 of 1 resources are as declared; {}."
    reads = all_of_one.format("trimtab reads a Git source")
    assert state("Ready", "Pending") == ("Converging", reads, 0)
    acts = all_of_one.format("a person must act")
    assert state("Pending", "Held", "Failing") == ("Attention", acts, 2)
    assert state("Ready", "Suspended")[0] == "AsDeclared"


def test_several_rules_are_judged_by_the_first():
    assert actor_of_stalled("mount.source, image.mutable") is Who.AUTHOR


def test_each_family_of_codes_is_known_as_the_operators_or_as_another() -> None:
    """A new family must be decided on: else its first resource would wake the wrong person."""
    pages = "".join(page.read_text("utf-8") for page in ERRORS.glob("*.md"))
    families = set(re.findall(r"^\| `([A-Za-z0-9-]+)\.", pages, re.MULTILINE))
    assert families - OPERATORS_FAMILIES == {*OTHERS.split()}
