"""The conditions of a resource as a person reads them: one word, and a message."""

from __future__ import annotations

from typing import Any

import click

from controller.cli.output.user_names import with_names

#: The conditions that a person should know about, in the order of what a person must do: change a document
#: or the policy, approve, repair what fails; then what trimtab works on; then what somebody chose.
GRAVEST_FIRST = (
    "PolicyViolation",
    "PrunePending",
    "CrashLoop",
    "Stalled",
    "Paused",
    "Contended",
    "Degraded",
    "Suspended",
    "RolledBack",
    "PolicyWarning",
    "Quarantined",
)
STYLES = {
    "Ready": "green",
    "Completed": "green",
    "Progressing": "cyan",
    "Degraded": "yellow",
    "Stalled": "red",
    "CrashLoop": "red",
    "Paused": "red",
    "PrunePending": "yellow",
    "Quarantined": "yellow",
    "PolicyViolation": "red",
    "PolicyWarning": "yellow",
    "Suspended": "yellow",
    "RolledBack": "yellow",
}
#: Reasons of Progressing that are shown together with a grave condition; all but the first where nothing else is.
_CAUSES = ("Pulling", "Retrying", "Waiting")

Resource = dict[str, Any]
Conditions = list[dict[str, str]]


def conditions_of(resource: Resource) -> Conditions:
    """Return the conditions that hold and that a person should know about, the gravest first."""
    true = {c["type"]: c for c in resource["conditions"] if c["status"] == "True"}
    named = [true[name] for name in GRAVEST_FIRST if name in true]
    progressing = true.get("Progressing", {})
    # "0 of 1 running" doesn't say why: what the service waits for does.
    unexplained = [c["type"] for c in named] == ["Degraded"]
    if progressing.get("reason") in (_CAUSES if unexplained else _CAUSES[:1]):
        named.append(progressing)
    if named:
        return named
    for name in ("Ready", "Progressing"):
        if name in true:
            return [true[name]]
    return [c for c in resource["conditions"] if c["type"] == "Ready"][:1]


def word_of(resource: Resource) -> str:
    """Return the one word that says how a resource is: its gravest condition."""
    shown = conditions_of(resource)
    if not shown:
        return "-"
    gravest = shown[0]
    if gravest["status"] != "True":
        return f"Not{gravest['type']}"
    return "Completed" if gravest["type"] == "Ready" and is_completed(resource) else gravest["type"]


def is_settled(resource: Resource) -> bool:
    """Return True if the resource is Ready, or a task that ended well, and nothing else is to be said."""
    return word_of(resource) in ("Ready", "Completed")


def is_completed(resource: Resource) -> bool:
    """Return True if the resource is a task of which every container has ended."""
    slots = resource.get("slots", [])
    return bool(slots) and all(slot["state"] == "exited" for slot in slots)


def message_of(resource: Resource) -> str:
    """Return what else there is to say: old replicas that still run, and why it isn't Ready."""
    earlier = resource.get("earlier", 0)
    why = why_of(conditions_of(resource))
    if not earlier:
        return why
    old = f"{earlier} of {resource['desired']} replicas still run the previous revision"
    return f"{old}; {why}" if why else old


def why_of(shown: Conditions) -> str:
    """Return the messages of conditions, each once, without what the table's columns say."""
    names = {c["type"] for c in shown}
    kept = [c for c in shown if not _says_nothing(c, names)]
    messages = dict.fromkeys(c["message"] for c in kept if c["message"])
    said = (m for m in messages if not any(m != other and m in other for other in messages))
    return with_names("; ".join(said))


def _says_nothing(condition: dict[str, str], names: set[str]) -> bool:
    match condition:
        case {"type": "Ready", "reason": "AsDeclared" | "NotReady"}:
            return True  # "1 of 2 ready" is in the column READY
        case {"type": "Degraded", "reason": "TooFew", "message": message}:
            return len(names) > 1 and ";" not in message  # so is "1 of 2 running"
        case {"type": "Stalled", "reason": reason}:
            return reason in names  # a condition of its own has the message of the last pass
        case _:
            return False


def styled(word: str) -> str:
    """Return a condition's word in its colour; click strips it where the output isn't a terminal."""
    return click.style(word, fg=STYLES.get(word))
