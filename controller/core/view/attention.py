"""How urgent the state of a resource is, what happens next, and who must act.

Pure, on the rows of a status report. The tables here are the only place that decides it: status, page, JSON,
metrics and notifications read the members that ``attended`` adds to a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from controller.core.status.standing import Word, everything, standing_of, word_of_source


class Urgency(StrEnum):
    """How urgent the state of a resource is, in rising order."""

    OK = "ok"
    #: trimtab is at work, or waits for a known thing.
    PROGRESS = "progress"
    #: A person must act, or should look, at a time of their choice.
    WARNING = "warning"
    #: A person must act, and the resource doesn't serve as declared meanwhile.
    PAGE = "page"


class Who(StrEnum):
    """Who must act next."""

    NOBODY = "nobody"
    TRIMTAB = "trimtab"
    #: Who runs the host: with root, or as an operator of the policy.
    OPERATOR = "operator"
    #: Who writes the document.
    AUTHOR = "author"


_NOBODY, _TRIMTAB, _OPERATOR, _AUTHOR = Who.NOBODY, Who.TRIMTAB, Who.OPERATOR, Who.AUTHOR
_OK, _PROGRESS, _WARNING, _PAGE = Urgency.OK, Urgency.PROGRESS, Urgency.WARNING, Urgency.PAGE


@dataclass(frozen=True, slots=True)
class Attention:
    """The worst condition of a resource, how urgent it is, and what follows."""

    #: The type of the condition.
    worst: str
    severity: Urgency
    #: What happens next, in our words and names of resources: no other text of a document, an image or a container.
    next: str
    who: Who


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a true condition means for people. ``reason`` '': any reason without a row of its own."""

    condition: str
    reason: str
    severity: Urgency
    #: While the resource doesn't serve as declared.
    severity_if_down: Urgency
    who: Who
    next: str


_CORRECT = "nothing until its document is corrected"
_LOOK = "nothing until an operator removes the cause"
_TRIED = "trimtab tries again by itself"
#: Of a stalled resource whose failed action is retried.
RETRIED: Final = f"{_TRIED}; a person must remove the cause"
_WAITS = "it goes on by itself when {} ready"

#: The rows of true conditions, the gravest condition first.
MEANINGS: Final = (
    Meaning(
        "PolicyViolation",
        "effective.violated",
        _PAGE,
        _PAGE,
        _OPERATOR,
        "nothing until an operator finds who changes the container past the gate",
    ),
    Meaning(
        "PolicyViolation",
        "",
        _WARNING,
        _PAGE,
        _AUTHOR,
        "what runs is left as it is, until its document or the policy is changed",
    ),
    Meaning(
        "PrunePending",
        "",
        _WARNING,
        _WARNING,
        _OPERATOR,
        "what would go stays until an operator approves its removal",
    ),
    Meaning("CrashLoop", "", _WARNING, _PAGE, _AUTHOR, f"{_TRIED}, after growing pauses"),
    Meaning("Failed", "", _WARNING, _WARNING, _AUTHOR, _CORRECT),
    # The families of reasons say who acts: see ``actor_of_stalled``.
    Meaning("Stalled", "", _WARNING, _PAGE, _AUTHOR, _CORRECT),
    Meaning("Stalled", "dependency.failed", _WARNING, _PAGE, _AUTHOR, _WAITS),
    Meaning(
        "Paused",
        "",
        _WARNING,
        _PAGE,
        _AUTHOR,
        "the rollout goes on once its document is corrected, or it is resumed",
    ),
    Meaning(
        "Contended",
        "",
        _WARNING,
        _WARNING,
        _OPERATOR,
        "trimtab repairs it after growing pauses, until somebody finds who changes it",
    ),
    Meaning(
        "Suspended",
        "Stopped",
        _WARNING,
        _WARNING,
        _OPERATOR,
        "nothing until an operator starts it",
    ),
    Meaning(
        "Suspended",
        "Declared",
        _WARNING,
        _WARNING,
        _AUTHOR,
        "nothing until its document ends the suspension",
    ),
    Meaning(
        "Suspended",
        "",
        _WARNING,
        _WARNING,
        _OPERATOR,
        "nothing until an operator resumes it",
    ),
    Meaning(
        "RolledBack",
        "Automatic",
        _WARNING,
        _PAGE,
        _AUTHOR,
        "the revision before goes on until its document is corrected, or it is resumed",
    ),
    Meaning(
        "RolledBack",
        "",
        _WARNING,
        _PAGE,
        _OPERATOR,
        "the chosen revision goes on until its document is changed, or it is resumed",
    ),
    # After what keeps trimtab from the repair.
    Meaning("Degraded", "", _PROGRESS, _PROGRESS, _TRIMTAB, "trimtab repairs it"),
    Meaning(
        "Scaled",
        "Limited",
        _OK,
        _OK,
        _NOBODY,
        "trimtab returns to the document's number by itself",
    ),
    Meaning(
        "Scaled",
        "",
        _WARNING,
        _WARNING,
        _OPERATOR,
        "the chosen number stays until its document's replicas are changed, or it is resumed",
    ),
    Meaning(
        "PolicyWarning",
        "",
        _WARNING,
        _WARNING,
        _AUTHOR,
        "what runs goes on; a rule in audit mode would refuse it once enforced",
    ),
    Meaning("Quarantined", "", _OK, _OK, _NOBODY, "trimtab removes it when its quarantine ends"),
    Meaning("Progressing", "Acting", _PROGRESS, _PROGRESS, _TRIMTAB, "trimtab is at work"),
    Meaning("Progressing", "Pulling", _PROGRESS, _PROGRESS, _TRIMTAB, "its image is pulled"),
    Meaning("Progressing", "Building", _PROGRESS, _PROGRESS, _TRIMTAB, "its image is built"),
    Meaning(
        "Progressing",
        "Waiting",
        _PROGRESS,
        _PROGRESS,
        _TRIMTAB,
        "trimtab waits, then goes on",
    ),
    Meaning("Progressing", "Retrying", _PROGRESS, _WARNING, _TRIMTAB, _TRIED),
    Meaning("Moved", "", _OK, _OK, _NOBODY, "the next replacement ends the former name"),
    Meaning(
        "AdoptedAsFound",
        "",
        _OK,
        _OK,
        _NOBODY,
        "its next replacement is an ordinary container",
    ),
    Meaning("EngineIgnores", "", _OK, _OK, _NOBODY, ""),
    Meaning("Complete", "", _OK, _OK, _NOBODY, ""),
    Meaning("Ready", "", _OK, _OK, _NOBODY, ""),
)
#: The rows of the condition Ready that isn't true, by reason, where no true condition says more.
NOT_READY: Final = (
    Meaning(
        "Ready",
        "Blind",
        _WARNING,
        _WARNING,
        _AUTHOR,
        "it is left as it is, until its document can be read",
    ),
    Meaning("Ready", "NotSeen", _PROGRESS, _PROGRESS, _TRIMTAB, "trimtab asks the engine"),
    Meaning(
        "Ready",
        "EngineUnavailable",
        _WARNING,
        _WARNING,
        _OPERATOR,
        "trimtab keeps trying to reach the engine; what runs isn't affected",
    ),
    Meaning("Ready", "Failed", _WARNING, _PAGE, _AUTHOR, _CORRECT),
    Meaning("Ready", "", _PROGRESS, _PROGRESS, _TRIMTAB, "trimtab looks at it again"),
)
#: Of the reasons of Stalled, the families in which whoever runs the host acts: the part before the first dot.
OPERATORS_FAMILIES: Final = frozenset(
    [
        "SourceFailing",
        "SourceHeld",
        "SourceUnreported",
        "address",
        "adopt",
        "approval",
        "blast",
        "broker",
        "container",
        "create",
        "drift",
        "effective",
        "engine",
        "events",
        "files",
        "folder",
        "forge",
        "held",
        "host",
        "internal",
        "journal",
        "network",
        "outcome",
        "peer",
        "plan",
        "policy",
        "precondition",
        "proof",
        "pull",
        "quota",
        "registry-auth",
        "release",
        "reply",
        "role",
        "secret",
        "service",
        "state",
        "system",
        "violation",
        "volume",
    ]
)
_BY_CONDITION: Final = {(row.condition, row.reason): row for row in MEANINGS}
_BY_REASON_OF_READY: Final = {row.reason: row for row in NOT_READY}
#: The conditions, the gravest first.
GRAVITY: Final = tuple(dict.fromkeys(row.condition for row in MEANINGS))


def attention_of(row: Mapping[str, Any]) -> Attention:
    """Return what the state of a report's row means for people."""
    conditions = {each["type"]: each for each in row["conditions"]}
    true = {name: each for name, each in conditions.items() if each["status"] == "True"}
    is_down = "Degraded" in true
    worst = next((true[name] for name in GRAVITY if name in true), None)
    if worst is not None and worst["type"] == "Degraded" and "Progressing" in true:
        worst = true["Progressing"]  # names the cause, and what is done about it
    ready = conditions.get("Ready", {"type": "Ready", "status": "False", "reason": ""})
    not_ready = _BY_REASON_OF_READY.get(ready["reason"]) or _BY_REASON_OF_READY[""]
    if worst is None:
        return _attention(not_ready, is_down=is_down)
    name, reason = worst["type"], worst["reason"]
    found = _BY_CONDITION.get((name, reason)) or _BY_CONDITION[name, ""]
    if name == "Stalled":
        found = _stalled(row, reason, found)
    needs_nobody = found.severity in {_OK, _PROGRESS}
    if needs_nobody and ready["status"] == "Unknown":
        return _attention(not_ready, is_down=is_down)  # nobody can say that it goes on
    return _attention(found, is_down=is_down)


def _stalled(row: Mapping[str, Any], reason: str, found: Meaning) -> Meaning:
    """Return the row of the table for a reason of Stalled, with its actor and what happens next."""
    if actor_of_stalled(reason) is Who.OPERATOR:
        found = replace(found, who=Who.OPERATOR, next=_LOOK)
    if row.get("nextTry", {}).get("reason", "").startswith(f"{reason}:"):
        return replace(found, next=RETRIED)
    return replace(found, next=_WAITS.format(_awaited(row))) if found.next == _WAITS else found


def _awaited(row: Mapping[str, Any]) -> str:
    """Return the resources that a row waits for, with the verb: ``db is``, ``a, b and 2 others are``."""
    keys = [key.split("/") for key in row.get("waitsFor", ())]
    names = [name if space == row["namespace"] else f"{space}/{name}" for _, space, name in keys]
    match names:
        case []:
            return "what it depends on is"
        case [name]:
            return f"{name} is"
        case [first, second]:
            return f"{first} and {second} are"
        case [first, second, *others]:
            return f"{first}, {second} and {len(others)} more are"
        case _:
            raise AssertionError(names)


def actor_of_stalled(reason: str) -> Who:
    """Return who must act for a reason of Stalled."""
    family = reason.partition(".")[0].partition(",")[0]
    return Who.OPERATOR if family in OPERATORS_FAMILIES else Who.AUTHOR


def _attention(meaning: Meaning, *, is_down: bool) -> Attention:
    severity = meaning.severity_if_down if is_down else meaning.severity
    return Attention(meaning.condition, severity, meaning.next, meaning.who)


def attended(row: Mapping[str, Any]) -> dict[str, object]:
    """Return a report's row with the members ``worst``, ``severity``, ``next`` and ``who``."""
    attention = attention_of(row)
    return {
        **row,
        "worst": attention.worst,
        "severity": attention.severity.value,
        "next": attention.next,
        "who": attention.who.value,
    }


class State(StrEnum):
    """How everything stands, in one word."""

    AS_DECLARED = "AsDeclared"
    CONVERGING = "Converging"
    #: A person must act.
    ATTENTION = "Attention"
    #: Nobody has looked yet, or the engine can't be reached.
    UNKNOWN = "Unknown"


_STATES: Final = {
    Word.AS_DECLARED: State.AS_DECLARED,
    Word.UNDER_WAY: State.CONVERGING,
    Word.SUSPENDED: State.ATTENTION,
    Word.FAILED: State.ATTENTION,
    Word.UNKNOWN: State.UNKNOWN,
}


def state_of(report: Mapping[str, Any], *, rows_only: bool = False) -> dict[str, object]:
    """Return the member ``state``: word, sentence and counts of a report with attended rows.

    *rows_only*: a report of chosen resources, for which problems and sources don't count.
    """
    rows = report["resources"]
    word = _STATES[everything(report, rows_only=rows_only)]
    counts = {each.value: sum(row["severity"] == each.value for row in rows) for each in Urgency}
    as_declared = sum(standing_of(row).word is Word.AS_DECLARED for row in rows)
    problems = sum(each["severity"] == "error" for each in report["problems"])
    held = sum(word_of_source(each) is Word.FAILED for each in report.get("sources", ()))
    counts |= {"total": len(rows), "asDeclared": as_declared}
    counts |= {"problems": problems, "sources": held}
    return {"word": word.value, "text": _sentence(word, counts), "counts": counts}


def _sentence(word: State, counts: Mapping[str, int]) -> str:
    total, as_declared = counts["total"], counts["asDeclared"]
    share = f"{as_declared} of {total} resources are as declared"
    looks = counts[Urgency.WARNING] + counts[Urgency.PAGE]
    more = f"; a person should look at {looks}." if looks else "."
    match word:
        case State.AS_DECLARED:
            return (
                f"All {total} resources are as declared{more}" if total else "Nothing is declared."
            )
        case State.CONVERGING:
            work = "is at work on the others" if as_declared < total else "reads a Git source"
            return f"{share}; trimtab {work}{more}"
        case State.ATTENTION:
            return f"{share}; a person must act."
        case State.UNKNOWN:
            return "The state is unknown: not everything could be read."
