"""What a client may use up over time: changes a second, and bytes of the journal a day.

Token buckets by uid, as in ``core.enforcement.record_summaries``; here an amount may be spent that
is larger than what is left, since the size of a record is known once the record is written. The
number of distinct uids is bounded: all others share one bucket. Times are seconds of a monotonic
clock. Buckets begin full, so a restart of the broker forgets what was spent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from controller.core.enforcement.record_summaries import OTHERS, Bucket, Buckets

DAY_S = 86_400.0
#: Seconds of a client's steady rate of changes that its bucket holds: ``docker compose up`` with 50
#: services makes about 300 changes at once.
BURST_S = 50.0


@dataclass(frozen=True, slots=True)
class ClientShare:
    """How much a uid may spend: a burst, and the rate at which it comes back."""

    per_s: float
    burst: float
    #: Distinct uids.
    peers: int = 64


def mutations_share(per_s: int) -> ClientShare:
    """Return the share of changes."""
    return ClientShare(float(per_s), per_s * BURST_S)


def journal_share(bytes_per_day: int) -> ClientShare:
    """Return the share of the journal's bytes: a day's at once, and as much again within a day."""
    return ClientShare(bytes_per_day / DAY_S, float(bytes_per_day))


def spend(
    buckets: Buckets,
    uid: int,
    now: float,
    share: ClientShare,
    *,
    amount: float = 1.0,
    debt: float = 0.0,
) -> dict[int, Bucket]:
    """Take an amount from a uid's bucket, down to a *debt* at most."""
    kept = dict(buckets)
    if uid not in kept and len(kept) >= share.peers:
        # A full bucket equals a new one, so its uid can be forgotten.
        kept = {
            known: bucket
            for known, bucket in kept.items()
            if _filled(bucket, now, share).tokens < share.burst
        }
    uid = _peer_of(kept, uid, share)
    filled = _filled(kept.get(uid, Bucket(share.burst, now)), now, share)
    kept[uid] = Bucket(max(-debt, filled.tokens - amount), filled.at)
    return kept


def left(buckets: Buckets, uid: int, now: float, share: ClientShare) -> float:
    """Return what a uid has left; negative if it spent more than its share."""
    bucket = buckets.get(_peer_of(buckets, uid, share))
    return share.burst if bucket is None else _filled(bucket, now, share).tokens


def wait_s(
    buckets: Buckets, uid: int, now: float, share: ClientShare, *, amount: float = 0.0
) -> int:
    """Return in how many seconds a uid has an *amount* left; 0 for at once."""
    missing = amount - left(buckets, uid, now, share)
    return 0 if missing <= 0 else max(1, math.ceil(missing / share.per_s))


def _peer_of(buckets: Buckets, uid: int, share: ClientShare) -> int:
    return uid if uid in buckets or len(buckets) < share.peers else OTHERS


def _filled(bucket: Bucket, now: float, share: ClientShare) -> Bucket:
    passed = max(0.0, now - bucket.at)
    return Bucket(min(share.burst, bucket.tokens + passed * share.per_s), max(now, bucket.at))
