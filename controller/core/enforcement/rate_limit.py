"""What a peer may have recorded one by one, and how the rest is counted.

Refusals and journaled reads cost whoever asks nothing, and the broker a line and a flush each. So a
peer (a uid) has a bucket: what it pays for is recorded in full, the rest goes into one ``summary``
record a second, with counts by rule. Detail may be lost, the count never. Everything is bounded:
the peers that are told apart, and the rules of a summary.

Instants are seconds of a monotonic clock where buckets are meant, and seconds since the epoch in
what is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from controller.core.records.record import timestamp

#: The stages that are limited: what whoever asks can have written as often as it likes.
LIMITED: Final = frozenset({"refusal", "read"})
#: Rules and routes that a summary tells apart; the gate has fewer of each than a hundred and fifty.
NAMES_MAX: Final = 256
#: The peer, and the rule, that all others go under once too many are told apart.
OTHERS: Final = -1
OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of one peer is recorded one by one, and how many peers are told apart."""

    per_s: float = 50.0
    burst: int = 500
    summary_s: float = 1.0
    peers: int = 64


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a peer may still spend, as of an instant of the monotonic clock."""

    tokens: float
    at: float


Buckets = Mapping[int, Bucket]


def spend(buckets: Buckets, peer: int, now: float, limit: Limit) -> tuple[dict[int, Bucket], bool]:
    """Take one record from the peer's bucket: the buckets after it, and whether it was there.

    A peer that isn't told apart yet is, if there is room; else it shares one bucket with others.
    """
    kept = dict(buckets)
    if peer not in kept and len(kept) >= limit.peers:
        # Who spent nothing for so long that its bucket is full is as one that never came.
        kept = {
            known: bucket
            for known, bucket in kept.items()
            if _filled(bucket, now, limit).tokens < limit.burst
        }
    peer = peer_of(kept, peer, limit)
    filled = _filled(kept.get(peer, Bucket(limit.burst, now)), now, limit)
    enough = filled.tokens >= 1
    kept[peer] = replace(filled, tokens=filled.tokens - 1) if enough else filled
    return kept, enough


def peer_of(buckets: Buckets, peer: int, limit: Limit) -> int:
    """Return under whom a peer is counted: itself, or all others together."""
    return peer if peer in buckets or len(buckets) < limit.peers else OTHERS


def _filled(bucket: Bucket, now: float, limit: Limit) -> Bucket:
    passed = max(0.0, now - bucket.at)
    return Bucket(min(limit.burst, bucket.tokens + passed * limit.per_s), max(now, bucket.at))


@dataclass(frozen=True, slots=True)
class Tally:
    """What of one peer was counted since the last summary; instants since the epoch."""

    first: float
    last: float
    refusals: Mapping[str, int] = field(default_factory=dict)  # by leading rule
    reads: Mapping[str, int] = field(default_factory=dict)  # by route

    @property
    def total(self) -> int:
        """How many records this stands for."""
        return sum(self.refusals.values()) + sum(self.reads.values())


def count(tally: Tally | None, stage: str, name: str, now: float) -> Tally:
    """Return the tally with one more refusal by the rule *name*, or read of the route *name*."""
    assert stage in LIMITED, f"nothing that is counted: {stage}"
    tally = tally or Tally(now, now)
    # A wall clock that jumped back makes no span that ends before it began.
    tally = replace(tally, last=max(now, tally.first))
    if stage == "read":
        return replace(tally, reads=_more(tally.reads, name))
    return replace(tally, refusals=_more(tally.refusals, name))


def _more(counts: Mapping[str, int], name: str) -> dict[str, int]:
    name = name if name in counts or len(counts) < NAMES_MAX else OTHER
    return {**counts, name: counts.get(name, 0) + 1}


def result_of(tally: Tally) -> dict[str, object]:
    """Return a tally as a ``summary`` record has it: counts by rule, and from when to when."""
    told: dict[str, object] = {
        "total": tally.total,
        "counts": dict(sorted(tally.refusals.items())),
        "first": timestamp(tally.first),
        "last": timestamp(tally.last),
    }
    return {**told, "reads": dict(sorted(tally.reads.items()))} if tally.reads else told
