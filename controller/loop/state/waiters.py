"""The waits of services for other services, as of their last passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from controller.core.planning.service_order import Ordering
from controller.model.desired.plan import Wait
from controller.model.names import Key


class Waiters:
    """Services that wait for other services. Not thread-safe: guarded by the holder's lock."""

    def __init__(self) -> None:
        self._waits: dict[Key, tuple[Wait, ...]] = {}

    def set_waits(self, key: Key, waits: tuple[Wait, ...]) -> None:
        """Replace the waits of a service's last pass; () removes the service."""
        self._waits.pop(key, None)
        if waits:
            self._waits[key] = waits

    def released_by(self, key: Key, order: Callable[[], Ordering]) -> list[Key]:
        """Return the services to wake after a pass of *key*: *key* itself, or waiters for *key*.

        A service isn't woken only to wait for the same cause again: a dependency in a loop of
        failures wakes nothing.
        """
        concerned = {
            waiting: {wait.cause for wait in waits}
            for waiting, waits in self._waits.items()
            if waiting == key or any(key in wait.on for wait in waits)
        }
        now = order() if concerned else None
        return [k for k, causes in concerned.items() if now and not causes <= now.causes(k)]

    def forget_all_but(self, keys: Iterable[Key]) -> None:
        """Drop services that are neither declared nor running."""
        for gone in self._waits.keys() - set(keys):
            del self._waits[gone]
