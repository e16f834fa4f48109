"""Who comes next, where many ask at once: one uid after the other, however much each asks for.

``FairQueue`` cuts the reading and judging of requests into pieces between which everything else of the
broker goes on: a thousand requests that come at once delay another's by one of them, not by all.
``AdmissionLock`` is the lock that mutations hold until their intent is written.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

Waiter = asyncio.Future[None]


class RoundRobin:
    """Waiters by uid: each uid in the order of its coming, the uids in turn."""

    def __init__(self) -> None:
        self._of: OrderedDict[int, deque[Waiter]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many wait, those included that gave up and aren't passed by yet."""
        return sum(len(waiters) for waiters in self._of.values())

    def add(self, uid: int) -> Waiter:
        """Return a new waiter of this uid, to be awaited."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._of.setdefault(uid, deque()).append(waiter)
        return waiter

    def release(self, may: Callable[[int], bool] = lambda _uid: True) -> int | None:
        """Let the next one go whose uid *may*; return its uid, None if nobody waits that may."""
        for uid in tuple(self._of):
            waiters = self._of[uid]
            while waiters and waiters[0].done():
                waiters.popleft()  # it gave up
            if waiters and may(uid):
                waiters.popleft().set_result(None)
                self._of.move_to_end(uid)
                if not waiters:
                    del self._of[uid]
                return uid
            if not waiters:
                del self._of[uid]
        return None


#: So many waiting for a turn are a crowd: between its turns the others get time.
CROWD = 16
CROWDED_S = 0.004


class FairQueue:
    """One turn each time that the event loop goes round, and fewer for a crowd.

    Who is ``trusted``, the controller and operators, waits for nobody. What a crowd asks for, a
    thousand clients with refusals, leaves at least about half of the loop's time to all else.
    """

    def __init__(self, trusted: Callable[[int], bool] = lambda _uid: False) -> None:
        self._trusted = trusted
        self._taken = False
        self._waiting = RoundRobin()

    async def take(self, uid: int) -> None:
        """Return at once if nobody had a turn in this round of the loop, else when it is time."""
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
    """A lock that goes round the uids; controller and operators get every second turn at least."""

    def __init__(self) -> None:
        self._held = False
        self._trusted_last = False
        self._trusted = RoundRobin()
        self._others = RoundRobin()

    @property
    def free(self) -> bool:
        """Whether nobody holds it."""
        return not self._held

    async def acquire(self, uid: int, *, trusted: bool) -> None:
        """Wait for it and hold it; whoever is cancelled meanwhile doesn't hold it."""
        if not self._held:
            self._held, self._trusted_last = True, trusted
            return
        waiter = (self._trusted if trusted else self._others).add(uid)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()  # it was ours already
            raise

    def release(self) -> None:
        """Hand it to the next one."""
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
