"""Creations: passes that need the same network or volume share one creation of it, which is paced.

Passes of different services run side by side, and each plans what it finds missing. One of them
creates a network, and the others wait until that has ended, look again, and use it. What somebody
removes again and again is created after growing pauses (``core.drift.contention``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from controller.core.drift import contention
from controller.core.drift.contention import Contention
from controller.model.desired.plan import AnyAction, CreateNetwork, CreateVolume, RemoveNetwork
from controller.model.observed import Observed


class SharedCreations:
    """Lets one pass at a time create an object of a given name. Safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way: set[tuple[str, str]] = set()
        self._fights: dict[tuple[str, str], Contention] = {}  # what was created of late

    @contextmanager
    def turn(self, action: CreateNetwork | CreateVolume) -> Iterator[None]:
        """Wait until no other pass creates that object, and let none begin during the block."""
        what = (action.verb, action.target)
        with self._changed:
            self._changed.wait_for(lambda: what not in self._under_way)
            self._under_way.add(what)
        try:
            yield
        finally:
            with self._changed:
                self._under_way.discard(what)
                self._changed.notify_all()

    def note(self, action: AnyAction, now: float) -> None:
        """Take note of an action that succeeded: what is created once more was removed by somebody else."""
        with self._changed:
            match action:
                case CreateNetwork() | CreateVolume():
                    what = (action.verb, action.target)
                    contentions = {
                        each: contention.saw(fight, fight.altered, now)
                        for each, fight in self._fights.items()
                    }
                    before = replace(contentions.get(what, contention.CALM), altered=frozenset())
                    contentions[what] = contention.saw(before, (action.target,), now)
                    self._fights = {
                        each: fight for each, fight in contentions.items() if fight.times
                    }
                case RemoveNetwork():
                    self._fights.pop(("create-network", action.target), None)
                case _:
                    pass

    def wait_s(self, action: AnyAction, now: float) -> float:
        """Return how long an object isn't created, since somebody removes it again and again."""
        with self._changed:
            fight = self._fights.get((action.verb, action.target), contention.CALM)
        return max(0.0, contention.not_before(fight) - now)


def existing(action: CreateNetwork | CreateVolume, observed: Observed) -> str:
    """Return the id of the network, or the name of the volume, of ours that is there; else ''."""
    if isinstance(action, CreateVolume):
        return next((v.name for v in observed.volumes if v.name == action.target and v.ours), "")
    return next((n.id for n in observed.networks if n.name == action.target and n.ours), "")
