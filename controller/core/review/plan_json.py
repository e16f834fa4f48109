"""A reviewed plan as JSON: ``plan --json`` and ``diff --json``.

Values are left out if they can be secret. Such a change has ``changed``, ``added`` or ``removed``
instead of ``old`` and ``new``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller.core.review.flat_plan import to_json
from controller.core.review.plan_text import change_text
from controller.core.review.review import is_different
from controller.core.review.summary import downtime_json, summary_of
from controller.model.desired import field_changes


def review_json(review: field_changes.Review) -> dict[str, object]:
    """Return the shape of ``plan --json``: the plan, its summary, and its objects."""
    return {
        **to_json(review.plan),
        "summary": summary_of(review).to_json(),
        "objects": [_entry(entry) for entry in review.entries],
        **({"hints": list(review.hints)} if review.hints else {}),
    }


def differences_json(review: field_changes.Review) -> dict[str, object]:
    """Return the different fields in the shape of ``diff --json``."""
    entries = sorted(review.entries, key=lambda entry: entry.key)
    return {
        "objects": [
            {
                "object": str(entry.key),
                **({"removed": True} if entry.effect is field_changes.Effect.REMOVE else {}),
                "changes": changes_json(entry.differences),
            }
            for entry in entries
            if is_different(entry)
        ]
    }


def _entry(entry: field_changes.ReviewEntry) -> dict[str, object]:
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
        "slots": {name: count for name, count in slots.items() if count},
        "changes": changes_json(entry.differences),
    }
    if entry.is_new:
        shown["new"] = True
    if entry.order is not None:
        shown["order"] = entry.order
    if entry.source is not None:
        shown["source"] = {"file": entry.source.file, "line": entry.source.line}
    if entry.downtime is not None:
        shown["downtime"] = downtime_json(entry.downtime)
    if entry.new_addresses_on is not None:
        shown["newAddressesOn"] = list(entry.new_addresses_on)
    if notes := [each.note for each in entry.differences if each.note is not None]:
        shown["notes"] = notes
    return shown


def changes_json(differences: Iterable[field_changes.ServiceDifference]) -> list[dict[str, object]]:
    """Return changed fields, each with its revision and containers."""
    return [
        {**_change(change), **dict(_found_in(difference))}
        for difference in differences
        for change in difference.changes
    ]


def _change(change: field_changes.FieldChange) -> dict[str, object]:
    shown: dict[str, object] = {
        "path": change.path,
        "kind": change.kind,
        "text": change_text(change),
    }
    if change.sensitive:
        return {**shown, change.what: True}
    return {**shown, "old": change.old, "new": change.new}


def _found_in(difference: field_changes.ServiceDifference) -> Iterator[tuple[str, object]]:
    if difference.origin is not None:
        yield "revision", difference.origin
    if difference.containers:
        yield "containers", list(difference.containers)
    if difference.held:
        yield "held", True
