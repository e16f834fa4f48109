"""Which services wait for which others, as their last passes ended; and who needn't any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from controller.core.planning.ordering import Ordering
from controller.model.desired.plan import Wait
from controller.model.names import Key


class Waiters:
    """The services that wait for others. Guarded by its holder's lock."""

    def __init__(self) -> None:
        self._waits: dict[Key, tuple[Wait, ...]] = {}

    def note(self, key: Key, waits: tuple[Wait, ...]) -> None:
        """Note what the last pass of a service was kept from; () takes it out."""
        self._waits.pop(key, None)
        if waits:
            self._waits[key] = waits

    def over(self, key: Key, order: Callable[[], Ordering]) -> list[Key]:
        """Return those that waited for *key*, or are it, and wouldn't for the same cause now.

        Not those that would only wait again: a dependency that fails and fails wakes nobody.
        """
        concerned = {
            waiting: {wait.cause for wait in waits}
            for waiting, waits in self._waits.items()
            if waiting == key or any(key in wait.on for wait in waits)
        }
        now = order() if concerned else None
        return [k for k, causes in concerned.items() if now and not causes <= now.causes(k)]

    def forget_all_but(self, keys: Iterable[Key]) -> None:
        """Forget what is neither declared nor there any more."""
        for gone in self._waits.keys() - set(keys):
            del self._waits[gone]
