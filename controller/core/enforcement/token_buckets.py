"""Token buckets: the rates of each peer (a uid).

The number of distinct peers is bounded: all others share one bucket. Times are seconds of a
monotonic clock. Buckets begin full, so a restart of the broker forgets the use before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

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
