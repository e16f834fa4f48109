"""Shared creations: passes create a common network or volume once.

Passes of different services run concurrently, and each plans to create missing objects. A
single pass creates a network; the others wait, observe again, and use the network. An object
removed again and again by another client is created after growing pauses
(``core.drift.contention``).
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
    """Lets a single pass at a time create the object of a given name. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way: set[tuple[str, str]] = set()
        #: Recent creations, by verb and name.
        self._contentions: dict[tuple[str, str], Contention] = {}

    @contextmanager
    def creating(self, action: CreateNetwork | CreateVolume) -> Iterator[bool]:
        """Let no other pass create the same object during the block; wait until none does.

        Yields True after waiting: the object probably exists now.
        """
        target = (action.verb, action.target)
        with self._changed:
            waited = target in self._under_way
            self._changed.wait_for(lambda: target not in self._under_way)
            self._under_way.add(target)
        try:
            yield waited
        finally:
            with self._changed:
                self._under_way.discard(target)
                self._changed.notify_all()

    def record_action(self, action: AnyAction, now: float) -> None:
        """Record a successful action. A repeated creation proves a removal by another client."""
        with self._changed:
            match action:
                case CreateNetwork() | CreateVolume():
                    target = (action.verb, action.target)
                    after = {
                        key: contention.update(each, each.altered, now)
                        for key, each in self._contentions.items()
                    }
                    before = replace(after.get(target, contention.CALM), altered=frozenset())
                    after[target] = contention.update(before, (action.target,), now)
                    self._contentions = {key: each for key, each in after.items() if each.times}
                case RemoveNetwork():
                    self._contentions.pop(("create-network", action.target), None)
                case _:
                    pass

    def wait_s(self, action: AnyAction, now: float) -> float:
        """Return the pause of a creation because of repeated removals by another client."""
        with self._changed:
            each = self._contentions.get((action.verb, action.target), contention.CALM)
        return max(0.0, contention.not_before(each) - now)


def existing(action: CreateNetwork | CreateVolume, observed: Observed) -> str:
    """Return the id of this instance's network, or the name of its volume; '' if missing."""
    if isinstance(action, CreateVolume):
        return next((v.name for v in observed.volumes if v.name == action.target and v.ours), "")
    return next((n.id for n in observed.networks if n.name == action.target and n.ours), "")
