"""The number of examples of a property: few in the inner loop, twenty times as many before a release."""

from __future__ import annotations

from hypothesis import settings

TIMES = 20
#: The profile of ``make fuzz KIND=facts``, in which the number is that of the profile.
FIXED = "facts"


def examples(number: int) -> int:
    """Return *number* in the inner loop; twenty times as many with another Hypothesis profile."""
    profile = settings.get_current_profile_name()
    if profile == FIXED:
        return settings().max_examples
    return number if profile == "repeatable" else number * TIMES
