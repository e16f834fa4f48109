"""Limits of owners and peers: counts for quotas, token buckets, and the limit on journal records.

Token buckets: the rates of each peer (a uid).

The number of distinct peers is bounded: all others share one bucket. Times are seconds of a
monotonic clock. Buckets begin full, so a restart of the broker forgets the use before.

The rate limit on journal records per peer, and the counts of all further records.

Refusals and journaled reads cost a peer nothing, but cost the broker a line and a flush each. So
each peer (a uid) has a token bucket. Records within the limit are written in full. The others go
into one ``summary`` record a second, with counts by rule. Details can be lost, counts never. The
number of distinct peers is bounded, and so is the number of rules in a summary.

Times are seconds of a monotonic clock in buckets, and seconds since the epoch in records.

Pure. An open create counts although its outcome is unknown, so that no quota is exceeded by
requests side by side. A create of a container reserves its networks and volumes likewise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from controller.core.records.parts import CreatePart, RequestPart, ResultPart, SummaryPart
from controller.core.records.record import timestamp
from controller.core.rules import identity
from controller.core.rules.context import QuotaCounts
from controller.model import names
from controller.model.inventory import ContainerItem, Inventory, OwnedObject
from controller.model.mutations import Mutation
from controller.model.policy.document import OPERATOR_OWNER, Policy
from controller.model.records import Role

#: The peer that stands for all beyond the bound.
OTHERS: Final = -1


@dataclass(frozen=True, slots=True)
class Bucket:
    """A peer's remaining tokens at a time of the monotonic clock."""

    tokens: float
    at: float


Buckets = Mapping[int, Bucket]


@dataclass(frozen=True, slots=True)
class TokenRate:
    """The tokens of a peer: a burst, and the rate of new tokens."""

    per_s: float
    burst: float
    #: Peers with a bucket of their own.
    peers: int = 64


def take(
    buckets: Buckets, peer: int, now: float, share: TokenRate
) -> tuple[dict[int, Bucket], bool]:
    """Take one token from a peer's bucket: return the new buckets, and True if there was a token."""
    kept, peer = _filled_for(buckets, peer, now, share)
    bucket = kept[peer]
    enough = bucket.tokens >= 1
    kept[peer] = Bucket(bucket.tokens - 1, bucket.at) if enough else bucket
    return kept, enough


def spend(
    buckets: Buckets,
    peer: int,
    now: float,
    share: TokenRate,
    *,
    amount: float = 1.0,
    debt: float = 0.0,
) -> dict[int, Bucket]:
    """Take an amount from a peer's bucket, down to a *debt* at most.

    The amount may be larger than what is left: the size of a record is known once the record is
    written.
    """
    kept, peer = _filled_for(buckets, peer, now, share)
    bucket = kept[peer]
    kept[peer] = Bucket(max(-debt, bucket.tokens - amount), bucket.at)
    return kept


def left(buckets: Buckets, peer: int, now: float, share: TokenRate) -> float:
    """Return a peer's remaining tokens; negative if the peer spent more than the share."""
    bucket = buckets.get(peer_of(buckets, peer, share))
    return share.burst if bucket is None else _filled(bucket, now, share).tokens


def wait_s(
    buckets: Buckets, peer: int, now: float, share: TokenRate, *, amount: float = 0.0
) -> int:
    """Return in how many seconds a peer has an *amount* left; 0 for at once."""
    missing = amount - left(buckets, peer, now, share)
    return 0 if missing <= 0 else max(1, math.ceil(missing / share.per_s))


def peer_of(buckets: Buckets, peer: int, share: TokenRate) -> int:
    """Return the peer of a peer's bucket: the same peer, or ``OTHERS``."""
    return peer if peer in buckets or len(buckets) < share.peers else OTHERS


def _filled_for(
    buckets: Buckets, peer: int, now: float, share: TokenRate
) -> tuple[dict[int, Bucket], int]:
    """Return the buckets with a filled bucket for a peer, and the bucket's peer (``peer_of``)."""
    kept = dict(buckets)
    if peer not in kept and len(kept) >= share.peers:
        # A full bucket equals a new one, so its peer can be forgotten.
        kept = {
            known: bucket
            for known, bucket in kept.items()
            if _filled(bucket, now, share).tokens < share.burst
        }
    peer = peer_of(kept, peer, share)
    kept[peer] = _filled(kept.get(peer, Bucket(share.burst, now)), now, share)
    return kept, peer


def _filled(bucket: Bucket, now: float, share: TokenRate) -> Bucket:
    passed = max(0.0, now - bucket.at)
    return Bucket(min(share.burst, bucket.tokens + passed * share.per_s), max(now, bucket.at))


#: The limited stages: a peer can cause such records as often as it likes.
LIMITED: Final = frozenset({"refusal", "read"})
#: Distinct rules or routes in a summary. The gate has fewer than 150 of each.
NAMES_MAX: Final = 256
#: The rule that stands for all beyond the limit.
OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Limit(TokenRate):
    """The rate of records of one peer, and the time between summaries."""

    per_s: float = 50.0
    burst: float = 500.0
    summary_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of a peer's records since its last summary; times since the epoch."""

    first: float
    last: float
    refusals: Mapping[str, int] = field(default_factory=dict)  # by leading rule
    reads: Mapping[str, int] = field(default_factory=dict)  # by route

    @property
    def total(self) -> int:
        """The number of counted records."""
        return sum(self.refusals.values()) + sum(self.reads.values())


def count_record(tally: Tally | None, stage: str, name: str, now: float) -> Tally:
    """Return the tally with one more refusal by the rule *name*, or read of the route *name*."""
    assert stage in LIMITED, f"nothing that is counted: {stage}"
    tally = tally or Tally(now, now)
    # If the wall clock was set back, the span must not end before its start.
    tally = replace(tally, last=max(now, tally.first))
    if stage == "read":
        return replace(tally, reads=_more(tally.reads, name))
    return replace(tally, refusals=_more(tally.refusals, name))


def _more(counts: Mapping[str, int], name: str) -> dict[str, int]:
    name = name if name in counts or len(counts) < NAMES_MAX else OTHER
    return {**counts, name: counts.get(name, 0) + 1}


def result_of(tally: Tally) -> ResultPart:
    """Return the result member of a ``summary`` record: counts by rule, and the span of time."""
    return ResultPart(
        total=tally.total,
        counts=dict(sorted(tally.refusals.items())),
        reads=dict(sorted(tally.reads.items())),
        first=timestamp(tally.first),
        last=timestamp(tally.last),
    )


Kind = Literal["container", "volume", "network", "port"]
_KINDS: dict[str, Kind] = {
    Mutation.CONTAINER_CREATE: "container",
    Mutation.CONTAINER_ADOPT: "container",
    Mutation.VOLUME_CREATE: "volume",
    Mutation.NETWORK_CREATE: "network",
}


class Counted(NamedTuple):
    """What an object counts as in quotas."""

    kind: Kind
    owner: str
    origin: str  # controller | client
    namespace: str = ""
    service: str = ""
    ports: int = 0  # published by a container


def counted_of(kind: Kind, summary: SummaryPart) -> Counted:
    """Return the object that a create with this summary makes."""
    return Counted(
        kind,
        owner=summary.label(names.OWNER),
        origin=summary.label(names.ORIGIN),
        namespace=summary.label(names.NAMESPACE),
        service=summary.label(names.SERVICE),
        ports=len(summary.part(CreatePart).ports),
    )


def all_counted(inventory: Inventory, reserved: Mapping[str, Counted]) -> Counter[Counted]:
    """Return what counts, with the number of each; *reserved* are creates in progress, by intent.

    Containers and their published ports are counted by owner and origin alone: there are thousands of
    services.
    """
    volumes, networks = inventory.volumes.values(), inventory.networks.values()
    counted: Counter[Counted] = Counter(
        {Counted("container", *group): number for group, number in inventory.items.groups.items()}
    )
    for group, number in inventory.items.ports.items():
        counted[Counted("port", *group)] += number
    counted.update(Counted("volume", v.owner, v.origin, v.namespace) for v in volumes)
    counted.update(Counted("network", n.owner, n.origin, n.namespace) for n in networks)
    for each in _in_progress(inventory, reserved):
        is_container = each.kind == "container"
        counted[Counted("container", each.owner, each.origin) if is_container else each] += 1
        if each.ports:
            counted[Counted("port", each.owner, each.origin)] += each.ports
    return counted


def _in_progress(inventory: Inventory, reserved: Mapping[str, Counted]) -> Iterator[Counted]:
    """Yield the objects of open creates, and of creates that are in neither record yet."""
    for intent in inventory.open.values():
        request = RequestPart.read(intent.request)
        if kind := _KINDS.get(request.route):
            yield counted_of(kind, request.summary)
    for identifier in reserved.keys() - inventory.open.keys():
        each = reserved[identifier]
        made: Iterable[ContainerItem | OwnedObject] = (
            *inventory.items.of_service(each.namespace, each.service),
            *inventory.volumes.values(),
            *inventory.networks.values(),
        )
        if all(other.intent != identifier for other in made):
            yield each


def count_of_service(
    inventory: Inventory,
    reserved: Mapping[str, Counted],
    *,
    owner: str,
    namespace: str,
    service: str,
) -> int:
    """Return the number of an owner's containers of a service, including creates in progress."""
    place = (owner, namespace, service)
    items = inventory.items.of_service(namespace, service)
    started = (each for each in _in_progress(inventory, reserved) if each.kind == "container")
    return sum(item.owner == owner for item in items) + sum(
        (each.owner, each.namespace, each.service) == place for each in started
    )


def containers_of(objects: Mapping[Counted, int], owner: str) -> int:
    """Return the number of an owner's containers."""
    return sum(
        number
        for each, number in objects.items()
        if each.kind == "container" and each.owner == owner
    )


def _groups(objects: Mapping[Counted, int]) -> Counter[tuple[Kind, str, str, bool]]:
    """Return how many objects there are of each kind, owner and origin.

    The last part is True for networks of a namespace, which its owners share.
    """
    groups: Counter[tuple[Kind, str, str, bool]] = Counter()
    for each, number in objects.items():
        shared = each.kind == "network" and each.namespace != ""
        groups[each.kind, each.owner, each.origin, shared] += number
    return groups


def count(objects: Mapping[Counted, int], *, owner: str, role: Role) -> QuotaCounts:
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
        ports=own["port"],
        all_containers=every["container"],
        all_volumes=every["volume"],
        all_networks=every["network"],
        all_ports=every["port"],
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


def quota_use(objects: Mapping[Counted, int], policy: Policy) -> tuple[QuotaUse, ...]:
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
            QuotaUse(f"quotas.{whose}.ports", "", every["port", whose], sums.ports),
        ]
    # A quota of nothing, of which nothing is used, is no news.
    used = [use for use in used if use.most or use.count]
    return tuple(sorted(used, key=lambda use: (-use.percent, use.key, use.owner)))


def _own_quota(policy: Policy, kind: Kind, owner: str) -> tuple[str, int]:
    """Return the key and the limit of an owner's quota."""
    match kind:
        case "container":
            return "quotas.perOwner", identity.CONTAINER_QUOTA.most(policy, owner)
        case "volume":
            return "quotas.volumesPerOwner", identity.VOLUME_QUOTA.most(policy, owner)
        case "network":
            return "quotas.networksPerOwner", identity.NETWORK_QUOTA.most(policy, owner)
        case "port":
            return "quotas.portsPerOwner", identity.PORT_QUOTA.most(policy, owner)
