"""Plans as Markdown: a table that nothing in a document can break out of, and of bounded length."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from controller.core.review.plan_text import LENGTH_MAX
from controller.model.desired.plan import Blocked, FieldChange, Plan, Review
from controller.model.errors import Problem, Severity
from controller.model.names import Key
from tests.golden.scenes import plan_of, scenes
from tests.plans import render_markdown, render_review

CELLS = re.compile(r"(?<!\\)\|")
HOSTILE = "a|b `x` ``y`` <img src=x> @team [l](http://x) \x1b[2J\nnext"


@pytest.mark.parametrize("scene", scenes())
def test_each_row_has_its_cells_and_each_section_its_end(scene: str) -> None:
    _, review = plan_of(scene)
    text = render_markdown(review, title="plan")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(CELLS.findall(row)) == 6 for row in rows), rows
    assert text.count("<details>") == text.count("</details>")
    assert text.startswith("### plan\n")


def test_a_plan_shows_changes_downtime_and_digest() -> None:
    plan, review = plan_of("a-published-service-is-stopped-after-its-successor-is-created")
    text = render_markdown(review, title="trimtab plan on host")
    assert "(StopFirst) | " in text
    assert " until its new container is up (its stop may take " in text
    assert f"Digest `{plan.digest}`" in text


def test_nothing_to_do_is_said_in_a_line() -> None:
    _, review = plan_of("what-is-as-declared-needs-nothing")
    assert render_markdown(review, title="plan") == "### plan\n\nNothing to do.\n"


def test_a_refusal_names_its_rules() -> None:
    _, review = plan_of("what-the-policy-refuses-is-shown-at-its-place")
    assert re.search(r"\| refused: `[a-z.-]+`", render_markdown(review, title="plan"))


def hostile_review(count: int = 1) -> Review:
    plan, review = plan_of("a-changed-limit-and-a-changed-value-are-named")
    entry = next(entry for entry in review.entries if entry.differences)
    change = FieldChange(HOSTILE, "changed", HOSTILE, HOSTILE)
    difference = replace(entry.differences[0], changes=(change,) * count, note=HOSTILE)
    problem = Problem("x", HOSTILE, HOSTILE, remedy=HOSTILE)
    key = Key("Service", "default", "web")
    held = Plan(
        actions=plan.actions,
        blocked=(Blocked(key, "PrunePending", HOSTILE, HOSTILE),),
        problems=(problem,),
    )
    return replace(review, plan=held, entries=(replace(entry, differences=(difference,)),))


def test_hostile_texts_stay_in_their_code_spans() -> None:
    text = render_markdown(hostile_review(), title="plan")
    assert "\x1b" not in text
    for line in text.splitlines():
        outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line)
        assert "<img" not in outside, line
        assert "@team" not in outside, line
        assert "](http" not in outside, line


def test_the_length_is_bounded_and_the_rest_is_counted() -> None:
    text = render_markdown(hostile_review(5000), title="plan")
    assert len(text) <= LENGTH_MAX
    assert text.count("<details>") == text.count("</details>")
    assert re.search(r"… \d+ more lines: see `trimtab plan`\n$", text)


def test_notes_on_compose_files_are_counted() -> None:
    note = Problem(
        "compose.by-policy", "build has no effect", "c.yaml", 3, severity=Severity.WARNING
    )
    _, review = plan_of("a-changed-limit-and-a-changed-value-are-named")
    made = replace(review, plan=replace(review.plan, problems=(note,)))
    text = render_markdown(made, title="t")
    assert "- 1 note on Compose files; 'trimtab validate' shows them" in text
    assert "build has no effect" not in text
    assert "build has no effect" not in render_review(made, width=None)
    assert "1 note on Compose files" in render_review(made, width=None)
