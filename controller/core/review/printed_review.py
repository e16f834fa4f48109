"""A review as ``plan`` and ``diff`` print it, whether a running controller or the command made it.

The command replaces the marks of excerpts: lines of documents can hold secrets, and only the user's
own access decides whether they are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from controller.core.review.plan_json import differences_json, review_json
from controller.core.review.plan_markdown import render_markdown
from controller.core.review.plan_text import (
    Style,
    nothing,
    render_differences,
    render_review,
)
from controller.core.review.review import is_different
from controller.core.review.review_form import EXCERPT_MARK, ReviewForm
from controller.model.desired.field_changes import Effect, Review
from controller.model.errors import Problem, Severity

#: Parameters of Select Graphic Rendition (ECMA-48).
COLOURS: Final[dict[Style, int]] = {"add": 32, "change": 33, "remove": 31, "bad": 31, "dim": 2}


def paint(style: Style, text: str) -> str:
    """Return a line of a review in its colour. Without a terminal, ``terminal.echo`` drops colours."""
    return f"\x1b[{COLOURS[style]}m{text}\x1b[0m"


def printed_review(review: Review, form: ReviewForm) -> dict[str, object]:
    """Return a review in a form, as JSON."""
    return _plan(review, form) if form.subject == "plan" else _differences(review, form)


def _plan(review: Review, form: ReviewForm) -> dict[str, object]:
    """Return ``json`` or ``text``, and the plan's outcome.

    A text for a terminal has a mark for each problem with an excerpt; ``excerpts`` has the problems.
    """
    plan = review.plan
    outcome: dict[str, object] = {
        "invalid": any(problem.severity is Severity.ERROR for problem in plan.problems),
        "refused": any(action.verdict.decision == "deny" for action in plan.actions),
        "pending": bool(plan.pending or plan.blocked),
        # An override keeps a changed document from its service.
        "overridden": any(e.effect is Effect.HELD and is_different(e) for e in review.entries),
    }
    if form.output == "json":
        return {**outcome, "json": review_json(review)}
    if form.output == "markdown":
        return {**outcome, "text": render_markdown(review, title=form.title)}
    marks = _Marks()
    text = render_review(
        review,
        width=form.width,
        paint=paint,
        verbose=form.verbose,
        excerpt=nothing if form.width is None else marks.mark,
    )
    text = f"{text.rstrip()}\ndigest {plan.digest}"
    return {**outcome, "text": text, "excerpts": marks.places}


def _differences(review: Review, form: ReviewForm) -> dict[str, object]:
    """Return ``keys``, all resources; and ``objects``, the different ones, each with text and JSON."""
    entries = sorted((e for e in review.entries if is_different(e)), key=lambda entry: entry.key)
    objects = []
    for entry in entries:
        alone = replace(review, entries=(entry,))
        text = render_differences(alone, width=form.width, paint=paint).removesuffix("\n")
        objects.append({"object": str(entry.key), "text": text, "json": differences_json(alone)})
    return {"keys": [str(key) for key in sorted(review.keys)], "objects": objects}


class _Marks:
    """Marks in the place of excerpts, and the problems behind the marks."""

    def __init__(self) -> None:
        self.places: list[dict[str, object]] = []

    def mark(self, problem: Problem) -> Sequence[str]:
        """Return the mark of a problem's excerpt. No other line of a review has a control character."""
        self.places.append(
            {
                "code": problem.code,
                "message": problem.message,
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
            }
        )
        return (f"{EXCERPT_MARK}{len(self.places) - 1}",)
