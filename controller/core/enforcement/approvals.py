"""Approvals: what an operator is asked for, the objects of it, and which mutation it admits.

The objects of an approval, as the broker's inventory describes them.

An operator approves what the broker shows, never what the controller says about it. The controller
only names ids. The digest of a view covers the plan and every member of every shown object, so an
approval that names the digest holds for exactly what was shown.

Pure. ``handlers.own.trimtab_api`` shows a view, and compares it again when the approval arrives.

An operator's approval admits removals beyond the disruption budget: once for each object that the
approval names, and only in mutations of the plan to which the approval is bound. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

from controller.core.encoding.identifiers import timestamp_s
from controller.core.encoding.json_values import digest
from controller.model.inventory import (
    VOLUME,
    Approval,
    ContainerItem,
    Inventory,
    OwnedObject,
    moving,
)
from controller.model.mutations import MOVE, move_subject
from controller.model.names import Key, qualified, service_key
from controller.model.observed import Observed, ObservedVolume
from controller.model.quantities import format_instant

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


#: The longest text that is looked up as an object.
OBJECT_MAX: Final = 300
#: Changes that a refusal names.
_CHANGES_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class ApprovalObject:
    """A container, a volume, or the move of a service, as the inventory has it."""

    id: str  # the full id, ``volume:NAME``, or that of ``move_subject``
    kind: Literal["container", "volume", "move"]
    name: str
    namespace: str
    service: str  # '' for a volume, and for a container of no service
    owner: str  # of a move: the owners of what moves, and the owner afterwards
    #: When the broker admitted the create: RFC 3339, UTC; '' if unknown.
    since: str
    #: The intent of the create. A volume that is created again has another one.
    intent: str
    #: The named volumes that a container mounts, or the containers that mount a volume. Of a move:
    #: the containers, and the volumes that they mount.
    mounts: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The object in a sentence, such as ``volume data``."""
        return f"{self.kind} {self.name}"

    def to_json(self) -> dict[str, object]:
        """Return the object as the broker's answer has it."""
        return {**asdict(self), "mounts": list(self.mounts)}


@dataclass(frozen=True, slots=True)
class UnknownObject:
    """An object that can't be approved."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class ApprovalView:
    """The objects that an approval of *plan* would cover."""

    plan: str
    objects: tuple[ApprovalObject, ...]
    unknown: tuple[UnknownObject, ...] = ()

    @property
    def digest(self) -> str:
        """The digest of the plan and of the known objects: 64 hex digits."""
        return digest([self.plan, [each.to_json() for each in self.objects]])


def view(inventory: Inventory, plan: str, objects: Iterable[str]) -> ApprovalView:
    """Return what the inventory knows about *objects*: full ids, and volumes as ``volume:NAME``."""
    known: list[ApprovalObject] = []
    unknown: list[UnknownObject] = []
    users = _users_of_volumes(inventory)
    for identifier in sorted(set(objects)):
        found = _describe(inventory, identifier, users)
        if isinstance(found, ApprovalObject):
            known.append(found)
        else:
            unknown.append(UnknownObject(identifier, found))
    known.sort(key=lambda each: (each.kind, each.namespace, each.service, each.name, each.id))
    return ApprovalView(plan, tuple(known), tuple(unknown))


def _users_of_volumes(inventory: Inventory) -> Mapping[str, Sequence[str]]:
    """Return container names by volume: the containers with a mount of the volume."""
    users: dict[str, list[str]] = defaultdict(list)
    for item in inventory.containers.values():
        for volume in item.volumes:
            users[volume].append(item.admitted.name)
    return users


def _describe(
    inventory: Inventory, identifier: str, users: Mapping[str, Sequence[str]]
) -> ApprovalObject | str:
    """Return an object of the inventory, or the reason why it can't be approved."""
    if identifier.startswith(VOLUME):
        volume = inventory.volumes.get(identifier.removeprefix(VOLUME))
        if volume is None:
            return "the broker doesn't know it"
        return _describe_volume(identifier, volume, users.get(volume.name, ()))
    if identifier.startswith(MOVE):
        return _describe_move(inventory, identifier)
    container = inventory.containers.get(identifier)
    if container is None:
        return "the broker doesn't know it"
    if container.origin != "controller":
        return "a client made it, and the controller isn't allowed to act on it"
    return _describe_container(container)


def _describe_container(item: ContainerItem) -> ApprovalObject:
    return ApprovalObject(
        id=item.id,
        kind="container",
        name=item.admitted.name,
        namespace=item.namespace,
        service=item.service,
        owner=item.owner,
        since=_since(item.intent),
        intent=item.intent,
        mounts=item.volumes,
    )


def _describe_move(inventory: Inventory, identifier: str) -> ApprovalObject | str:
    source, _, rest = identifier.removeprefix(MOVE).partition(">")
    target, _, rest = rest.partition("@")
    owner = rest.partition("#")[0]
    earlier, key = (service_key(*place.partition("/")[::2]) for place in (source, target))
    items = moving(inventory, earlier)
    asked = move_subject(earlier, key, owner, (item.id for item in items))
    if not items or asked != identifier:
        return "the broker knows other containers of that service, or none"
    volumes = {name for item in items for name in item.volumes}
    owners = {item.owner for item in items}
    return ApprovalObject(
        id=identifier,
        kind="move",
        name=f"{source} to {target}",
        namespace=key.namespace,
        service=key.name,
        owner=f"{', '.join(sorted(owners))} to {owner}" if owners != {owner} else owner,
        since=_since(max(item.intent for item in items)),
        intent=",".join(sorted(item.intent for item in items)),
        mounts=(*sorted(item.admitted.name for item in items), *sorted(volumes)),
    )


def _describe_volume(identifier: str, volume: OwnedObject, users: Sequence[str]) -> ApprovalObject:
    return ApprovalObject(
        id=identifier,
        kind="volume",
        name=volume.name,
        namespace=volume.namespace,
        service="",
        owner=volume.owner,
        since=_since(volume.intent),
        intent=volume.intent,
        mounts=tuple(sorted(users)),
    )


def _since(intent: str) -> str:
    made = timestamp_s(intent)
    return "" if made is None else format_instant(made)


def changes(before: ApprovalView, now: ApprovalView) -> str:
    """Return what changed between two views of the same objects, as a sentence; '' for nothing."""
    present = {each.id: each for each in now.objects}
    shown = {each.id for each in before.objects}
    sentences = [
        sentence for each in before.objects if (sentence := _change(each, present.get(each.id)))
    ]
    sentences += [f"{each.title} wasn't shown" for each in now.objects if each.id not in shown]
    if before.plan != now.plan:
        sentences.append(f"the plan is {now.plan}, not {before.plan}")
    more = len(sentences) - _CHANGES_MAX
    return "; ".join(sentences[:_CHANGES_MAX]) + (f"; and {more} more" if more > 0 else "")


def _change(before: ApprovalObject, now: ApprovalObject | None) -> str:
    if now is None:
        return f"{before.title} is gone"
    if now == before:
        return ""
    if now.intent != before.intent:
        return f"{before.title} is another one, made {now.since or 'since'}"
    old, new = before.to_json(), now.to_json()
    members = ", ".join(f"{name} is {new[name]}" for name in new if new[name] != old[name])
    return f"{before.title}: {members}"


def read_objects(value: object) -> tuple[str, ...] | str:
    """Return the ids to look up in a request, or a text about a fault.

    Any text is looked up: the controller's ids are shown as unknown, whatever they are.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= OBJECTS_MAX:
        return f"objects isn't a list of 1 to {OBJECTS_MAX}"
    if not all(isinstance(each, str) and len(each) <= OBJECT_MAX for each in value):
        return f"an object isn't a text of at most {OBJECT_MAX} characters"
    return tuple(value)


def read_digest(body: Mapping[str, object]) -> str | None:
    """Return the member ``shown`` of an approval; None if it is no digest."""
    shown = body.get("shown")
    fits = isinstance(shown, str) and len(shown) == 64 and set(shown) <= set("0123456789abcdef")
    return str(shown) if fits else None
