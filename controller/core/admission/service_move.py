"""Admission of a move: a service's containers go on under another name of the service.

Pure. A move changes the broker's inventory alone: containers keep their labels, their settings and
their processes. The controller's request is no proof of anything. So each fact is read from the
inventory, and a usurped controller can neither take another owner's service, nor merge two
services, nor leave the counts of the disruption budget. No service leaves its namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller.core.admission.dns_names import DnsNames, clashes, make_dns_names
from controller.core.engine_api.requests import Finding
from controller.core.records.parts import ProofPart, RequestPart, ServicePart, read_key
from controller.core.rules.identity import judge_owner
from controller.model import names
from controller.model.inventory import Inventory, moving
from controller.model.mutations import SERVICE_MOVED, Mutation, move_subject
from controller.model.names import Key, is_dns_label
from controller.model.policy.document import Policy
from controller.model.records import Role

#: The form of a request, for refusals.
FORM = (
    f'{{"act": "{SERVICE_MOVED}", "object": "Service/NAMESPACE/NAME", '
    '"from": "Service/NAMESPACE/NAME", "owner": …}'
)
#: The reasons that pass by themselves.
PASSING = frozenset({"move.busy", "move.nothing"})
_MAKES = frozenset({Mutation.CONTAINER_CREATE, Mutation.CONTAINER_ADOPT})
_MEMBERS = frozenset({"act", "object", "from", "owner"})


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """A requested move of a service."""

    source: Key
    target: Key
    #: The owner that the document under the new name declares.
    owner: str

    def summary(self, proof: ProofPart) -> dict[str, object]:
        """Return the summary in the record; queries find the record by its labels."""
        return ServicePart(
            act=SERVICE_MOVED,
            labels={
                names.NAMESPACE: self.target.namespace,
                names.SERVICE: self.target.name,
                names.OWNER: self.owner,
            },
            moved_from=str(self.source),
            proof=proof,
        ).members


def read_move(body: Mapping[str, object]) -> MoveRequest | str:
    """Return the requested move, or a text about the fault in the body."""
    if body.keys() != _MEMBERS:
        return f"expected the members {', '.join(sorted(_MEMBERS))}"
    target, source = read_key(body["object"]), read_key(body["from"])
    if target is None or source is None:
        return "object and from are services: Service/NAMESPACE/NAME"
    owner = body["owner"]
    if not isinstance(owner, str) or not is_dns_label(owner, length=63):
        return "owner isn't the name of an owner"
    return MoveRequest(source, target, owner)


def subject_of(move: MoveRequest, inventory: Inventory) -> str:
    """Return the move as the object of an approval."""
    ids = (item.id for item in moving(inventory, move.source))
    return move_subject(move.source, move.target, move.owner, ids)


def judge_move(
    move: MoveRequest,
    inventory: Inventory,
    *,
    role: Role,
    policy: Policy,
    names_in_use: Iterable[DnsNames],
    approved: bool = False,
) -> Iterator[Finding]:
    """Yield the reasons against a move. *approved*: an operator approved exactly this move."""
    source, target = move.source, move.target
    if source == target:
        yield Finding(
            "move.self", "from", f"{target} has this name already", "name another service"
        )
        return
    if source.namespace != target.namespace:
        yield Finding(
            "move.namespace",
            "object",
            f"{target} is in another namespace than {source}, with other networks and volumes",
            "dump the volumes and restore them there",
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
    owners = {item.owner for item in items}
    if role is not Role.OPERATOR and not approved and owners != {move.owner}:
        others = ", ".join(sorted(owners - {move.owner}))
        reason = f"containers of {source} belong to {others}, and {target} belongs to {move.owner}"
        remedy = (
            "keep the owner, or let the documents go one after the other, or look at 'trimtab plan', "
            "and approve the move with 'trimtab approve'"
        )
        yield Finding("move.owner", "owner", reason, remedy)
    of_documents = (each for each in policy.exceptions if each.made_by == "documents")
    excepted = {(each.namespace, each.service) for each in of_documents}
    for key in (source, target):
        if role is not Role.OPERATOR and (key.namespace, key.name) in excepted:
            reason = f"the policy has an exception for {key}"
            remedy = "remove the exception, or let the documents go one after the other"
            yield Finding("move.exception", "object", reason, remedy)
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
    """Yield a finding for an open create, under either name, of a container that the move would miss."""
    places = {(key.namespace, key.name) for key in (move.source, move.target)}
    for intent in inventory.open.values():
        request = RequestPart.read(intent.request)
        labels = request.summary.label(names.NAMESPACE), request.summary.label(names.SERVICE)
        if request.route in _MAKES and labels in places:
            reason = f"a container of {'/'.join(labels)} is being created or adopted"
            yield Finding("move.busy", "from", reason, "try again in a moment")
            return
