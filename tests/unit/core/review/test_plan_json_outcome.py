"""What ``plan`` and ``diff`` get of a review: the plan, what it needs of people, and all keys."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest

from controller.core.review.plan_json import answer_json, outcome_of, review_json
from controller.core.review.plan_text import COLOURS, Style, differences_json, paint, render_plan
from controller.model.desired.plan import Blocked, Effect, Plan
from controller.model.errors import Problem, Severity
from controller.model.names import service_key
from tests.golden.scenes import plan_of, scenes
from tests.plans import carried
from tests.worlds import deny

PLACED = "what-the-policy-refuses-is-shown-at-its-place"


@pytest.mark.parametrize("scene", scenes())
def test_an_answer_has_the_plan_and_all_keys(scene: str) -> None:
    _, review = plan_of(scene)
    answer = answer_json(review)
    assert answer == {
        "plan": review_json(review),
        "outcome": outcome_of(review),
        "keys": [str(key) for key in sorted(review.keys)],
    }


@pytest.mark.parametrize("scene", scenes())
def test_objects_differ_by_a_field_or_by_their_removal(scene: str) -> None:
    _, review = plan_of(scene)
    different = {
        str(entry.key)
        for entry in review.entries
        if entry.differences or entry.effect is Effect.REMOVE
    }
    found = differences_json(carried(review))["objects"]
    assert {each["object"] for each in found} == different


def test_the_outcome_is_the_first_that_stands_in_the_way() -> None:
    _, review = plan_of("what-is-as-declared-needs-nothing")

    def outcome(changed: Plan) -> str:
        return outcome_of(replace(review, plan=changed))

    plan = review.plan
    assert outcome(plan) == ""
    warning = Problem("field.unknown", "no such field", severity=Severity.WARNING)
    assert outcome(replace(plan, problems=(warning,))) == ""
    error = replace(warning, severity=Severity.ERROR)
    blocked = Blocked(service_key("default", "web"), "PrunePending", "twice", "approve it")
    assert outcome(replace(plan, blocked=(blocked,))) == "pending"
    acting, _ = plan_of("a-new-service-gets-its-image-its-network-and-its-containers")
    judge = deny("create-container")
    denied = tuple(replace(each, verdict=judge(each)) for each in acting.actions)
    refused = replace(plan, actions=denied, blocked=(blocked,))
    assert outcome(refused) == "refused"
    assert outcome(replace(refused, problems=(error,))) == "invalid"


def test_a_problem_has_the_lines_of_its_file_wherever_it_is_shown() -> None:
    _, review = plan_of(PLACED)
    shown: list[Problem] = []

    def excerpt(problem: Problem) -> tuple[str, ...]:
        shown.append(problem)
        return (f"line {problem.line} of {problem.file}",)

    text = render_plan(carried(review), width=60, excerpt=excerpt)
    assert shown
    for problem in shown:
        assert f"\nline {problem.line} of {problem.file}\n" in text


@pytest.mark.parametrize("style", COLOURS)
def test_colours_are_those_of_other_commands(style: Style) -> None:
    names = {"add": "green", "change": "yellow", "remove": "red", "bad": "red"}
    if style == "dim":
        assert paint(style, "text") == click.style("text", dim=True)
    else:
        assert paint(style, "text") == click.style("text", fg=names[style])
