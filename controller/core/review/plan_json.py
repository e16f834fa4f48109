"""A reviewed plan as JSON: ``plan --json`` and ``diff --json``.

Everything that people see of a plan is in this value: ``core.review.plan_text`` makes text and Markdown of it.
Values are left out if they can be secret. Such a change has ``changed``, ``added`` or ``removed``
instead of ``old`` and ``new``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from controller.core.drift.actions import TAKES_ADDRESS, TAKES_NAME, is_denied, refusals
from controller.core.review.flat_plan import to_json, verdict_json
from controller.core.review.review import downtime_json, hold_word, is_different, summary_of
from controller.model.desired.plan import (
    AnyAction,
    ConnectNetwork,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
    DisconnectNetwork,
    Effect,
    FieldChange,
    PullImage,
    QuarantineWait,
    RenameContainer,
    Review,
    ReviewEntry,
    ServiceDifference,
    SignalContainer,
    StopContainer,
    UpdateContainer,
    Wait,
)
from controller.model.errors import Severity
from controller.model.quantities import format_bytes

#: What a plan needs of people, the first that applies; '' for nothing.
PlanOutcome = Literal["invalid", "refused", "pending", "overridden", ""]


def review_json(review: Review) -> dict[str, object]:
    """Return the shape of ``plan --json``: the plan, its summary, and its objects."""
    return {
        **to_json(review.plan),
        "summary": summary_of(review).to_json(),
        "objects": [_entry(entry) for entry in review.entries],
        **({"hints": list(review.hints)} if review.hints else {}),
    }


def answer_json(review: Review) -> dict[str, object]:
    """Return what ``plan`` and ``diff`` need: the plan, its outcome, and the keys of all resources."""
    return {
        "plan": review_json(review),
        "outcome": outcome_of(review),
        "keys": [str(key) for key in sorted(review.keys)],
    }


def outcome_of(review: Review) -> PlanOutcome:
    """Return the outcome of a plan."""
    plan = review.plan
    if any(problem.severity is Severity.ERROR for problem in plan.problems):
        return "invalid"
    if any(is_denied(action) for action in plan.actions):
        return "refused"
    if plan.pending or plan.blocked:
        return "pending"
    # An override keeps a changed document from its service.
    is_kept = any(e.effect is Effect.HELD and is_different(e) for e in review.entries)
    return "overridden" if is_kept else ""


def _entry(entry: ReviewEntry) -> dict[str, object]:
    slots = {
        "replaced": entry.replaced,
        "created": entry.added,
        "removed": entry.removed,
        "stopped": entry.stopped,
        "started": entry.started,
        "updated": entry.updated,
    }
    shown: dict[str, object] = {
        "object": str(entry.key),
        "effect": entry.effect.value,
        "text": headline(entry),
        "slots": {name: count for name, count in slots.items() if count},
        "changes": changes_json(entry.differences),
    }
    optional: dict[str, object] = {
        "new": entry.is_new,
        "different": is_different(entry),
        "why": _causes(entry),
        "steps": list(_steps(entry.actions)),
        "refusals": list(_refusals(entry.actions)),
        "notes": [each.note for each in entry.differences if each.note is not None],
    }
    shown |= {name: value for name, value in optional.items() if value}
    if entry.order is not None:
        shown["order"] = entry.order
    if entry.source is not None:
        shown["source"] = {"file": entry.source.file, "line": entry.source.line}
    if entry.downtime is not None:
        shown["downtime"] = downtime_json(entry.downtime)
    if entry.new_addresses_on is not None:
        shown["newAddressesOn"] = list(entry.new_addresses_on)
    return shown


def changes_json(differences: Iterable[ServiceDifference]) -> list[dict[str, object]]:
    """Return a JSON object for each changed field, with the revision and containers of the change."""
    return [
        {**_change(change), **dict(_found_in(difference))}
        for difference in differences
        for change in difference.changes
    ]


def _change(change: FieldChange) -> dict[str, object]:
    shown: dict[str, object] = {
        "path": change.path,
        "kind": change.kind,
        "text": change_text(change),
    }
    if change.sensitive:
        return {**shown, change.what: True}
    return {**shown, "old": change.old, "new": change.new}


def _found_in(difference: ServiceDifference) -> Iterator[tuple[str, object]]:
    if difference.origin is not None:
        yield "revision", difference.origin
    if difference.containers:
        yield "containers", list(difference.containers)
    if difference.held:
        yield "held", True


def change_text(change: FieldChange) -> str:
    """Return one changed field as a line: ``spec.resources.memory: 64Mi -> 96Mi``."""
    if change.old is None and change.new is None:
        text = f"{change.path}: {change.what}{', value unknown' if change.unknown else ''}"
    elif change.path.endswith("]") and change.what != "changed":  # an item of a list
        item = change.new or change.old
        text = f"{change.path}: {change.what}{f' ({item})' if item else ''}"
    elif change.what == "added":
        text = f"{change.path}: unset -> {change.new}"
    elif change.what == "removed":
        text = f"{change.path}: {change.old} -> unset"
    else:
        text = f"{change.path}: {change.old} -> {change.new}"
    return f"{text} (changed outside trimtab)" if change.kind == "drift" else text


# Headlines


def headline(entry: ReviewEntry) -> str:
    """Return the effect on one object: ``replace 2 replicas, one at a time (StartFirst)``."""
    if entry.key.kind != "Service":
        return {Effect.CREATE: "create", Effect.REMOVE: "remove"}.get(
            entry.effect, entry.effect.value
        )
    parts = [*_parts(entry), *map(hold_word, entry.holds)]
    if parts:
        return ", ".join(parts)
    if entry.actions and all(isinstance(action, QuarantineWait) for action in entry.actions):
        return "quarantined"
    words = {Effect.REFUSED: "refused", Effect.WAIT: "waiting"}
    return words.get(entry.effect, "no container changes")


def _parts(entry: ReviewEntry) -> Iterator[str]:
    if entry.replaced:
        pace = "" if entry.replaced == 1 else f", {_pace(entry)}"
        yield f"replace {_replicas(entry.replaced)}{pace} ({entry.order})"
    if entry.added:
        yield f"create {_replicas(entry.added, entry.replicas)}"
    if entry.removed:
        yield f"remove {_replicas(entry.removed)}"
    if entry.stopped:
        yield f"stop {_replicas(entry.stopped)}"
    if entry.started:
        yield f"start {_replicas(entry.started)}"
    if entry.updated and not entry.replaced:
        yield f"update {_replicas(entry.updated)} in place"


def _pace(entry: ReviewEntry) -> str:
    return "one at a time" if entry.at_once == 1 else f"{entry.at_once} at a time"


def _replicas(count: int, of: int = 0) -> str:
    if count < of:
        return f"{count} of {of} replicas"
    return f"{count} replica" if count == 1 else f"{count} replicas"


# Steps


def _causes(entry: ReviewEntry) -> list[str]:
    """Return the causes, once each. A cause visible in the changed fields is left out."""
    told_by_fields = any(each.changes for each in entry.differences)
    changed = {change.path for each in entry.differences for change in each.changes}
    wanted = entry.effect is Effect.CREATE or "spec.replicas" in changed
    causes = dict.fromkeys(
        action.cause
        for action in entry.actions
        if not isinstance(
            action, Wait | ConnectNetwork | CreateNetwork | CreateVolume | DeliverFiles | PullImage
        )
        and not _makes_way(action)
        and not action.cause.endswith(TAKES_ADDRESS)
        and not (told_by_fields and action.cause.startswith("revision is "))
        and not (told_by_fields and ", admitted " in action.cause)
        and not (wanted and action.cause.endswith(" is missing"))
    )
    return [*causes]


def _steps(actions: Iterable[AnyAction]) -> Iterator[str]:
    """Yield the actions, one line for successive actions on a target. Denied ones are left out."""
    target, words = "", list[str]()
    sequence = [a for a in actions if not is_denied(a) and not _makes_way(a)]
    for index, action in enumerate(sequence):
        follower = sequence[index + 1] if index + 1 < len(sequence) else None
        word = _word(action, follower)
        if action.target != target and words:
            yield f"{target}: {', '.join(words)}"
            words = []
        target = action.target
        if word and word not in words[-1:]:
            words.append(word)
    if words:
        yield f"{target}: {', '.join(words)}"


def _makes_way(action: AnyAction) -> bool:
    """Return True if an action belongs to a connect that takes a name and an address over."""
    leaves = isinstance(action, DisconnectNetwork) and action.cause.startswith(TAKES_NAME)
    return leaves or (isinstance(action, ConnectNetwork) and TAKES_ADDRESS in action.cause)


def _size(action: AnyAction) -> str:
    size = action.size if isinstance(action, CreateVolume) else None
    return "" if size is None else f" of {format_bytes(size)}"


def _word(action: AnyAction, follower: AnyAction | None) -> str:
    """Return a short word for an action; '' for a part of the following action."""
    same = follower is not None and follower.target == action.target
    match action:
        case UpdateContainer() if same and isinstance(follower, StopContainer):
            return ""
        case DisconnectNetwork() if same and isinstance(follower, ConnectNetwork):
            return ""
        case DisconnectNetwork():
            return f"leave {action.network}"
        case ConnectNetwork() if action.cause.startswith(TAKES_NAME):
            return action.cause.replace("takes", "take", 1)
        case ConnectNetwork():
            return f"join {action.network}"
        case SignalContainer():
            return f"send {action.signal}"
        case RenameContainer():
            return f"rename to {action.name}"
        case Wait():
            return f"wait ({action.cause})"
        case CreateNetwork() | CreateVolume() | DeliverFiles():
            return f"{action.verb.replace('-', ' ')}{_size(action)}"
        case _:
            return action.verb.partition("-")[0]


def _refusals(actions: Iterable[AnyAction]) -> Iterator[dict[str, object]]:
    """Yield the actions that the policy denies, or only warns about, once for each reason."""
    actions = tuple(actions)
    known: set[tuple[str, ...]] = set()
    warned = [action for action in actions if action.verdict.decision == "audit-deny"]
    for action in (*refusals(actions), *warned):
        verdict = action.verdict
        reason = (verdict.decision, *verdict.rules, verdict.reason)
        if reason not in known:
            known.add(reason)
            yield {"action": action.verb, "target": action.target, **verdict_json(verdict)}
