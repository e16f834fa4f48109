"""Fairness between uids and between owners: what waits continues in turn.

- ``FairQueue`` lets one request per iteration of the event loop be read and judged. A thousand
  requests at once delay another client by a single request.
- ``AdmissionLock`` is the lock that a mutation holds until its intent is written.
- ``CheckQueue`` orders the checks of containers, for the owners in turn.
- ``CheckRound`` spreads the periodic checks of all containers.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable

from controller.system.slots import RoundRobin

#: From this number of waiters on, the queue pauses between two turns.
CROWD = 16
CROWDED_S = 0.004


class FairQueue:
    """One turn per iteration of the event loop, and fewer turns for a crowd.

    The controller and operators (*trusted*) never wait. A crowd, for example a thousand clients
    that get refusals, leaves about half of the event loop's time to other work.
    """

    def __init__(self, trusted: Callable[[int], bool] = lambda _uid: False) -> None:
        self._trusted = trusted
        self._taken = False
        self._waiting = RoundRobin()

    async def take(self, uid: int) -> None:
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


#: How many checks run at once, in all and for one owner. Most of a check's time is waiting: for the
#: engine, and between two observations.
CHECKS_MAX = 16
CHECKS_OF_OWNER_MAX = 4


class CheckQueue:
    """Containers to check: the owners in turn, and the containers of an owner in order.

    A container waits at most once, and is never checked twice at a time. One owner's containers
    never take all places, so that their number doesn't delay the checks of another owner.
    """

    def __init__(self) -> None:
        self._due: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        #: The containers that are being checked, with their owners.
        self._running: dict[str, str] = {}

    def add(self, identifier: str, owner: str) -> None:
        """Add a container, unless it waits already."""
        # A dict is searched from its first entry that ever was: slow once thousands have left.
        self._due.setdefault(owner, OrderedDict())[identifier] = None

    def take(self) -> str | None:
        """Return the next container to check, or None while no check can begin."""
        if len(self._running) >= CHECKS_MAX:
            return None
        running = Counter(self._running.values())
        # An owner without a running check goes first.
        for owner in sorted(self._due, key=lambda each: running[each]):
            if running[owner] >= CHECKS_OF_OWNER_MAX:
                break
            waiting = self._due[owner]
            identifier = next((each for each in waiting if each not in self._running), None)
            if identifier is None:
                continue
            del waiting[identifier]
            self._due.move_to_end(owner)
            if not waiting:
                del self._due[owner]
            self._running[identifier] = owner
            return identifier
        return None

    def finish(self, identifier: str) -> None:
        """End the check of a container."""
        del self._running[identifier]


class CheckRound:
    """The periodic checks of all containers, spread over the period.

    All at once would keep the broker busy for half a minute at 10,000 containers, and each request would
    wait for other checks. Times are monotonic.
    """

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._size = 0
        self._began = 0.0

    def begin(self, identifiers: Iterable[str], now: float) -> None:
        """Begin a round: each container is due once within the period."""
        self._waiting = deque(identifiers)
        self._size, self._began = len(self._waiting), now

    def due_at(self, period_s: float) -> float:
        """Return when the next container is due; the end of the round if none waits."""
        if not self._waiting:
            return self._began + period_s
        return self._began + period_s * (self._size - len(self._waiting) + 1) / self._size

    def take(self, now: float, period_s: float) -> list[str]:
        """Return the containers that are due. They leave the round."""
        found = []
        while self._waiting and self.due_at(period_s) <= now:
            found.append(self._waiting.popleft())
        return found

    def is_over(self, now: float, period_s: float) -> bool:
        """Return True if the next round is to begin."""
        return not self._waiting and self.due_at(period_s) <= now
