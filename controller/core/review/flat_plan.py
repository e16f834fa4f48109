"""Plans as text and JSON. The same plan always gives the same bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict

from controller.core.encoding.text import printable
from controller.core.rules.images import describe, slot_volumes
from controller.model.desired.desired import ImageVolume, OverrideReason
from controller.model.desired.plan import AnyAction, Blocked, CreateContainer, Plan, Wait
from controller.model.errors import Problem, Severity
from controller.model.records import Verdict

NOTHING_TO_DO = "nothing to do"
INCOMPLETE = "incomplete: part of the desired state can't be read, so nothing of it is removed"


def render(plan: Plan) -> str:
    """Return a plan as text: actions in columns, then overrides, blocked removals and problems.

    The reason and remedy of a denied action follow on the lines below.
    """
    lines = action_table(plan.actions) if plan.actions else [NOTHING_TO_DO]
    rest: list[str] = []
    for hold in plan.holds:
        rest.append(f"{hold.word} {hold.key}   {hold.reason}")
        rest += [f"    remedy: {hold.remedy}"] if hold.remedy else []
    for blocked in plan.blocked:
        rest.append(f"blocked {blocked.key}   {blocked.code}: {blocked.reason}")
        rest += [f"    remedy: {blocked.remedy}"] if blocked.remedy else []
    lines += map(printable, rest)
    lines += [problem.render() for problem in plan.problems]
    if not plan.complete:
        lines.append(INCOMPLETE)
    return "\n".join(lines) + "\n"


def action_table(actions: tuple[AnyAction, ...]) -> list[str]:
    """Return actions in the flat form: one line each, in columns, with denials below."""
    rows = [
        (str(seq), action.verb, action.target, action.cause, _verdict(action))
        for seq, action in enumerate(actions, 1)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines: list[str] = []
    for action, (seq, verb, target, cause, verdict) in zip(actions, rows, strict=True):
        head = f"{seq:>{widths[0]}} {verb:<{widths[1]}} {target:<{widths[2]}}"
        lines.append(printable(f"{head}   {cause:<{widths[3]}}   {verdict}".rstrip()))
        lines += [printable(f"    {line}") for line in volume_lines(action)]
        lines += _explanation(action.verdict)
    return lines


def volume_lines(action: AnyAction) -> list[str]:
    """Return the volumes of a new container for the VOLUMEs without a mount."""
    return [describe(volume, name) for volume, name in _slot_volumes(action)]


def _slot_volumes(action: AnyAction) -> tuple[tuple[ImageVolume, str], ...]:
    create = action if isinstance(action, CreateContainer) else None
    return () if create is None else tuple(slot_volumes(create.service, create.slot))


def _verdict(action: AnyAction) -> str:
    if isinstance(action, Wait):
        return ""
    return " ".join((action.verdict.decision, *action.verdict.rules))


def _explanation(verdict: Verdict) -> Iterable[str]:
    if verdict.problems:
        for problem in verdict.problems:
            yield textwrap.indent(problem.render(), "    ")
    elif verdict.decision in ("deny", "audit-deny"):
        if verdict.reason:
            yield printable(f"    reason: {verdict.reason}")
        if verdict.remedy:
            yield printable(f"    remedy: {verdict.remedy}")


def to_json(plan: Plan) -> dict[str, object]:
    """Return a plan in the shape of ``trimtab plan --json``. Blocked removals are problems there."""
    return {
        "digest": plan.digest,
        "complete": plan.complete,
        "actions": [_action(seq, action) for seq, action in enumerate(plan.actions, 1)],
        **({"held": [_hold(hold) for hold in plan.holds]} if plan.holds else {}),
        "problems": [
            *(blocked_json(blocked) for blocked in plan.blocked),
            *(problem_json(problem) for problem in plan.problems),
        ],
    }


def _hold(hold: OverrideReason) -> dict[str, object]:
    members = ("word", "reason", "remedy")
    return {"object": str(hold.key), **{name: getattr(hold, name) for name in members}}


def _action(seq: int, action: AnyAction) -> dict[str, object]:
    return {
        "seq": seq,
        "action": action.verb,
        "object": str(action.object),
        "slot": action.slot,
        "cause": action.cause,
        "precondition": {k: v for k, v in asdict(action.precondition).items() if v},
        "verdict": verdict_json(action.verdict),
        **_volumes(action),
    }


def _volumes(action: AnyAction) -> dict[str, object]:
    named = _slot_volumes(action)
    volumes = [{"path": v.path, "keeping": v.keeping, "volume": name} for v, name in named]
    return {"volumes": volumes} if volumes else {}


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """Return a verdict; empty members are left out."""
    optional = {
        "reason": verdict.reason,
        "remedy": verdict.remedy,
        "mutations": list(verdict.mutations),
        "problems": [problem_json(problem) for problem in verdict.problems],
    }
    return {
        "decision": verdict.decision,
        "rules": list(verdict.rules),
        **{name: value for name, value in optional.items() if value},
    }


def problem_json(problem: Problem) -> dict[str, object]:
    """Return a problem in the shape of ``plan --json`` and ``status --json``."""
    names = ("code", "severity", "file", "line", "column", "field", "message", "expected", "remedy")
    return {name: getattr(problem, name) for name in names} | {"severity": problem.severity.value}


def blocked_json(blocked: Blocked) -> dict[str, object]:
    """Return a blocked removal as a problem: a warning, because a person can approve it."""
    message = f"{blocked.key}: {blocked.reason}"
    return problem_json(
        Problem(blocked.code, message, remedy=blocked.remedy, severity=Severity.WARNING)
    )
