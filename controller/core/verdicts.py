"""From what the rules found to a verdict, and what goes with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.core.bodies import Finding
from controller.model.observed import Settings
from controller.model.plan import Verdict

#: Findings that say that the request isn't one at all.
MALFORMED = "body."
_TOLD_MAX = 5
#: A refused request may hold anything, at any length; what is told of it is bounded.
_REASON_MAX = 600


@dataclass(frozen=True, slots=True)
class Change:
    """Something that the gate adds to what was asked for: the rule, and a sentence."""

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Admission:
    """The verdict on a mutation and, unless it is denied, what to forward and to record.

    ``body`` and ``query`` are rebuilt from typed values, in canonical case. ``malformed`` tells
    that the request isn't one that the engine could have answered (400 instead of 403).
    ``warnings`` are what is admitted and yet better avoided.
    """

    verdict: Verdict
    body: dict[str, object] | None = None
    query: tuple[tuple[str, str], ...] = ()
    summary: dict[str, object] = field(default_factory=dict)
    settings: Settings | None = None
    malformed: bool = False
    warnings: tuple[str, ...] = ()


def denied(findings: Iterable[Finding], summary: dict[str, object] | None = None) -> Admission:
    """Return the refusal for what was found; there is something."""
    found = list(findings)
    assert found, "a refusal without a reason"
    malformed = found[0].rule.startswith(MALFORMED)
    return Admission(verdict_of(found), summary=summary or {}, malformed=malformed)


def verdict_of(
    denials: Iterable[Finding], changes: Iterable[Change] = (), exceptions: tuple[str, ...] = ()
) -> Verdict:
    """Return the verdict of what was found."""
    found, added = list(denials), list(changes)
    if found:
        first = found[0]
        reason = f"{first.path}: {first.reason}" if first.path else first.reason
        others = ", ".join(f"{one.rule} at {one.path}" for one in found[1:_TOLD_MAX])
        more = f"; also {others}" if others else ""
        more += f" and {len(found) - _TOLD_MAX} more" if len(found) > _TOLD_MAX else ""
        rules = tuple(dict.fromkeys(one.rule for one in found))
        return Verdict("deny", rules, shortened(reason) + shortened(more), first.remedy)
    rules = tuple(dict.fromkeys([*exceptions, *(change.rule for change in added)]))
    texts = tuple(change.text for change in added)
    return Verdict("mutate" if added else "allow", rules, mutations=texts)


def shortened(text: str, most: int = _REASON_MAX) -> str:
    """Return at most *most* characters of a text, with a mark where it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
