"""Whether resources are as declared: one answer for ``status``, ``apply`` and the outcomes of commits.

Pure, on the rows of a status report. This module imports no other: ``status`` and the parent of ``up`` read it at
their start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

#: The conditions of a resource that can't be brought to its declared state, the gravest first.
FAILED: Final = (
    "RolledBack",
    "Paused",
    "Stalled",
    "CrashLoop",
    "PrunePending",
    "Failed",
    "PolicyViolation",
)
#: The reasons of Ready if a document or a task has failed for good.
_FAILED_REASONS: Final = frozenset({"Blind", "Failed"})


class Word(StrEnum):
    """How a resource, or everything, stands."""

    AS_DECLARED = "as declared"
    #: trimtab goes on by itself, or has still to begin.
    UNDER_WAY = "under way"
    #: An operator's suspension keeps the resource from what its document says.
    SUSPENDED = "suspended"
    #: A person must act.
    FAILED = "failed"
    #: Nobody has looked yet, or the engine can't be reached.
    UNKNOWN = "unknown"


#: The states of Git sources in which no person must act (``model.sources``, which a controller without sources doesn't
#: load). Unknown: the fetcher hasn't reported yet.
_SOURCES: Final = {
    "Ready": Word.AS_DECLARED,
    "Suspended": Word.AS_DECLARED,
    "Pending": Word.UNDER_WAY,
    "Unknown": Word.UNDER_WAY,
}
#: The resource isn't as declared, and nothing more happens by itself.
ENDED: Final = frozenset({Word.FAILED.value, Word.SUSPENDED.value})


@dataclass(frozen=True, slots=True)
class Standing:
    """How a resource stands, with the condition that says so; both '' for none."""

    word: Word
    condition: str = ""
    reason: str = ""
    message: str = ""


def standing_of(row: Mapping[str, Any]) -> Standing:
    """Return how the resource of a report's row stands."""
    conditions = {each["type"]: each for each in row["conditions"]}
    true = {name: each for name, each in conditions.items() if each["status"] == "True"}
    for name in FAILED:
        if name in true:
            return _reason_of_standing(Word.FAILED, true[name])
    if "Quarantined" in true:
        # Nothing declares the resource any more, and its removal is only a matter of time.
        return Standing(Word.AS_DECLARED)
    # A Release is never acted on itself.
    is_behind = row["kind"] == "Service" and row.get("observedGeneration", 0) < row.get(
        "generation", 0
    )
    if "Ready" in true and "Progressing" not in true and not is_behind:
        return Standing(Word.AS_DECLARED)
    ready = conditions.get("Ready", {"status": "False", "type": "Ready"})
    if ready.get("reason") in _FAILED_REASONS:
        return _reason_of_standing(Word.FAILED, ready)
    if ready["status"] == "Unknown":
        return _reason_of_standing(Word.UNKNOWN, ready)
    if "Suspended" in true:
        return _reason_of_standing(Word.SUSPENDED, true["Suspended"])
    return _reason_of_standing(Word.UNDER_WAY, true.get("Progressing", ready))


def _reason_of_standing(word: Word, condition: Mapping[str, str]) -> Standing:
    reason, message = condition.get("reason", ""), condition.get("message", "")
    return Standing(word, condition["type"], reason, message)


def worst_of(row: Mapping[str, Any]) -> tuple[str, Mapping[str, str]]:
    """Return the word of a row's worst condition, and the condition; {} if the row lacks it.

    The word is the condition's type; ``NotReady`` for Ready that isn't true.
    """
    worst: Mapping[str, str] = next(
        (each for each in row["conditions"] if each["type"] == row["worst"]), {}
    )
    is_true = worst.get("status", "True") == "True"
    return (row["worst"] if is_true else f"Not{row['worst']}"), worst


def everything(report: Mapping[str, Any], *, rows_only: bool = False) -> Word:
    """Return how everything in a report stands: ``UNKNOWN`` unless all of it was read.

    *rows_only*: a report of chosen resources, for which problems and sources don't count.
    """
    words = {standing_of(row).word for row in report["resources"]}
    if "unread" in report or Word.UNKNOWN in words:
        return Word.UNKNOWN
    if rows_only:
        return _gravest(words)
    if any(problem["severity"] == "error" for problem in report["problems"]):
        return Word.FAILED
    return _gravest(words | {word_of_source(each) for each in report.get("sources", ())})


def word_of_source(source: Mapping[str, Any]) -> Word:
    """Return how a Git source of a report stands."""
    return _SOURCES.get(str(source.get("state")), Word.FAILED)


def _gravest(words: Iterable[Word]) -> Word:
    found = frozenset(words)
    return next((word for word in reversed(Word) if word in found), Word.AS_DECLARED)


def unmet(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the resources of a report that aren't as declared, with the reasons."""
    standings = ((row, standing_of(row)) for row in report["resources"])
    return [
        {
            "object": f"{row['kind']}/{row['namespace']}/{row['name']}",
            "standing": standing.word.value,
            "condition": standing.condition,
            "reason": standing.reason,
            "message": standing.message,
        }
        for row, standing in standings
        if standing.word is not Word.AS_DECLARED
    ]
