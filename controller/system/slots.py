"""Fairness among users: who waits continues in turn.

``Slots`` bound how many things are in use at a time, divided among groups of users.

A group's slots are its own: no other group takes or borrows them. In a group, a user (a uid, or an
owner) has a share, and the users who wait get free slots in turn. ``FairQueue`` lets one request in an iteration of the
event loop be read and judged: a thousand requests at once delay another client by a single one.
``AdmissionLock`` is the lock that a mutation holds until its intent is written.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

#: From this number of waiters on, the queue pauses between two turns.
CROWD = 16
CROWDED_S = 0.004

Waiter = asyncio.Future[None]
#: A uid, or the name of an owner.
SlotHolder = int | str


class RoundRobin:
    """Waiters by user: first come, first served within a user, and the users in turn."""

    def __init__(self) -> None:
        self._of: OrderedDict[SlotHolder, deque[Waiter]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of waiters, including cancelled ones not removed yet."""
        return sum(len(waiters) for waiters in self._of.values())

    def add(self, uid: SlotHolder) -> Waiter:
        """Add a waiter of this uid. The caller awaits it."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._of.setdefault(uid, deque()).append(waiter)
        return waiter

    def release(self, may: Callable[[SlotHolder], bool] = lambda _uid: True) -> SlotHolder | None:
        """Release the next waiter whose uid passes *may*. Return the uid, or None."""
        for uid in tuple(self._of):
            waiters = self._of[uid]
            while waiters and waiters[0].done():
                waiters.popleft()  # cancelled
            if waiters and may(uid):
                waiters.popleft().set_result(None)
                self._of.move_to_end(uid)
                if not waiters:
                    del self._of[uid]
                return uid
            if not waiters:
                del self._of[uid]
        return None


class SlotUser(NamedTuple):
    """A user of slots."""

    #: The name of a group, for example ``client``.
    group: str
    uid: SlotHolder


@dataclass(frozen=True, slots=True)
class Share:
    """The slots of one group."""

    total: int
    #: Slots of one uid of the group.
    of_a_user: int


class Slot:
    """One slot in use."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Return the slot. A second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()


class _Group:
    """The slots of one group: those in use, and the users who wait."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.taken: Counter[SlotHolder] = Counter()
        #: The sum of ``taken``.
        self.total = 0
        self.waiting: Counter[SlotHolder] = Counter()
        self.queue = RoundRobin()

    def has_room(self, uid: SlotHolder) -> bool:
        share = self.share
        return self.total < share.total and self.taken[uid] < share.of_a_user

    def occupy(self, uid: SlotHolder) -> None:
        self.taken[uid] += 1
        self.total += 1

    def leave(self, uid: SlotHolder) -> None:
        self.taken[uid] -= 1
        self.total -= 1
        if not self.taken[uid]:
            del self.taken[uid]


class Slots:
    """The slots of all groups. A group without a share has no slots. Belongs to one event loop.

    *wait_s* is how long a user waits for a slot; None for as long as it takes.
    """

    def __init__(self, shares: Mapping[str, Share], *, wait_s: float | None) -> None:
        self._groups = {name: _Group(share) for name, share in shares.items()}
        self._wait_s = wait_s

    def take_now(self, user: SlotUser) -> Slot | None:
        """Take a free slot. Return None if the group or the user has none left."""
        group = self._groups.get(user.group)
        if group is None or not group.has_room(user.uid):
            return None
        return self._occupy(group, user.uid)

    async def take(self, user: SlotUser) -> Slot | None:
        """Take a slot, and wait for a free slot if necessary. Return None after the timeout."""
        group = self._groups.get(user.group)
        if (slot := self.take_now(user)) is not None or group is None:
            return slot
        group.waiting[user.uid] += 1
        waiter = group.queue.add(user.uid)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await asyncio.shield(waiter)
        except asyncio.CancelledError:
            if waiter.done():
                self._leave(group, user.uid)
            raise
        finally:
            group.waiting -= Counter((user.uid,))
            waiter.cancel()
        return None if waiter.cancelled() else Slot(lambda: self._leave(group, user.uid))

    def in_use(self) -> dict[str, int]:
        """Return the number of slots in use of each group."""
        return {name: group.total for name, group in self._groups.items()}

    def is_wanted(self, user: SlotUser) -> bool:
        """Return True if a waiting user could use a slot of this user."""
        group = self._groups[user.group]
        full = group.total >= group.share.total
        return user.uid in group.waiting or (full and bool(group.waiting))

    def _occupy(self, group: _Group, uid: SlotHolder) -> Slot:
        group.occupy(uid)
        return Slot(lambda: self._leave(group, uid))

    def _leave(self, group: _Group, uid: SlotHolder) -> None:
        """Return a slot. The next waiting user with room gets it at once."""
        group.leave(uid)
        while (following := group.queue.release(group.has_room)) is not None:
            group.occupy(following)


class FairQueue:
    """One turn per iteration of the event loop, and fewer turns for a crowd.

    The controller and operators (*trusted*) never wait. A crowd, for example a thousand clients
    that get refusals, leaves about half of the event loop's time to other work.
    """

    def __init__(self, trusted: Callable[[SlotHolder], bool] = lambda _uid: False) -> None:
        self._trusted = trusted
        self._taken = False
        self._waiting = RoundRobin()

    async def take(self, uid: SlotHolder) -> None:
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
