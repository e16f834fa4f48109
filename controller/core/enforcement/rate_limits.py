"""Rates of each peer (a uid): token buckets, and the limit on journal records.

Token buckets: the rates of each peer (a uid).

The number of distinct peers is bounded: all others share one bucket. Times are seconds of a
monotonic clock. Buckets begin full, so a restart of the broker forgets the use before.

The rate limit on journal records per peer, and the counts of all further records.

Refusals and journaled reads cost a peer nothing, but cost the broker a line and a flush each. So
each peer (a uid) has a token bucket. Records within the limit are written in full. The others go
into one ``summary`` record a second, with counts by rule. Details can be lost, counts never. The
number of distinct peers is bounded, and so is the number of rules in a summary.

Times are seconds of a monotonic clock in buckets, and seconds since the epoch in records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from controller.core.records.parts import ResultPart
from controller.core.records.record import timestamp

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
