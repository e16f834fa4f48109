"""Approvals: what an operator is asked for, how a request is read, and which mutation it admits.

An operator's approval admits removals beyond the disruption budget: once for each object that the
approval names, and only in mutations of the plan to which the approval is bound. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from controller.model.inventory import VOLUME, Approval
from controller.model.mutations import move_subject
from controller.model.names import Key, qualified
from controller.model.observed import Observed, ObservedVolume

if TYPE_CHECKING:
    from controller.model.desired.plan import MoveService, Plan

APPROVAL_S: Final = 3600.0
OBJECTS_MAX: Final = 1000
NOTE_MAX: Final = 512

_PLAN = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OBJECT = re.compile(
    r"[0-9a-f]{64}|volume:[A-Za-z0-9][A-Za-z0-9_.-]{0,254}"
    r"|move:[a-z0-9/-]{3,100}>[a-z0-9/-]{3,100}@[a-z0-9-]{1,63}#[0-9a-f]{64}",
    re.ASCII,
)
_MEMBERS = frozenset({"act", "plan", "objects", "note"})


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
            return "an object is a container's full id, volume:NAME, or move:FROM>TO@OWNER#DIGEST"
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
    """An object of an approval: a container to take down, a volume to remove, or a move to make."""

    service: str
    container: str  # its name
    id: str
    why: str


def planned_removals(plan: Plan, observed: Observed) -> tuple[PlannedRemoval, ...]:
    """Return the objects of an approval of *plan*: containers to take down, now or once unblocked.

    Moves to another owner are objects, too. Each object appears once. Sorted by service
    and name.
    """
    # The broker reads requests here, and loads no plan.
    from controller.model.desired.plan import DisconnectNetwork, RemoveContainer, StopContainer

    names = {each.id: each.name for each in observed.containers}
    removals: dict[str, PlannedRemoval] = {}
    for action in plan.actions:
        # A service's own disconnect is healing; a network's is the begin of a remake.
        leaves = isinstance(action, DisconnectNetwork) and action.object.kind == "Network"
        takes = leaves or isinstance(action, StopContainer | RemoveContainer)
        if takes and action.verdict.decision != "deny":
            identifier = action.precondition.id
            name = names.get(identifier, action.target)
            removals.setdefault(
                identifier, PlannedRemoval(str(action.object), name, identifier, action.cause)
            )
    for key, volume in _volumes(plan, observed):
        name = f"{VOLUME}{volume.name}"
        why = f"its data goes; dumped at {volume.dumped}"
        removals[name] = PlannedRemoval(str(key), volume.name, name, why)
    for move in _moves(plan, observed):
        ids = (each.id for each in observed.of(move.source))
        name = move_subject(move.source, move.object, move.owner, ids)
        removals[name] = PlannedRemoval(str(move.object), name, name, move.cause)
    held_back = {blocked.key: blocked for blocked in plan.blocked}
    for container in observed.containers:
        blocked = held_back.get(container.key)
        if blocked is not None and container.origin == "controller":
            removal = PlannedRemoval(
                str(container.key), container.name, container.id, blocked.reason
            )
            removals.setdefault(container.id, removal)
    return tuple(sorted(removals.values(), key=lambda each: (each.service, each.container)))


def _moves(plan: Plan, observed: Observed) -> Iterator[MoveService]:
    """Yield the moves of a plan to another owner."""
    from controller.model.desired.plan import MoveService

    for action in plan.actions:
        if isinstance(action, MoveService):
            owners = {each.owner for each in observed.of(action.source)}
            if owners != {action.owner}:
                yield action


def _volumes(plan: Plan, observed: Observed) -> Iterator[tuple[Key, ObservedVolume]]:
    """Yield the dumped volumes that a plan removes, now or after an approval."""
    keys = {action.object for action in plan.actions if action.object.kind == "Volume"}
    keys |= {blocked.key for blocked in plan.blocked if blocked.key.kind == "Volume"}
    there = {volume.name: volume for volume in observed.volumes if volume.dumped}
    for key in sorted(keys):
        volume = there.get(qualified(key.namespace, key.name))
        if volume is not None and not any(volume.name in c.writes for c in observed.containers):
            yield key, volume
