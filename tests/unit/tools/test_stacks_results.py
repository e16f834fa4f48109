"""docs/compose-stacks.md is made of the recorded results, of the stacks that are there."""

from __future__ import annotations

import json

import pytest

from tools.stacks import results
from tools.stacks.changes import ASKED, CHANGES, change_ports, changed_text
from tools.stacks.sides import STACKS

RECORDED = json.loads(results.RESULTS.read_text("utf-8"))
NAMES = {path.parent.name for path in STACKS.glob("*/compose.yaml")}


def test_the_page_is_what_the_results_say() -> None:
    assert results.page(RECORDED) == results.PAGE.read_text("utf-8"), (
        "run `make ring KIND=compose-side`"
    )


def test_every_stack_is_recorded_and_no_difference_is_unannounced() -> None:
    assert set(results.SUBJECTS) == set(ASKED) == NAMES
    assert set(RECORDED["compare"]) == NAMES, "run `make ring KIND=compose-side`"
    for part in ("compare", "load", "adopt"):
        # Changes and adoptions can be recorded stack by stack.
        assert set(RECORDED[part]) <= NAMES, (
            f"run `make ring KIND=compose-side ARGS='--part {part}'`"
        )
        assert [name for name, found in RECORDED[part].items() if results.faults(found)] == []


@pytest.mark.parametrize("name", sorted(ASKED))
def test_each_change_changes_its_service(name: str) -> None:
    text = (STACKS / name / "compose.yaml").read_text("utf-8")
    asked = ASKED[name]
    for change, (is_edge, edit) in CHANGES.items():
        if edit is not None:
            service = asked.edge if is_edge else asked.app
            assert changed_text(text, service, edit) != changed_text(text, service, lambda _: None)
        else:
            assert (STACKS / name / asked.file).is_file(), change


def test_ports_of_every_spelling_move() -> None:
    service = {
        "ports": ["18400:80", "127.0.0.1:18461-18462:1-2", {"target": 80, "published": "18410"}]
    }
    change_ports(service)
    assert service["ports"] == [
        "19400:80",
        "127.0.0.1:19461-19462:1-2",
        {"target": 80, "published": "19410"},
    ]
