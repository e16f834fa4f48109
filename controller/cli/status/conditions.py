"""The conditions of a resource for people: a word and a message."""

from __future__ import annotations

import re
from typing import Any

import click

from controller.cli.output.user_names import with_names

#: Conditions that need attention, the gravest first, with their colours. First the action of the
#: user: change a document or the policy, approve a removal, repair a failure; then conditions that
#: trimtab repairs; then choices of users.
GRAVE = {
    "PolicyViolation": "red",
    "PrunePending": "yellow",
    "CrashLoop": "red",
    "Failed": "red",
    "Stalled": "red",
    "Paused": "red",
    "Contended": None,
    "Degraded": "yellow",
    "Suspended": "yellow",
    "RolledBack": "yellow",
    "PolicyWarning": "yellow",
    "Quarantined": "yellow",
    "Moved": None,
}
#: Of a Ready service with containers as they were found: not grave, but worth a word.
ADOPTED = "AdoptedAsFound"
#: The word, and the reason of Suspended, of a service that 'trimtab stop' stopped.
STOPPED = "Stopped"
#: The words of resources that need no attention.
SETTLED = frozenset({"Ready", "Completed", ADOPTED})
COLOURS = {
    **dict.fromkeys(SETTLED, "green"),
    "Progressing": "cyan",
    STOPPED: "yellow",
    **GRAVE,
}
#: Reasons of Progressing while an image comes, which are shown with every grave condition.
_IMAGE_COMES = ("Pulling", "Building")
#: Reasons of Progressing that explain Degraded.
_CAUSES = (*_IMAGE_COMES, "Retrying", "Waiting")

#: The reason of Stalled and Paused after a failed rollout. A crash loop has the same failures as cause.
ROLLOUT_FAILED = "rollout.failed"
_REMEDY = re.compile(r"\(([^()]*)\)$")
#: The table shows the time of the next try by itself.
_NEXT_TRY = re.compile(r", next try at \d[\d:TZ.-]*")

Resource = dict[str, Any]
Conditions = list[dict[str, str]]


def conditions_of(resource: Resource) -> Conditions:
    """Return the true conditions that need attention, the gravest first, else Ready or Progressing."""
    true = {c["type"]: c for c in resource["conditions"] if c["status"] == "True"}
    grave = [true[name] for name in GRAVE if name in true]
    progressing = true.get("Progressing", {})
    if [c["type"] for c in grave] == ["Degraded"] and _is_first_rollout(resource, progressing):
        return [progressing]  # nothing is worse than before
    # The message of Degraded, "0 of 1 running", has no cause; the message of Progressing has one.
    is_unexplained = [c["type"] for c in grave] == ["Degraded"]
    if progressing.get("reason") in (_CAUSES if is_unexplained else _IMAGE_COMES):
        grave.append(progressing)
    if grave:
        return grave
    if "Ready" in true and ADOPTED in true:
        return [true[ADOPTED]]
    for name in ("Ready", "Progressing"):
        if name in true:
            return [true[name]]
    return [c for c in resource["conditions"] if c["type"] == "Ready"][:1]


def _is_first_rollout(resource: Resource, progressing: dict[str, str]) -> bool:
    """Return True if a new service is being created, and nothing has failed so far."""
    is_new = resource.get("generation", 0) > 0 == resource.get("observedGeneration", 0)
    has_failed = "nextTry" in resource or any(
        slot.get("cause") for slot in resource.get("slots", [])
    )
    reasons = ("Acting", "Waiting", *_IMAGE_COMES)
    return is_new and not has_failed and progressing.get("reason") in reasons


def word_of(resource: Resource) -> str:
    """Return a resource's gravest condition as a word, such as ``Ready`` or ``NotReady``."""
    conditions = conditions_of(resource)
    if not conditions:
        return "-"
    gravest = conditions[0]
    if gravest["status"] != "True":
        return f"Not{gravest['type']}"
    if gravest["type"] == "Suspended" and gravest.get("reason") == STOPPED:
        return STOPPED
    return "Completed" if gravest["type"] == "Ready" and is_completed(resource) else gravest["type"]


def is_settled(resource: Resource) -> bool:
    """Return True if the resource is Ready or Completed, and no condition needs attention."""
    return word_of(resource) in SETTLED


def is_completed(resource: Resource) -> bool:
    """Return True if every container of the resource, a task, has ended; a job has a condition."""
    if resource.get("kind") == "Job":
        return any(
            c["type"] == "Complete" and c["status"] == "True" for c in resource["conditions"]
        )
    slots = resource.get("slots", [])
    return bool(slots) and all(slot["state"] == "exited" for slot in slots)


def message_of(resource: Resource) -> str:
    """Return the number of replicas with a container that is being replaced, and the messages of conditions."""
    earlier = resource.get("earlier", 0)
    messages = messages_of(conditions_of(resource))
    if not earlier:
        return messages
    old = f"{earlier} of {resource['desired']} replicas still run the previous container"
    return f"{old}; {messages}" if messages else old


def messages_of(conditions: Conditions) -> str:
    """Return the messages of conditions, each once, without repeating columns of the table."""
    names = {c["type"] for c in conditions}
    useful = [c for c in conditions if not _is_redundant(c, names)]
    messages = dict.fromkeys(text for c in useful if (text := _text_of(c, names)))
    longest = (m for m in messages if not any(m != other and m in other for other in messages))
    return with_names(_NEXT_TRY.sub("", "; ".join(longest)))


def _text_of(condition: dict[str, str], names: set[str]) -> str:
    """Return a condition's message, without the log below; of a failed rollout in a crash loop the remedy."""
    message = condition["message"].partition("\n")[0]
    if "CrashLoop" in names and condition["reason"] == ROLLOUT_FAILED:
        remedy = _REMEDY.search(message)
        return remedy[1] if remedy else ""
    return message


def _is_redundant(condition: dict[str, str], names: set[str]) -> bool:
    match condition:
        case {"type": "Ready", "reason": "AsDeclared" | "NotReady"}:
            return True  # the column READY has "1 of 2 ready"
        case {"type": "Degraded", "reason": "TooFew", "message": message}:
            return len(names) > 1 and ";" not in message  # likewise "1 of 2 running"
        case {"type": "Stalled", "reason": reason}:
            return reason in names  # the condition of that name has the same message
        case _:
            return False


def styled(word: str) -> str:
    """Return a condition's word in its colour; click strips colours if output isn't a terminal."""
    return click.style(word, fg=COLOURS.get(word))
