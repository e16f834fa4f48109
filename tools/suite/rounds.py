"""Rounds: contestants measured in turn, in another order each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping

#: Measures one contestant in a round and returns the value.
Contestant = Callable[[int], float]


def interleave(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Return the values of each contestant, one of each round.

    The order rotates from round to round, so that no contestant always follows the same one.
    """
    names = list(contestants)
    measured: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            measured[name].append(contestants[name](number))
    return measured
