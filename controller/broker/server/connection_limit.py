"""Connection slots: limits on the connections served at a time, in total and per uid.

A waiting connection costs a file descriptor: the broker reads nothing from it. Reserved slots are
only for the controller and operators.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from controller.broker.server.fair_queue import RoundRobin


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Numbers of slots and of waiting connections."""

    #: Connections served at the same time.
    connections: int = 256
    #: Connections of one client, so that other clients find a free slot.
    connections_of_a_client: int = 64
    #: Connection slots reserved for the controller and operators.
    reserved: int = 64
    #: Connections of all uids that wait for a slot.
    waiting: int = 1024
    #: How long a connection waits for a slot.
    wait_s: float = 10.0


class ConnectionSlots:
    """The slots in use, and the connections that wait.

    *trusted* returns True for the uid of the controller or an operator, by the policy in force.
    """

    def __init__(self, size: SlotLimits, *, trusted: Callable[[int], bool]) -> None:
        self._size = size
        self._trusted = trusted
        self._of: Counter[int] = Counter()
        self._taken = 0
        self._waiting: Counter[int] = Counter()
        self._queue = RoundRobin()

    async def take(self, uid: int) -> bool:
        """Take a slot, and wait for a free slot if necessary. Return False after a timeout.

        The caller returns the slot with ``leave``.
        """
        if self._has_room(uid):
            self._occupy(uid)
            return True
        if self._waiting.total() >= self._size.waiting:
            return False
        self._waiting[uid] += 1
        waiter = self._queue.add(uid)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._size.wait_s):
                    await asyncio.shield(waiter)
        except asyncio.CancelledError:
            if waiter.done():
                self.leave(uid)
            raise
        finally:
            self._waiting -= Counter((uid,))
            waiter.cancel()
        return not waiter.cancelled()

    def leave(self, uid: int) -> None:
        """Return a slot. The next waiting connection with room gets it at once."""
        self._taken -= 1
        self._of -= Counter((uid,))  # without uids that have none left
        while (following := self._queue.release(self._has_room)) is not None:
            self._occupy(following)

    def is_wanted(self, uid: int) -> bool:
        """Return True if a waiting connection could use a slot of this uid."""
        if uid in self._waiting or not self._waiting or self._trusted(uid):
            return uid in self._waiting
        return self._taken >= self._size.connections - self._size.reserved

    def _occupy(self, uid: int) -> None:
        self._taken += 1
        self._of[uid] += 1

    def _has_room(self, uid: int) -> bool:
        size, trusted = self._size, self._trusted(uid)
        most = size.connections if trusted else max(1, size.connections - size.reserved)
        share = size.connections if trusted else size.connections_of_a_client
        return self._taken < most and self._of[uid] < share
