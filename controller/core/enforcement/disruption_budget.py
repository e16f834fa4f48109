"""The blast radius: how much of what runs the controller may leave without a running slot.

Of the services that run, or that the controller took down in the last 10 minutes, at most
``share`` may be down by its own doing at a time. A service that runs again, or whose other slot
runs, isn't counted. Pure: the broker judges by what it looked up, the loop by what it knows, so
that the controller holds itself to the same number before it meets the gate's.

An approval by an operator passes what is beyond that: for the objects that it names, each once, in
mutations that are part of the plan that it is bound to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from controller.core.engine_api.requests import Finding
from controller.model.desired.plan import (
    AnyAction,
    Plan,
    RemoveContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
)
from controller.model.inventory import TAKEN_MAX, Approval
from controller.model.observed import Container, Observed

RULE: Final = "blast.radius"
#: How long a service that was taken down counts while it doesn't run again, in seconds.
WINDOW_S: Final = 600.0
#: So many services may always be down; beyond it, 30 % of them.
FREE: Final = 3
PERCENT: Final = 30
_SHOWN_MAX = 5

APPROVAL_S: Final = 3600.0
OBJECTS_MAX: Final = 1000
NOTE_MAX: Final = 512

_PLAN = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OBJECT = re.compile(r"[0-9a-f]{64}|volume:[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)
_MEMBERS = frozenset({"act", "plan", "objects", "note"})

#: What a mutation takes: nothing that runs, a slot whose service runs on, or its service.
RemovalScope = Literal["", "slot", "service"]


@dataclass(frozen=True, slots=True)
class RunningReplica:
    """A container of the controller's that runs."""

    container: str
    service: str  # NAMESPACE/NAME


@dataclass(frozen=True, slots=True)
class RecentRemoval:
    """A container that the controller had taken down, and how long ago.

    ``last`` tells that its service was left without a running slot by that, unapproved. It counts
    as not running, also while the engine still shows it, since a signal takes its time; unless it
    was ``down`` once, so that it was started since.
    """

    container: str
    service: str
    last: bool
    age_s: float
    down: bool = False


@dataclass(frozen=True, slots=True)
class BudgetDecision:
    """The decision on one mutation; with a finding it is beyond the share."""

    takes: RemovalScope
    finding: Finding | None = None


def share(total: int) -> int:
    """Return how many of *total* services may be down at a time."""
    return max(FREE, total * PERCENT // 100)


def judge(
    target: RunningReplica,
    *,
    starting: bool,
    running: Iterable[RunningReplica],
    recent: Iterable[RecentRemoval],
) -> BudgetDecision:
    """Judge a mutation that takes *target* down.

    Args:
        target: what is acted on; that is free unless it runs, or is *starting*.
        starting: a start of it is under way.
        running: what the engine shows as running.
        recent: what the controller took down before, at any time.
    """
    shown = frozenset(running)
    if target not in shown and not starting:
        return BudgetDecision("")
    up = {slot.container for slot in shown}
    fresh = [r for r in recent if r.age_s < WINDOW_S and not (r.down and r.container in up)]
    going = {each.container: each for each in fresh}
    if target.container in going:  # that it goes is counted already, or was free
        return BudgetDecision("service" if going[target.container].last else "slot")
    staying = [slot for slot in shown if slot.container not in going]
    if any(slot.service == target.service and slot != target for slot in staying):
        return BudgetDecision("slot")
    if len(going) >= TAKEN_MAX:
        return BudgetDecision("service", _too_many())
    serving = {slot.service for slot in staying}
    ages: dict[str, float] = {}
    for each in fresh:
        if each.last and each.service not in serving:
            ages[each.service] = min(each.age_s, ages.get(each.service, WINDOW_S))
    return BudgetDecision("service", over(target.service, down=ages, running=serving))


def over(service: str, *, down: Mapping[str, float], running: Iterable[str]) -> Finding | None:
    """Return why *service* may not be taken down as well, or None when it may.

    *down* has the services that are down by the controller's doing, each with its age in seconds;
    *running* those that run, *service* among them.
    """
    others = {name: age for name, age in down.items() if name != service}
    total = len({*running, *others, service})
    if len(others) + 1 <= share(total):
        return None
    names = sorted(others)
    shown = ", ".join(names[:_SHOWN_MAX])
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    reason = (
        f"{service} would be one more of {total} services without a running slot: the controller "
        f"took down {shown}{more} within 10 minutes, and may at most {share(total)}"
    )
    wait_s = free_in_s(others, total=total)
    remedy = (
        "look at 'trimtab plan' and approve it with 'trimtab approve', let one of them run again, "
        f"or wait {max(1, round(wait_s))} s"
    )
    return Finding(RULE, "", reason, remedy)


def free_in_s(down: Mapping[str, float], *, total: int) -> float:
    """Return in how many seconds one more service may be down, if none of *down* runs again."""
    oldest_first = sorted(down.values(), reverse=True)
    for gone, age_s in enumerate(oldest_first, 1):
        if len(oldest_first) - gone + 1 <= share(total - gone):
            return max(0.0, WINDOW_S - age_s)
    return 0.0


def _too_many() -> Finding:
    reason = f"the controller took down {TAKEN_MAX} containers within 10 minutes"
    return Finding(RULE, "", reason, "wait until the first of them is 10 minutes ago")


# What the loop asks in advance


def last_slots(actions: Iterable[AnyAction], containers: Iterable[Container]) -> frozenset[str]:
    """Return the containers whose stop, in this order, leaves their service without a running slot.

    *actions* are one service's, *containers* what it has; each action is taken to succeed.
    """
    running = {each.id for each in containers if each.running}
    found: set[str] = set()
    for action in actions:
        identifier = action.precondition.id
        match action:
            case StartContainer() | UnpauseContainer():
                running.add(identifier or action.target)
            case StopContainer() | RemoveContainer() if identifier in running:
                running.discard(identifier)
                if not running:
                    found.add(identifier)
            case _:
                pass
    return frozenset(found)


def takes_down(action: AnyAction, last: frozenset[str]) -> bool:
    """Tell whether an action begins to take down one of *last*.

    The restart policy that is taken away before a deliberate stop belongs to it.
    """
    halts = isinstance(action, StopContainer | RemoveContainer) or (
        isinstance(action, UpdateContainer) and action.restart == "no"
    )
    return halts and action.precondition.id in last


# Approvals


def read_approval(body: Mapping[str, object]) -> tuple[str, tuple[str, ...], str] | str:
    """Return plan, objects and note of an approval that is asked for, or what is wrong with it."""
    plan, objects, note = body.get("plan"), body.get("objects"), body.get("note", "")
    if not body.keys() <= _MEMBERS:
        return f"it has no member {min(body.keys() - _MEMBERS)!r:.64}"
    if not isinstance(plan, str) or not _PLAN.fullmatch(plan):
        return "plan isn't the digest of a plan: 64 hex digits"
    if not isinstance(note, str) or len(note) > NOTE_MAX:
        return f"note isn't a text of at most {NOTE_MAX} characters"
    if not isinstance(objects, list) or not 1 <= len(objects) <= OBJECTS_MAX:
        return f"objects isn't a list of 1 to {OBJECTS_MAX}"
    for each in objects:
        if not isinstance(each, str) or not _OBJECT.fullmatch(each):
            return "an object is a container's full id, or volume:NAME"
    if len(set(objects)) < len(objects):
        return "an object is named twice"
    return plan, tuple(objects), note


def approval_for(
    subject: str, *, plan: str, approvals: Iterable[tuple[Approval, float]]
) -> Approval | None:
    """Return the approval that lets a mutation of *subject* pass, as part of *plan*.

    *approvals* come with their ages in seconds; one that seems to be of the future isn't used.
    """
    for approval, age_s in approvals:
        fits = approval.plan == plan and subject in approval.objects
        if fits and 0 <= age_s < APPROVAL_S and subject not in approval.used:
            return approval
    return None


@dataclass(frozen=True, slots=True)
class PlannedRemoval:
    """A container that a plan takes down, or would once it is approved: what an approval names."""

    service: str
    container: str  # its name
    id: str
    why: str


def going(plan: Plan, observed: Observed) -> tuple[PlannedRemoval, ...]:
    """Return what an approval of *plan* is about: what it takes down, and what it holds back.

    Each container stands there once, by service and name.
    """
    names = {each.id: each.name for each in observed.containers}
    found: dict[str, PlannedRemoval] = {}
    for action in plan.actions:
        takes = isinstance(action, StopContainer | RemoveContainer)
        if takes and not _is_denied(action):
            identifier = action.precondition.id
            name = names.get(identifier, action.target)
            found.setdefault(
                identifier, PlannedRemoval(str(action.object), name, identifier, action.cause)
            )
    held_back = {blocked.key: blocked for blocked in plan.blocked}
    for each in observed.containers:
        blocked = held_back.get(each.key)
        if blocked is not None and each.origin == "controller":
            found.setdefault(
                each.id, PlannedRemoval(str(each.key), each.name, each.id, blocked.reason)
            )
    return tuple(sorted(found.values(), key=lambda one: (one.service, one.container)))


def _is_denied(action: AnyAction) -> bool:
    return action.verdict.decision == "deny"
