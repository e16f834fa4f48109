"""Find the last record at a time, although clocks jump.

Records are always in the order of their seqs, and nearly in the order of their times. After a clock
was set back or forward for a while, the cut is made where the fewest records are on the wrong side.
A clock that was wrong for a moment, by any amount, thus doesn't affect the answers for other times.
"""

from __future__ import annotations

from collections.abc import Iterable


def last_at(runs: Iterable[tuple[int, int]]) -> int:
    """Return the seq of the last record at a time, or 0.

    *runs* are consecutive groups of records: the seq of the last record, and the number of records,
    negative if the records are later than that time.
    """
    best, most, balance = 0, 0, 0
    for seq, count in runs:
        balance += count
        if balance > most:
            best, most = seq, balance
    return best
