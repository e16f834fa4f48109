"""Counts for quotas: objects of the inventory, open creates, and reservations of other requests.

Pure. An open create counts although its outcome is unknown, so that no quota is exceeded by
requests side by side. A create of a container reserves its networks and volumes likewise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from controller.core.records.parts import RequestPart, SummaryPart
from controller.core.rules.facts import QuotaCounts
from controller.core.rules.identity import container_quota, network_quota, volume_quota
from controller.model import names
from controller.model.inventory import Inventory
from controller.model.mutations import Mutation
from controller.model.policy.document import OPERATOR_OWNER, Policy
from controller.model.records import Role

Kind = Literal["container", "volume", "network"]
_KINDS: dict[str, Kind] = {
    Mutation.CONTAINER_CREATE: "container",
    Mutation.VOLUME_CREATE: "volume",
    Mutation.NETWORK_CREATE: "network",
}


@dataclass(frozen=True, slots=True)
class Counted:
    """One object that counts in quotas."""

    kind: Kind
    owner: str
    origin: str  # controller | client
    namespace: str = ""
    service: str = ""


def counted_of(kind: Kind, summary: SummaryPart) -> Counted:
    """Return the object that a create with this summary makes."""
    return Counted(
        kind,
        owner=summary.label(names.OWNER),
        origin=summary.label(names.ORIGIN),
        namespace=summary.label(names.NAMESPACE),
        service=summary.label(names.SERVICE),
    )


def all_counted(inventory: Inventory, reserved: Mapping[str, Counted]) -> Iterator[Counted]:
    """Yield every object that counts; *reserved* are creates in progress, by their intent."""
    made = set()
    for item in inventory.containers.values():
        made.add(item.intent)
        yield Counted("container", item.owner, item.origin, item.namespace, item.service)
    for each in inventory.volumes.values():
        made.add(each.intent)
        yield Counted("volume", each.owner, each.origin, each.namespace)
    for each in inventory.networks.values():
        made.add(each.intent)
        yield Counted("network", each.owner, each.origin, each.namespace)
    for intent in inventory.open.values():
        request = RequestPart.read(intent.request)
        if kind := _KINDS.get(request.route):
            yield counted_of(kind, request.summary)
    for identifier, claim in reserved.items():
        if identifier not in inventory.open and identifier not in made:
            yield claim


def count(objects: Iterable[Counted], *, owner: str, role: Role) -> QuotaCounts:
    """Return the counts for a new object of *owner* that a caller of this role makes."""
    by_documents = role is Role.CONTROLLER
    own: dict[Kind, int] = {"container": 0, "volume": 0, "network": 0}
    every: dict[Kind, int] = {"container": 0, "volume": 0, "network": 0}
    for each in objects:
        from_documents = each.origin == Role.CONTROLLER.value
        if from_documents == by_documents and (by_documents or not _is_operators(each)):
            every[each.kind] += 1
        if each.owner == owner and not (each.kind == "network" and from_documents):
            own[each.kind] += 1
    return QuotaCounts(
        volumes=own["volume"],
        networks=own["network"],
        all_containers=every["container"],
        all_volumes=every["volume"],
        all_networks=every["network"],
    )


def _is_operators(each: Counted) -> bool:
    return each.owner == OPERATOR_OWNER


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """How much of one quota is used."""

    key: str  # of the policy
    owner: str  # '' for a sum over all owners
    count: int
    most: int

    @property
    def percent(self) -> int:
        """The used part; 100 for a quota of nothing."""
        return 100 if self.most == 0 else self.count * 100 // self.most


def quota_use(objects: Iterable[Counted], policy: Policy) -> tuple[QuotaUse, ...]:
    """Return the use of each owner's quotas and of the sums, the fullest first."""
    own: Counter[tuple[Kind, str]] = Counter()
    every: Counter[tuple[Kind, str]] = Counter()
    for each in objects:
        documents = each.origin == Role.CONTROLLER.value
        if documents or not _is_operators(each):
            every[each.kind, "documents" if documents else "clients"] += 1
        if not (documents and each.kind == "network"):
            own[each.kind, each.owner] += 1
    used = []
    for (kind, owner), number in own.items():
        key, most = _own_quota(policy, kind, owner)
        used.append(QuotaUse(key, owner, number, most))
    for whose, sums in (("documents", policy.quotas.documents), ("clients", policy.quotas.clients)):
        used += [
            QuotaUse(f"quotas.{whose}.containers", "", every["container", whose], sums.containers),
            QuotaUse(f"quotas.{whose}.volumes", "", every["volume", whose], sums.volumes),
            QuotaUse(f"quotas.{whose}.networks", "", every["network", whose], sums.networks),
        ]
    return tuple(sorted(used, key=lambda use: (-use.percent, use.key, use.owner)))


def _own_quota(policy: Policy, kind: Kind, owner: str) -> tuple[str, int]:
    """Return the key and the limit of an owner's quota."""
    match kind:
        case "container":
            return "quotas.perOwner", container_quota(policy, owner)
        case "volume":
            return "quotas.volumesPerOwner", volume_quota(policy, owner)
        case "network":
            return "quotas.networksPerOwner", network_quota(policy, owner)
