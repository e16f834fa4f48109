"""Changes of documents while a pass runs: chores have a thread of their own.

The simulation does one thing after the other. A change that waits for a pass comes between two of its
requests, and the chores that are ready then run at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from controller.model.names import Key

#: A change that no pass met comes by itself after so long.
PATIENCE_S = 20.0
#: So many requests of passes come before a change at most.
REQUESTS_MAX = 9


@dataclass(slots=True, eq=False)
class Change:
    """A change that waits for a pass of its key."""

    key: Key
    what: str
    make: Callable[[], object]
    #: The requests of passes that come before.
    left: int


class Meanwhile:
    """The changes that wait for a pass."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"meanwhile {seed}")
        self._waiting: list[Change] = []

    def wait(self, key: Key, what: str, make: Callable[[], object]) -> Change:
        """Let a change wait for a pass of *key*."""
        change = Change(key, what, make, self._random.randrange(REQUESTS_MAX))
        self._waiting.append(change)
        return change

    def at_request(self, key: Key) -> Change | None:
        """Take the change that comes now, at a request of a pass of *key*."""
        for change in self._waiting:
            if change.key == key:
                change.left -= 1
                return change if change.left < 0 and self.take(change) else None
        return None

    def take(self, change: Change) -> bool:
        """Return True if the change still waited; it doesn't any more."""
        if change not in self._waiting:
            return False
        self._waiting.remove(change)
        return True

    def call_off(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
