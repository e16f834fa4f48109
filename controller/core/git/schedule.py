"""The time of a source's next fetch."""

from __future__ import annotations

#: The delay after the first failure; doubled after each further one.
RETRY_FIRST_S = 10.0
RETRY_LONGEST_S = 300.0
#: The share of a delay that is drawn, so that sources of one server don't meet.
JITTER = 0.1


def next_delay_s(*, interval_s: float, failures: int, random: float) -> float:
    """Return the seconds until the next fetch. *random* is a number in [0, 1).

    A failing source is tried again soon, then more and more seldom, but never more seldom than a
    healthy source.
    """
    delay = interval_s
    if failures:
        doubled = RETRY_FIRST_S * 2 ** min(failures - 1, 16)
        delay = min(doubled, max(RETRY_LONGEST_S, interval_s))
    return delay * (1 - JITTER + 2 * JITTER * random) if failures else delay * (1 - JITTER * random)
