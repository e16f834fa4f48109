"""What a view shows to be wrong: of the recorded view, of documents with errors, and of hostile members."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.core.notify.symptoms import symptoms_of
from tests.unit.core.notify.views import BEGIN, row, view

RECORDED = Path(__file__).parents[3] / "golden" / "view" / "view.json"
ERROR = {
    "code": "field.type",
    "severity": "error",
    "file": "a.yaml",
    "line": 3,
    "message": "no text",
}


def test_the_recorded_view_is_understood() -> None:
    recorded = json.loads(RECORDED.read_text("utf-8"))
    seen = symptoms_of(recorded, BEGIN)
    grave = {row["name"] for row in recorded["resources"] if row["severity"] in ("warning", "page")}
    told = {each.affected.name for each in seen.symptoms if each.affected is not None}
    assert grave <= told
    assert (seen.host, seen.summary) == (recorded["host"]["name"], recorded["state"]["text"])


def test_errors_of_documents_are_one_cause_with_what_they_leave_unread() -> None:
    unread = row("web", severity="warning", reason="Blind")
    seen = symptoms_of(view(unread, problems=[ERROR, {**ERROR, "line": 4}]), BEGIN)
    assert {(each.cause, each.title) for each in seen.symptoms} == {
        ("files", "documents have errors")
    }
    assert {each.text for each in seen.symptoms} == {"a.yaml:3: no text (and 1 more)"}
    assert [each.affected.name for each in seen.symptoms if each.affected] == ["web"]


def test_a_problem_that_a_row_tells_is_told_once() -> None:
    bad = row(
        "web", severity="warning", condition="Stalled", reason="field.type", message="no text (x)"
    )
    seen = symptoms_of(view(bad, problems=[ERROR]), BEGIN)
    assert [each.cause for each in seen.symptoms] == ["Service/shop/web Stalled"]


@pytest.mark.parametrize("junk", [None, 1, "x", [], {}, [None, 1, "x", [], {}]])
@pytest.mark.parametrize("member", ["resources", "problems", "sources", "host", "state"])
def test_members_of_another_form_count_as_absent(member: str, junk: Any) -> None:
    symptoms_of({**view(row("web")), member: junk}, BEGIN)


@pytest.mark.parametrize(
    ("state", "has_incident"),
    [
        ("Ready", False),
        ("Suspended", False),
        ("Pending", False),
        ("Unknown", False),
        ("Held", True),
        ("Failing", True),
        ("Degraded", True),
        ("Broken", True),
        ("Removed", True),
    ],
)
def test_a_source_is_an_incident_while_a_person_must_act(state: str, *, has_incident: bool) -> None:
    sources = [{"name": "shop", "state": state, "message": "no"}]
    found = symptoms_of({"sources": sources, "state": {"word": ""}}, 0.0)
    assert [each.cause for each in found.symptoms] == ["source shop"] * has_incident
