"""Plans, verdicts and problems as JSON. The same plan always gives the same bytes."""

from __future__ import annotations

from dataclasses import asdict

from controller.core.rules.images import describe, slot_volumes
from controller.model.desired.desired import OverrideReason
from controller.model.desired.plan import AnyAction, Blocked, CreateContainer, Plan
from controller.model.errors import Problem, Severity
from controller.model.records import Verdict


def to_json(plan: Plan) -> dict[str, object]:
    """Return a plan in the shape of ``trimtab plan --json``. ``problems`` begins with the blocked removals."""
    return {
        "digest": plan.digest,
        "complete": plan.complete,
        "actions": [_action(seq, action) for seq, action in enumerate(plan.actions, 1)],
        **({"held": [_hold(hold) for hold in plan.holds]} if plan.holds else {}),
        **({"blocked": [_blocked(blocked) for blocked in plan.blocked]} if plan.blocked else {}),
        "problems": [
            *(blocked_json(blocked) for blocked in plan.blocked),
            *(problem_json(problem) for problem in plan.problems),
        ],
    }


def _hold(hold: OverrideReason) -> dict[str, object]:
    members = ("word", "reason", "remedy")
    return {"object": str(hold.key), **{name: getattr(hold, name) for name in members}}


def _blocked(blocked: Blocked) -> dict[str, object]:
    members = ("code", "reason", "remedy")
    return {"object": str(blocked.key), **{name: getattr(blocked, name) for name in members}}


def _action(seq: int, action: AnyAction) -> dict[str, object]:
    return {
        "seq": seq,
        "action": action.verb,
        "object": str(action.object),
        "target": action.target,
        "slot": action.slot,
        "cause": action.cause,
        "precondition": {k: v for k, v in asdict(action.precondition).items() if v},
        "verdict": verdict_json(action.verdict),
        **_volumes(action),
    }


def _volumes(action: AnyAction) -> dict[str, object]:
    """Return the volumes of a new container for the VOLUMEs without a mount."""
    if not isinstance(action, CreateContainer):
        return {}
    volumes = [
        {"path": v.path, "keeping": v.keeping, "volume": name, "text": describe(v, name)}
        for v, name in slot_volumes(action.service, action.slot)
    ]
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
