"""Which record was the last at a time, though clocks jump.

Records are in the order of their seqs, always; their times nearly are. Where a clock was set back
or forward for a while, the journal is cut where the fewest records are on the wrong side: a clock
that was wrong for a moment, by however much, moves no other moment.
"""

from __future__ import annotations

from collections.abc import Iterable


def last_at(runs: Iterable[tuple[int, int]]) -> int:
    """Return the seq of the last record at a time; 0 for none.

    *runs* are of records in order: the last one's seq, and how many they are, negative where they are
    later than that time.
    """
    best, most, balance = 0, 0, 0
    for seq, count in runs:
        balance += count
        if balance > most:
            best, most = seq, balance
    return best
