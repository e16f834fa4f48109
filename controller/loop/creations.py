"""Creations: passes that need the same network or volume share one creation of it.

Passes of different services run side by side, and each plans what it finds missing. One of them
creates a network, and the others wait until that has ended, look again, and use it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from controller.model.observed import Observed
from controller.model.plan import CreateNetwork, CreateVolume


class Creations:
    """Lets one pass at a time create an object of a given name. Safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way: set[tuple[str, str]] = set()

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


def existing(action: CreateNetwork | CreateVolume, observed: Observed) -> str:
    """Return the id of the network, or the name of the volume, of ours that is there; else ''."""
    if isinstance(action, CreateVolume):
        return next((v.name for v in observed.volumes if v.name == action.target and v.ours), "")
    return next((n.id for n in observed.networks if n.name == action.target and n.ours), "")
