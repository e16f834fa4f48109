"""Contention: somebody else alters, stops or removes the container of the same slot, again and again.

To heal at once is right against a mistake. Against another program that never gives up either it
would change a container for ever: from the fourth alteration of a field within ten minutes on it is
contended, and healed after pauses that grow. A stop and a removal count as fields of their own.
Ten minutes without one, and nothing is remembered.

Pure. Instants are seconds of the wall clock, which may jump: what is of the future is of now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from controller.core.drift.drift import ALIVE, alterations
from controller.core.drift.repair import healed_by
from controller.model.desired.plan import AnyAction
from controller.model.observed import Container

#: What is done to a container as a whole, beside the fields that are altered.
REMOVED = "removed"
STOPPED = "stopped"
ENDED = frozenset({REMOVED, STOPPED})
#: Altered again so often within so many seconds; as long without it, and it is over.
AGAIN = 3
WITHIN_S = 600.0
FIRST_S = 2.0
FACTOR = 3.0
LONGEST_S = 300.0


@dataclass(frozen=True, slots=True)
class Contention:
    """What is remembered of one field of one slot."""

    times: tuple[float, ...] = ()  # of its alterations, the last of them last
    rounds: int = 0  # alterations since it is contended; 0: it isn't
    altered: frozenset[str] = frozenset()  # containers in which it is, as of the last look


CALM = Contention()
NOTHING_ENDED: Mapping[str, str] = MappingProxyType({})


def observe(
    contentions: Mapping[str, Contention],
    containers: Iterable[Container],
    now: float,
    *,
    ended: Mapping[str, str] = NOTHING_ENDED,
) -> dict[str, Contention]:
    """Return what is known of a slot's fields after a look at its containers; calm ones aren't in it.

    *ended* has the container that was stopped or removed from outside, by ``STOPPED`` and ``REMOVED``.
    """
    altered = {name: {identifier} for name, identifier in ended.items()}
    for container in containers:
        known = container.state in ALIVE and container.admitted is not None
        known = known and not container.violation
        for each in alterations(container) if known else ():
            altered.setdefault(each.what, set()).add(container.id)
    names = sorted(contentions.keys() | altered.keys())
    after = {
        name: update(contentions.get(name, CALM), altered.get(name, ()), now) for name in names
    }
    return {name: contention for name, contention in after.items() if contention != CALM}


def update(contention: Contention, altered: Collection[str], now: float) -> Contention:
    """Return a fight after a look; *altered* are the containers in which the field is.

    That it stays altered in one while it isn't healed is no alteration more.
    """
    times = tuple(at for each in contention.times if now - (at := min(each, now)) < WITHIN_S)
    rounds = contention.rounds if times else 0
    if not contention.altered.issuperset(altered):
        times = (*times, now)[-AGAIN - 1 :]
        rounds = rounds + 1 if rounds or len(times) > AGAIN else 0
    return Contention(times, rounds, frozenset(altered))


def record_healing(
    contentions: Mapping[str, Contention], action: AnyAction
) -> dict[str, Contention]:
    """Return a slot's fights after an action on a container: what it heals isn't altered any more."""
    names = healed_by(action)
    return {
        name: replace(contention, altered=contention.altered - {action.precondition.id})
        if name in names
        else contention
        for name, contention in contentions.items()
    }


def not_before(contention: Contention) -> float:
    """Return from when on a field may be healed again; 0 for one that isn't contended."""
    if not contention.rounds:
        return 0.0
    return contention.times[-1] + min(LONGEST_S, FIRST_S * FACTOR ** min(contention.rounds - 1, 10))


def is_contended(contention: Contention, now: float) -> bool:
    """Tell whether a field is contended, and was altered not long ago."""
    return contention.rounds > 0 and now - contention.times[-1] < WITHIN_S


def to_json(contentions: Mapping[str, Contention]) -> dict[str, object]:
    """Return a slot's fights as JSON."""
    return {
        name: [list(each.times), each.rounds, sorted(each.altered)]
        for name, each in contentions.items()
    }


def from_json(value: Mapping[str, Any]) -> dict[str, Contention]:
    """Return what ``to_json`` wrote.

    Raises:
        ValueError, TypeError, AttributeError: it isn't that.
    """
    return {
        str(name): Contention(tuple(float(at) for at in times), int(rounds), _identifiers(altered))
        for name, (times, rounds, altered) in value.items()
    }


def _identifiers(value: Any) -> frozenset[str]:
    # Earlier versions wrote the one container, or ''.
    return frozenset(filter(None, [value] if isinstance(value, str) else map(str, value)))
