"""Fairness between uids: what waits continues in turn.

- ``FairQueue`` lets one request per iteration of the event loop be read and judged. A thousand
  requests at once delay another client by a single request.
- ``AdmissionLock`` is the lock that a mutation holds until its intent is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controller.system.slots import RoundRobin, User

#: From this number of waiters on, the queue pauses between two turns.
CROWD = 16
CROWDED_S = 0.004


class FairQueue:
    """One turn per iteration of the event loop, and fewer turns for a crowd.

    The controller and operators (*trusted*) never wait. A crowd, for example a thousand clients
    that get refusals, leaves about half of the event loop's time to other work.
    """

    def __init__(self, trusted: Callable[[User], bool] = lambda _uid: False) -> None:
        self._trusted = trusted
        self._taken = False
        self._waiting = RoundRobin()

    async def take(self, uid: User) -> None:
        """Wait for a turn. The first call in an iteration of the event loop returns at once."""
        if self._trusted(uid):
            return
        if self._taken:
            await self._waiting.add(uid)
            return
        self._taken = True
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._taken = self._waiting.release() is not None
        if not self._taken:
            return
        loop = asyncio.get_running_loop()
        if len(self._waiting) < CROWD:
            loop.call_soon(self._next)
        else:
            loop.call_later(CROWDED_S, self._next)


class AdmissionLock:
    """A lock that the uids get in turn. Controller and operators get at least every second turn."""

    def __init__(self) -> None:
        self._held = False
        self._trusted_last = False
        self._trusted = RoundRobin()
        self._others = RoundRobin()

    @property
    def is_free(self) -> bool:
        """True if no task holds the lock."""
        return not self._held

    async def acquire(self, uid: int, *, trusted: bool) -> None:
        """Wait for the lock and take it. A cancelled caller doesn't hold the lock."""
        if not self._held:
            self._held, self._trusted_last = True, trusted
            return
        waiter = (self._trusted if trusted else self._others).add(uid)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()  # the lock was handed over before the cancellation
            raise

    def release(self) -> None:
        """Release the lock, or hand it to the next waiter."""
        assert self._held, "nobody holds the admission"
        first, second = self._trusted, self._others
        trusted_first = not self._trusted_last
        if not trusted_first:
            first, second = second, first
        if first.release() is not None:
            self._trusted_last = trusted_first
        elif second.release() is not None:
            self._trusted_last = not trusted_first
        else:
            self._held = False
