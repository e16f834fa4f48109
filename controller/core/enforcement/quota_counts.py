"""Counts for quotas: objects of the inventory, open creates, and reservations of other requests.

Pure. An open create counts although its outcome is unknown, so that no quota is exceeded by
requests side by side. A create of a container reserves its networks and volumes likewise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

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


class Counted(NamedTuple):
    """One object that counts in quotas: a tuple, since each create makes thousands."""

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


def _groups(objects: Iterable[Counted]) -> Counter[tuple[Kind, str, str, bool]]:
    """Return how many objects there are of each kind, owner and origin.

    The last part is True for networks of a namespace, which its owners share.
    """
    return Counter(
        (each.kind, each.owner, each.origin, each.kind == "network" and each.namespace != "")
        for each in objects
    )


def count(objects: Iterable[Counted], *, owner: str, role: Role) -> QuotaCounts:
    """Return the counts for a new object of *owner* that a caller of this role makes."""
    by_documents = role is Role.CONTROLLER
    own: Counter[Kind] = Counter()
    every: Counter[Kind] = Counter()
    groups = _groups(objects)
    for (kind, whose, origin, shared), number in groups.items():
        from_documents = origin == Role.CONTROLLER.value
        if from_documents == by_documents and (by_documents or whose != OPERATOR_OWNER):
            every[kind] += number
        if whose == owner and not shared:
            own[kind] += number
    return QuotaCounts(
        volumes=own["volume"],
        networks=own["network"],
        all_containers=every["container"],
        all_volumes=every["volume"],
        all_networks=every["network"],
    )


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
    groups = _groups(objects)
    for (kind, owner, origin, shared), number in groups.items():
        documents = origin == Role.CONTROLLER.value
        if documents or owner != OPERATOR_OWNER:
            every[kind, "documents" if documents else "clients"] += number
        if not shared:
            own[kind, owner] += number
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
    # A quota of nothing, of which nothing is used, is no news.
    used = [use for use in used if use.most or use.count]
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
