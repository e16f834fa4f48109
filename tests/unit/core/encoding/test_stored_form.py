"""Dataclasses as JSON by the types of their fields."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import pytest

from controller.core.encoding.stored_form import (
    NULLABLE,
    OPTIONAL,
    Milliseconds,
    StoredForm,
    StoredKeys,
    stored,
)
from controller.model.names import Key, service_key

WEB, API = service_key("shop", "web"), service_key("shop", "api")


@dataclass(frozen=True, slots=True)
class Course:
    revision: str
    idle_s: Annotated[Milliseconds, stored("idleMs")] = 0.0
    held_s: Annotated[Milliseconds | None, stored("heldMs")] = None
    keys: StoredKeys = frozenset()
    failed: Annotated[str, OPTIONAL] = ""
    by_job: Annotated[bool, stored("byJob"), OPTIONAL] = False
    excused: Annotated[tuple[tuple[Key, int], ...] | None, NULLABLE] = None


FORM = StoredForm(Course, "a course")
LEAST = {"revision": "a", "idleMs": 0, "heldMs": None, "keys": []}
FULL = {
    "revision": "a",
    "idleMs": 1500,
    "heldMs": 2,
    "keys": ["Service/shop/api", "Service/shop/web"],
    "failed": "why",
    "byJob": True,
    "excused": [["Service/shop/web", 1]],
}


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        (Course("a"), LEAST),
        (Course("a", 1.5, 0.002, frozenset({WEB, API}), "why", True, ((WEB, 1),)), FULL),
        (Course("a", excused=()), {**LEAST, "excused": []}),
    ],
)
def test_a_value_is_written_and_read_by_its_types(course: Course, expected: object) -> None:
    assert FORM.to_json(course) == expected
    assert FORM.from_json(json.loads(json.dumps(expected))) == course


def test_unknown_members_are_ignored() -> None:
    assert FORM.from_json({**LEAST, "later": 1}) == Course("a")


@pytest.mark.parametrize("name", LEAST)
def test_other_members_are_required(name: str) -> None:
    with pytest.raises(ValueError, match="not a course: "):
        FORM.from_json({member: value for member, value in LEAST.items() if member != name})


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], "a", 1, {}),
        {**LEAST, "revision": 1},
        {**LEAST, "idleMs": 1.5},
        {**LEAST, "idleMs": True},
        {**LEAST, "idleMs": None},
        {**LEAST, "keys": "Service/shop/api"},
        {**LEAST, "keys": [1]},
        {**LEAST, "keys": ["web"]},
        {**LEAST, "byJob": "yes"},
        {**LEAST, "excused": [["Service/shop/web"]]},
        {**LEAST, "excused": [[7, 1]]},
    ],
)
def test_a_value_of_another_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a course: "):
        FORM.from_json(value)


def test_keys_are_sorted_by_their_parts() -> None:
    keys = frozenset({Key("Service", "a-b", "x"), Key("Service", "a", "x")})
    assert FORM.to_json(Course("a", keys=keys))["keys"] == ["Service/a/x", "Service/a-b/x"]
