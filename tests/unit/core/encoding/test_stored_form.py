"""Values as JSON by the types of their fields."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from controller.core.encoding.stored_form import StoredForm
from controller.model.names import Key, service_key

WEB = service_key("shop", "web")


@dataclass(frozen=True, slots=True)
class Course:
    revision: str
    idle_s: float = 0.0
    keys: frozenset[Key] = frozenset()
    size: int = 0
    excused: tuple[tuple[Key, int], ...] | None = None


FORM = StoredForm(Course)
FULL = {
    "revision": "a",
    "idle_s": 1.5,
    "keys": ["Service/shop/web"],
    "excused": [["Service/shop/web", 1]],
}


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        (Course("a"), {"revision": "a"}),
        (Course("a", 1.5, frozenset({WEB}), excused=((WEB, 1),)), FULL),
        (Course("a", excused=()), {"revision": "a", "excused": []}),
    ],
)
def test_a_value_is_written_and_read_by_its_types(course: Course, expected: object) -> None:
    assert FORM.to_json(course) == expected
    assert FORM.from_json(json.loads(json.dumps(expected))) == course


def test_lists_and_mappings_have_forms() -> None:
    form = StoredForm(list[tuple[Key, Course]])
    assert form.from_json(json.loads(json.dumps(form.to_json([(WEB, Course("a"))])))) == [
        (WEB, Course("a"))
    ]


def test_unknown_members_are_ignored_and_numbers_are_read_from_texts() -> None:
    assert FORM.from_json({"revision": "a", "later": 1, "size": str(2**60)}) == Course(
        "a", size=2**60
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "revision: Field required"),
        ({"revision": ["hunter2"]}, "revision: Input should be a valid string"),
        ([], "the value: Input should be a dictionary or an instance of Course"),
        ({"revision": "a", "keys": ["web"]}, "keys.0: Value error, "),
        ({"revision": "a", "excused": [["Service/shop/web"]]}, "excused.0.1: Field required"),
    ],
)
def test_the_message_about_another_form_repeats_no_value(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        FORM.from_json(value)


def test_the_message_about_another_form_has_one_line() -> None:
    with pytest.raises(ValueError, match=r"^a") as found:
        StoredForm(dict[str, int]).from_json({"a\nb": "x"})
    assert str(found.value).isprintable()
