"""Plans as text, of their JSON as a socket carries it."""

from __future__ import annotations

import json
from typing import Any

from controller.core.encoding.text import printable
from controller.core.review import plan_text
from controller.core.review.flat_plan import to_json
from controller.core.review.plan_json import review_json
from controller.model.desired.plan import Plan, Review


def carried(review: Review) -> dict[str, Any]:
    """The JSON of a review, written and read."""
    return dict(json.loads(json.dumps(review_json(review))))


def render_review(review: Review, **options: Any) -> str:
    """A review as people see it."""
    return plan_text.render_plan(carried(review), **options)


def render_differences(review: Review, *, width: int | None) -> str:
    """The different fields of a review as people see them."""
    return plan_text.render_differences(carried(review)["objects"], width=width)


def render_markdown(review: Review, *, title: str) -> str:
    """A review as a comment has it."""
    return plan_text.render_markdown(carried(review), title=title)


def flat_text(plan: Plan) -> str:
    """A plan as text: actions in columns, then overrides, blocked removals and problems."""
    value: dict[str, Any] = to_json(plan)
    actions = value["actions"]
    lines = plan_text.action_table(actions) if actions else [plan_text.NOTHING_TO_DO]
    rest: list[str] = []
    for hold in value.get("held", ()):
        rest.append(f"{hold['word']} {hold['object']}   {hold['reason']}")
        rest += [f"    remedy: {hold['remedy']}"] if hold["remedy"] else []
    for blocked in value.get("blocked", ()):
        rest.append(f"blocked {blocked['object']}   {blocked['code']}: {blocked['reason']}")
        rest += [f"    remedy: {blocked['remedy']}"] if blocked["remedy"] else []
    lines += map(printable, rest)
    lines += [problem.render() for problem in plan_text.problems_of(value)]
    if not plan.complete:
        lines.append(plan_text.INCOMPLETE)
    return "\n".join(lines) + "\n"
