"""The form of a review, from the command to the controller and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.core.review.review_form import ReviewForm, form_from_json

FORMS = (
    ReviewForm("diff"),
    ReviewForm("plan", "json"),
    ReviewForm("plan", "markdown", title="trimtab plan on host"),
    ReviewForm("plan", "text", width=80, verbose=True),
)
PLAN = ReviewForm("plan").to_json()


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_the_same_after_a_request(form: ReviewForm) -> None:
    assert form_from_json(json.loads(json.dumps(form.to_json()))) == form


@pytest.mark.parametrize(
    "members",
    [
        None,
        [],
        {},
        {**PLAN, "subject": "status"},
        {**PLAN, "output": "html"},
        {**PLAN, "width": 0},
        {**PLAN, "width": "80"},
        {**PLAN, "width": 100_001},
        {**PLAN, "verbose": 1},
        {**PLAN, "title": None},
        {**PLAN, "title": "x" * 513},
    ],
)
def test_a_value_of_another_form_is_none(members: Any) -> None:
    assert form_from_json(members) is None
