"""The rate limit on journal records per peer, and the counts of all further records.

Refusals and journaled reads cost a peer nothing, but cost the broker a line and a flush each. So
each peer (a uid) has a token bucket. Records within the limit are written in full. The others go
into one ``summary`` record a second, with counts by rule. Details can be lost, counts never. The
number of distinct peers is bounded, and so is the number of rules in a summary.

Times are seconds of a monotonic clock in buckets, and seconds since the epoch in records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from controller.core.enforcement.token_buckets import TokenRate
from controller.core.records.parts import ResultPart
from controller.core.records.record import timestamp

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


def count(tally: Tally | None, stage: str, name: str, now: float) -> Tally:
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
