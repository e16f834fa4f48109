"""A review as commands print it: the text has marks in the places of excerpts, and nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click
import pytest

from controller.core.review.plan_json import (
    COLOURS,
    differences_json,
    paint,
    printed_review,
    render_markdown,
    review_json,
)
from controller.core.review.plan_text import Style, render_differences, render_review
from controller.core.review.review_form import EXCERPT_MARK, ReviewForm
from controller.model.desired.plan import Blocked, Plan
from controller.model.errors import Problem, Severity
from controller.model.names import service_key
from tests.golden.scenes import plan_of, scenes


@pytest.mark.parametrize("scene", scenes())
@pytest.mark.parametrize("width", [None, 60])
def test_the_printed_text_is_the_rendered_one(scene: str, width: int | None) -> None:
    plan, review = plan_of(scene)
    shown: list[Problem] = []

    def excerpt(problem: Problem) -> Sequence[str]:
        shown.append(problem)
        return () if width is None else (f"{EXCERPT_MARK}{len(shown) - 1}",)

    text = render_review(review, width=width, paint=paint, verbose=True, excerpt=excerpt)
    printed = printed_review(review, ReviewForm("plan", width=width, verbose=True))
    assert printed["text"] == f"{text.rstrip()}\ndigest {plan.digest}"
    places = [(p.code, p.file, p.line, p.column) for p in shown if width is not None]
    assert isinstance(printed["excerpts"], list)
    kept = [(p["code"], p["file"], p["line"], p["column"]) for p in printed["excerpts"]]
    assert kept == places


@pytest.mark.parametrize("scene", scenes())
def test_other_forms_are_the_rendered_ones(scene: str) -> None:
    _, review = plan_of(scene)
    assert printed_review(review, ReviewForm("plan", "json"))["json"] == review_json(review)
    markdown = printed_review(review, ReviewForm("plan", "markdown", title="here"))["text"]
    assert markdown == render_markdown(review, title="here")


@pytest.mark.parametrize("scene", scenes())
def test_differences_stand_object_by_object(scene: str) -> None:
    _, review = plan_of(scene)
    printed = printed_review(review, ReviewForm("diff", width=60))
    objects = printed["objects"]
    assert isinstance(objects, list)
    together = [each for item in objects for each in item["json"]["objects"]]
    assert {"objects": together} == differences_json(review)
    text = render_differences(review, width=60, paint=paint)
    assert "\n".join(item["text"] for item in objects).rstrip() == text.rstrip()
    assert printed["keys"] == [str(key) for key in sorted(review.keys)]


def test_the_outcome_names_what_stands_in_the_way() -> None:
    _, review = plan_of("what-is-as-declared-needs-nothing")
    plan = review.plan

    def outcome(changed: Plan) -> tuple[object, ...]:
        printed = printed_review(replace(review, plan=changed), ReviewForm("plan"))
        return printed["invalid"], printed["refused"], printed["pending"]

    assert outcome(plan) == (False, False, False)
    warning = Problem("field.unknown", "no such field", severity=Severity.WARNING)
    assert outcome(replace(plan, problems=(warning,))) == (False, False, False)
    error = replace(warning, severity=Severity.ERROR)
    assert outcome(replace(plan, problems=(error,))) == (True, False, False)
    blocked = Blocked(service_key("default", "web"), "PrunePending", "twice", "approve it")
    assert outcome(replace(plan, blocked=(blocked,))) == (False, False, True)


@pytest.mark.parametrize("style", COLOURS)
def test_colours_are_those_of_other_commands(style: Style) -> None:
    names = {"add": "green", "change": "yellow", "remove": "red", "bad": "red"}
    if style == "dim":
        assert paint(style, "text") == click.style("text", dim=True)
    else:
        assert paint(style, "text") == click.style("text", fg=names[style])
