"""The view of a viewer: the facts about the resources of its owners, as if there were no others.

A view is made of the scoped facts, so versions, waits, counts and the state tell of nothing else. Sources and the
verification of the journal are about everybody's documents and records, and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from controller.core.review.flat_plan import blocked_json, problem_json
from controller.core.status.facts import Report
from controller.core.status.report import rows_of
from controller.core.view.view import ViewInputs, key_of
from controller.model.names import Key
from controller.model.records import ViewerScope

BLANK: Final = "…"
_WORD: Final = re.compile(r"\w(?:[\w./-]*[\w/-])?")


def scoped(inputs: ViewInputs, scope: ViewerScope) -> ViewInputs:
    """Return the facts about the resources of a scope's owners. A resource without an owner is nobody's."""
    rows = [row for row in rows_of(inputs.report) if scope.has(str(row["owner"]))]
    keys = {Key.parse(key_of(row)) for row in rows}
    desired, plan = inputs.desired, inputs.plan
    own = [problem_json(each) for each in (*desired.problems, *plan.problems) if each.key in keys]
    own += [blocked_json(each) for each in plan.blocked if each.key in keys]
    problems: Any = inputs.report["problems"]
    report: Report = {"resources": rows, "problems": [each for each in problems if each in own]}
    if "unread" in inputs.report:
        report["unread"] = inputs.report["unread"]
    return replace(
        inputs,
        report=report,
        desired=replace(
            desired, services=tuple(each for each in desired.services if each.key in keys)
        ),
        plan=replace(plan, actions=tuple(each for each in plan.actions if each.object in keys)),
        acts=tuple(act for act in inputs.acts if act.action.object in keys),
    )


def hidden_names(inputs: ViewInputs, scope: ViewerScope) -> frozenset[str]:
    """Return the keys and containers of the other owners' resources, as messages write them.

    A message about an own resource can name the resource that it waits for, or that has its port.
    """
    rows = rows_of(inputs.report)
    shown = {name for row in rows if scope.has(str(row["owner"])) for name in _names(row)}
    return frozenset(name for row in rows for name in _names(row)) - shown


def blanked(value: Any, hidden: frozenset[str]) -> Any:
    """Return a JSON value without hidden names in its texts."""
    match value:
        case str():
            return _WORD.sub(lambda word: BLANK if word[0] in hidden else word[0], value)
        case dict():
            return {name: blanked(member, hidden) for name, member in value.items()}
        case list():
            return [blanked(member, hidden) for member in value]
        case _:
            return value


def _names(row: Report) -> Iterator[str]:
    """Yield ``KIND/NAMESPACE/NAME``, ``NAMESPACE/NAME`` and the names of containers."""
    yield (key := key_of(row))
    yield key.partition("/")[2]
    slots: Any = row["slots"]
    yield from (str(slot["container"]) for slot in slots if "container" in slot)
