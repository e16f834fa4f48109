"""Contention: another program alters, stops or removes a slot's container again and again.

Healing at once is right against a mistake. Against a program that never gives up, each side would
change the container forever. From its fourth alteration within ten minutes a field is contended,
and healed only after growing pauses. A stop and a removal count as fields. Ten minutes without an
alteration clear the history.

Pure. Instants are seconds of the wall clock, which can jump: an instant in the future counts as
now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from controller.core.drift.classify import ALIVE, alterations
from controller.core.drift.heal_alterations import healed_by
from controller.core.encoding.stored_form import StoredForm
from controller.model.desired.plan import AnyAction
from controller.model.observed import Container

#: The "fields" for a stop and a removal of the whole container.
REMOVED = "removed"
STOPPED = "stopped"
ENDED = frozenset({REMOVED, STOPPED})
#: More than this many alterations within ``WITHIN_S`` seconds are a contention.
AGAIN = 3
WITHIN_S = 600.0
FIRST_S = 2.0
FACTOR = 3.0
LONGEST_S = 300.0


@dataclass(frozen=True, slots=True)
class Contention:
    """The alterations of a field in a slot."""

    #: The instants of the last alterations, oldest first.
    times: tuple[float, ...] = ()
    #: Alterations since the contention began; 0: not contended.
    rounds: int = 0
    #: The ids of containers with the alteration at the last observation.
    altered: frozenset[str] = frozenset()


CALM = Contention()
NOTHING_ENDED: Mapping[str, str] = MappingProxyType({})


def observe(
    contentions: Mapping[str, Contention],
    containers: Iterable[Container],
    now: float,
    *,
    ended: Mapping[str, str] = NOTHING_ENDED,
) -> dict[str, Contention]:
    """Return a slot's contentions after an observation; fields without alterations are left out.

    *ended* has the container that was stopped or removed from outside, by ``STOPPED`` and
    ``REMOVED``.
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
    """Return a contention after an observation; *altered* are the containers with the alteration.

    A container counts once, even if it stays altered because its repair waits.
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
    """Return a slot's contentions after an action: its healed fields are no longer altered."""
    names = healed_by(action)
    return {
        name: replace(contention, altered=contention.altered - {action.precondition.id})
        if name in names
        else contention
        for name, contention in contentions.items()
    }


def not_before(contention: Contention) -> float:
    """Return the next instant to heal a field; 0 without contention."""
    if not contention.rounds:
        return 0.0
    return contention.times[-1] + min(LONGEST_S, FIRST_S * FACTOR ** min(contention.rounds - 1, 10))


def is_contended(contention: Contention, now: float) -> bool:
    """Return True if a field is contended and was altered recently."""
    return contention.rounds > 0 and now - contention.times[-1] < WITHIN_S


#: A slot's contentions, by field.
FORM = StoredForm(dict[str, Contention])
