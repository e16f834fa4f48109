"""The number of examples of a property: few in the inner loop, twenty times as many before a release."""

from __future__ import annotations

from hypothesis import settings

TIMES = 20


def examples(number: int) -> int:
    """Return *number* in the inner loop; twenty times as many with another Hypothesis profile."""
    return number if settings.get_current_profile_name() == "repeatable" else number * TIMES
