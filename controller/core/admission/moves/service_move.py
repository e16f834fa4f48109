"""Admission of a move: a service's containers go on under another name of the service.

Pure. A move changes the broker's inventory alone: containers keep their labels, their settings and
their processes. The controller's request is no proof of anything. So each fact is read from the
inventory, and a usurped controller can neither take another owner's service, nor merge two
services, nor leave the counts of the disruption budget.

A move to another namespace takes the volumes of the containers along, and a rollout there replaces
the containers. Such a move needs an operator, unless the policy lists the owner for both namespaces.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from controller.core.admission.dns_names import DnsNames, clashes, make_dns_names
from controller.core.engine_api.requests import Finding
from controller.core.records.operator_records import read_key
from controller.core.records.parts import ProofPart, RequestPart, SummaryPart
from controller.core.rules.confinement import mounts_volume
from controller.core.rules.identity import judge_owner
from controller.model import names
from controller.model.inventory import ContainerItem, Inventory, moving
from controller.model.mutations import SERVICE_MOVED, Mutation, move_subject
from controller.model.names import Key, is_dns_label
from controller.model.policy.document import Policy
from controller.model.records import Role

#: The form of a request, for refusals.
FORM = (
    f'{{"act": "{SERVICE_MOVED}", "object": "Service/NAMESPACE/NAME", '
    '"from": "Service/NAMESPACE/NAME", "owner": …, "volumes": […]}'
)
#: The reasons that pass by themselves.
PASSING = frozenset({"move.busy", "move.nothing"})
_MAKES = frozenset({Mutation.CONTAINER_CREATE, Mutation.CONTAINER_ADOPT})
_MEMBERS = frozenset({"act", "object", "from", "owner"})
_VOLUMES = "volumes"
_VOLUMES_MAX = 100


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """A requested move of a service."""

    source: Key
    target: Key
    #: The owner that the document under the new name declares.
    owner: str
    #: The engine's names of the volumes that the document under the new name mounts.
    volumes: frozenset[str] = field(default=frozenset())

    @property
    def is_across(self) -> bool:
        """Return True if the service goes to another namespace."""
        return self.source.namespace != self.target.namespace

    def summary(self, volumes: tuple[str, ...], proof: ProofPart) -> dict[str, object]:
        """Return the summary in the record; queries find the record by its labels."""
        return SummaryPart(
            act=SERVICE_MOVED,
            labels={
                names.NAMESPACE: self.target.namespace,
                names.SERVICE: self.target.name,
                names.OWNER: self.owner,
            },
            moved_from=str(self.source),
            moved_volumes=volumes,
            proof=proof,
        ).members


def read_move(body: Mapping[str, object]) -> MoveRequest | str:
    """Return the requested move, or a text about the fault in the body."""
    if body.keys() - {_VOLUMES} != _MEMBERS:
        return f"expected the members {', '.join(sorted(_MEMBERS))}"
    target, source = read_key(body["object"]), read_key(body["from"])
    if target is None or source is None:
        return "object and from are services: Service/NAMESPACE/NAME"
    owner = body["owner"]
    if not isinstance(owner, str) or not is_dns_label(owner, length=63):
        return "owner isn't the name of an owner"
    volumes = body.get(_VOLUMES, [])
    if not isinstance(volumes, list) or len(volumes) > _VOLUMES_MAX:
        return f"volumes isn't a list of at most {_VOLUMES_MAX} names"
    if not all(isinstance(each, str) for each in volumes):
        return f"volumes isn't a list of at most {_VOLUMES_MAX} names"
    return MoveRequest(source, target, owner, frozenset(volumes))


def subject_of(move: MoveRequest, inventory: Inventory) -> str:
    """Return the move as the object of an approval."""
    ids = (item.id for item in moving(inventory, move.source))
    return move_subject(move.source, move.target, move.owner, ids)


def volumes_taken(move: MoveRequest, inventory: Inventory) -> tuple[str, ...]:
    """Return the volumes that change their namespace or owner with the containers of a move."""
    if not move.is_across:
        return ()
    mounted = {name for item in moving(inventory, move.source) for name in item.volumes}
    return tuple(sorted(mounted & inventory.volumes.keys()))


def judge_move(
    move: MoveRequest,
    inventory: Inventory,
    *,
    role: Role,
    policy: Policy,
    names_in_use: Iterable[DnsNames],
    volumes_root: str = "",
    approved: bool = False,
) -> Iterator[Finding]:
    """Yield the reasons against a move. *approved*: an operator approved exactly this move."""
    source, target = move.source, move.target
    if source == target:
        yield Finding(
            "move.self", "from", f"{target} has this name already", "name another service"
        )
        return
    items = moving(inventory, source)
    if not items:
        reason = f"the inventory has no container of {source}"
        yield Finding("move.nothing", "from", reason, "look again: another change came first")
        return
    yield from _judge_target(target, inventory)
    yield from _judge_open(move, inventory)
    yield from judge_owner(policy, role, move.owner, target.namespace)
    if role is not Role.OPERATOR and not approved:
        yield from _judge_authority(move, inventory, items, policy)
    of_documents = (each for each in policy.exceptions if each.made_by == "documents")
    excepted = {(each.namespace, each.service) for each in of_documents}
    for key in (source, target):
        if role is not Role.OPERATOR and (key.namespace, key.name) in excepted:
            reason = f"the policy has an exception for {key}"
            remedy = "remove the exception, or let the documents go one after the other"
            yield Finding("move.exception", "object", reason, remedy)
    if move.is_across:
        yield from _judge_volumes(move, inventory, items, volumes_root)
    in_use = tuple(names_in_use)
    for item in items:
        mine = make_dns_names(
            move.owner,
            item.admitted.networks,
            [target.name],
            service=f"{target.namespace}/{target.name}",
            identifier=item.id,
        )
        others_in_use = (each for each in in_use if each.id != item.id)
        yield from clashes(mine, others_in_use, policy=policy.networks)


def _judge_authority(
    move: MoveRequest, inventory: Inventory, items: Collection[ContainerItem], policy: Policy
) -> Iterator[Finding]:
    """Yield the reasons why the move needs an operator.

    Without a list of owners the namespace is the only boundary between services, and the controller
    names the owner. A listed owner has both namespaces anyhow.
    """
    source, target = move.source, move.target
    owners = {item.owner for item in items}
    owners |= {inventory.volumes[name].owner for name in volumes_taken(move, inventory)}
    approve = "look at 'trimtab plan', and approve the move with 'trimtab approve'"
    if owners != {move.owner}:
        others = ", ".join(sorted(owners - {move.owner}))
        reason = f"containers or volumes of {source} belong to {others}, and {target} belongs to {move.owner}"
        remedy = f"keep the owner, or let the documents go one after the other, or {approve}"
        yield Finding("move.owner", "owner", reason, remedy)
        return
    listed = policy.owner(move.owner)
    both = {source.namespace, target.namespace}
    if move.is_across and (listed is None or not both <= {*listed.namespaces}):
        reason = (
            f"{source} goes to another namespace with its data, and the policy doesn't list both "
            f"namespaces for {move.owner}"
        )
        yield Finding("move.approval", "object", reason, approve)


def _judge_volumes(
    move: MoveRequest,
    inventory: Inventory,
    items: Collection[ContainerItem],
    volumes_root: str,
) -> Iterator[Finding]:
    """Yield the reasons why the volumes can't go along: the service would lose data, or another would.

    A container of another service with the volume would go on writing to data of another namespace.
    """
    if any(item.confined is None for item in items):
        reason = (
            f"an earlier version made the containers of {move.source}: their volumes are unknown"
        )
        yield Finding("move.volume", "from", reason, f"trimtab restart {move.source.name} first")
        return
    ids, spaces = {item.id for item in items}, {move.source.namespace, move.target.namespace}
    for name in sorted({name for item in items for name in item.volumes}):
        owned = inventory.volumes.get(name)
        if owned is None or owned.namespace not in spaces:
            reason = f"the volume {name} isn't one of the namespace {move.source.namespace}"
            yield Finding("move.volume", "from", reason, "remove the mount first")
            continue
        if name not in move.volumes:
            reason = (
                f"{move.source} has the volume {name}, and the document of {move.target} has not"
            )
            remedy = (
                f"declare a Volume in {move.target.namespace} with engineName: {name}, and mount it; "
                "remove the mount after the move if the data isn't needed"
            )
            yield Finding("move.volume", "volumes", reason, remedy)
        if name in inventory.holds:
            reason = f"the volume {name} is held for a {inventory.holds[name].act}"
            yield Finding("move.busy", "from", reason, "wait for its end")
        others = (item for item in inventory.containers.values() if item.id not in ids)
        user = next((item for item in others if mounts_volume(item, name, volumes_root)), None)
        if user is not None:
            reason = f"{user.admitted.name} has the volume {name}, too, and doesn't move"
            remedy = "remove that container first, or keep both in one namespace"
            yield Finding("move.volume", "from", reason, remedy)


def _judge_target(target: Key, inventory: Inventory) -> Iterator[Finding]:
    """Yield a finding if containers go by the new name already, a job's runs included."""
    place = (target.namespace, target.name)
    there = (i for i in inventory.containers.values() if (i.namespace, i.service) == place)
    taken = next(there, None)
    if taken is not None or names.job_key(*place) in inventory.jobs:
        what = "a job" if taken is None or taken.is_run else taken.admitted.name
        reason = f"{target} is taken by {what}"
        yield Finding(
            "move.taken", "object", reason, "choose another name, or wait until it is free"
        )


def _judge_open(move: MoveRequest, inventory: Inventory) -> Iterator[Finding]:
    """Yield a finding for an open create of a container that the move would miss.

    Creates under either name count. Across namespaces, creates in the namespace count, and creates of
    clients with a moving volume.
    """
    places = {(key.namespace, key.name) for key in (move.source, move.target)}
    nearby = {move.source.namespace} if move.is_across else set[str]()
    taken = {*volumes_taken(move, inventory)}
    for intent in inventory.open.values():
        request = RequestPart.read(intent.request)
        labels = request.summary.label(names.NAMESPACE), request.summary.label(names.SERVICE)
        mounted = {mount.source for mount in request.summary.mounts if mount.type == "volume"}
        is_near = labels in places or labels[0] in nearby or not taken.isdisjoint(mounted)
        if request.route in _MAKES and is_near:
            what = "/".join(filter(None, labels)) or "a client"
            reason = f"a container of {what} is being created or adopted"
            yield Finding("move.busy", "from", reason, "try again in a moment")
            return
