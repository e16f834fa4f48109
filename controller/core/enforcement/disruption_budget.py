"""The disruption budget: how many services the controller may leave without a running slot.

The services that run, or that the controller took down in the last 10 minutes, are counted. At most
``max_unavailable`` of them may be down at a time because of the controller. A service is available
again once any of its slots runs.

Pure. The broker judges by its look-ups, and the control loop by its own knowledge. So the
controller respects the same limit before a request reaches the gate.

An operator's approval admits removals beyond the budget: once for each object that the approval
names, and only in mutations of the plan to which the approval is bound.
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
#: How long a service counts after its takedown unless it runs again, in seconds.
WINDOW_S: Final = 600.0
#: This many services may always be down, and in larger installations 30 % of all.
FREE: Final = 3
PERCENT: Final = 30
_SHOWN_MAX = 5

APPROVAL_S: Final = 3600.0
OBJECTS_MAX: Final = 1000
NOTE_MAX: Final = 512

_PLAN = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OBJECT = re.compile(r"[0-9a-f]{64}|volume:[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)
_MEMBERS = frozenset({"act", "plan", "objects", "note"})

#: The scope of a takedown: '' if the container does not run, a slot of a service that keeps
#: running, or the whole service.
RemovalScope = Literal["", "slot", "service"]


@dataclass(frozen=True, slots=True)
class RunningReplica:
    """A running container of the controller's."""

    container: str
    service: str  # NAMESPACE/NAME


@dataclass(frozen=True, slots=True)
class RecentRemoval:
    """A container that the controller took down, with its age."""

    container: str
    service: str
    #: The removal left its service without a running slot, and no approval covered it.
    last: bool
    age_s: float
    #: The container has been down since. Until then it counts as not running, although the engine
    #: still shows it: a signal takes time. If ``down`` and running, it was started again.
    down: bool = False


@dataclass(frozen=True, slots=True)
class BudgetDecision:
    """The decision on a mutation; with a finding the mutation exceeds the budget."""

    takes: RemovalScope
    finding: Finding | None = None


def max_unavailable(total: int) -> int:
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
        target: the container. Free unless it runs, or is *starting*.
        starting: a start of the container is in progress.
        running: the running containers, as the engine shows them.
        recent: the containers that the controller took down before, at any time.
    """
    shown = frozenset(running)
    if target not in shown and not starting:
        return BudgetDecision("")
    up = {slot.container for slot in shown}
    fresh = [r for r in recent if r.age_s < WINDOW_S and not (r.down and r.container in up)]
    removals = {removal.container: removal for removal in fresh}
    if target.container in removals:  # counted already, or free
        return BudgetDecision("service" if removals[target.container].last else "slot")
    staying = [slot for slot in shown if slot.container not in removals]
    if any(slot.service == target.service and slot != target for slot in staying):
        return BudgetDecision("slot")
    if len(removals) >= TAKEN_MAX:
        return BudgetDecision("service", _too_many())
    available = {slot.service for slot in staying}
    ages: dict[str, float] = {}
    for removal in fresh:
        if removal.last and removal.service not in available:
            ages[removal.service] = min(removal.age_s, ages.get(removal.service, WINDOW_S))
    return BudgetDecision("service", judge_service(target.service, down=ages, running=available))


def judge_service(
    service: str, *, down: Mapping[str, float], running: Iterable[str]
) -> Finding | None:
    """Return the finding if taking *service* down as well exceeds the budget, else None.

    *down* are the services that are down because of the controller, each with its age in seconds.
    *running* are the running services, including *service*.
    """
    others = {name: age for name, age in down.items() if name != service}
    total = len({*running, *others, service})
    if len(others) + 1 <= max_unavailable(total):
        return None
    names = sorted(others)
    shown = ", ".join(names[:_SHOWN_MAX])
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    reason = (
        f"{service} would be one more of {total} services without a running slot: the controller "
        f"took down {shown}{more} within 10 minutes, and may at most {max_unavailable(total)}"
    )
    wait_s = free_in_s(others, total=total)
    remedy = (
        "look at 'trimtab plan' and approve it with 'trimtab approve', let one of them run again, "
        f"or wait {max(1, round(wait_s))} s"
    )
    return Finding(RULE, "", reason, remedy)


def free_in_s(down: Mapping[str, float], *, total: int) -> float:
    """Return the seconds until one more service may go down, if none of *down* runs again."""
    oldest_first = sorted(down.values(), reverse=True)
    for expired, age_s in enumerate(oldest_first, 1):
        if len(oldest_first) - expired + 1 <= max_unavailable(total - expired):
            return max(0.0, WINDOW_S - age_s)
    return 0.0


def _too_many() -> Finding:
    reason = f"the controller took down {TAKEN_MAX} containers within 10 minutes"
    return Finding(RULE, "", reason, "wait until the first of them is 10 minutes ago")


# For the control loop, before a request


def last_slots(actions: Iterable[AnyAction], containers: Iterable[Container]) -> frozenset[str]:
    """Return the containers whose stop leaves their service without a running slot.

    *actions* are one service's, in this order, and each is assumed to succeed. *containers* are the
    service's containers.
    """
    running = {each.id for each in containers if each.running}
    last: set[str] = set()
    for action in actions:
        identifier = action.precondition.id
        match action:
            case StartContainer() | UnpauseContainer():
                running.add(identifier or action.target)
            case StopContainer() | RemoveContainer() if identifier in running:
                running.discard(identifier)
                if not running:
                    last.add(identifier)
            case _:
                pass
    return frozenset(last)


def takes_down(action: AnyAction, last: frozenset[str]) -> bool:
    """Return True if an action begins to take down one of *last*.

    A deliberate stop begins with the removal of the restart policy.
    """
    halts = isinstance(action, StopContainer | RemoveContainer) or (
        isinstance(action, UpdateContainer) and action.restart == "no"
    )
    return halts and action.precondition.id in last


# Approvals


def read_approval(body: Mapping[str, object]) -> tuple[str, tuple[str, ...], str] | str:
    """Return plan, objects and note of a requested approval, or a text about a fault."""
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
    """Return the approval that admits a mutation of *subject* as part of *plan*.

    *approvals* come with their ages in seconds. An approval with a negative age is not used.
    """
    for approval, age_s in approvals:
        fits = approval.plan == plan and subject in approval.objects
        if fits and 0 <= age_s < APPROVAL_S and subject not in approval.used:
            return approval
    return None


@dataclass(frozen=True, slots=True)
class PlannedRemoval:
    """A container to take down by a plan, now or after an approval."""

    service: str
    container: str  # its name
    id: str
    why: str


def planned_removals(plan: Plan, observed: Observed) -> tuple[PlannedRemoval, ...]:
    """Return the objects of an approval of *plan*: containers to take down, now or once unblocked.

    Each container appears once. Sorted by service and name.
    """
    names = {each.id: each.name for each in observed.containers}
    removals: dict[str, PlannedRemoval] = {}
    for action in plan.actions:
        takes = isinstance(action, StopContainer | RemoveContainer)
        if takes and not _is_denied(action):
            identifier = action.precondition.id
            name = names.get(identifier, action.target)
            removals.setdefault(
                identifier, PlannedRemoval(str(action.object), name, identifier, action.cause)
            )
    held_back = {blocked.key: blocked for blocked in plan.blocked}
    for container in observed.containers:
        blocked = held_back.get(container.key)
        if blocked is not None and container.origin == "controller":
            removal = PlannedRemoval(
                str(container.key), container.name, container.id, blocked.reason
            )
            removals.setdefault(container.id, removal)
    return tuple(sorted(removals.values(), key=lambda each: (each.service, each.container)))


def _is_denied(action: AnyAction) -> bool:
    return action.verdict.decision == "deny"
