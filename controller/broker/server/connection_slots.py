"""Connections that are served, and those that wait for it: so many, of each uid and of all.

Who waits costs a descriptor: nothing of it is read. Places that are left to controller and
operators are nobody else's, however many come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from controller.broker.server.fair_queue import RoundRobin


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """How many there are."""

    all: int
    of_a_client: int
    #: That many are left to controller and operators, however many clients there are.
    reserved: int
    waiting: int
    wait_s: float


class ConnectionSlots:
    """Who is served now. ``trusted`` tells controller and operators by uid, as it is then."""

    def __init__(self, size: SlotLimits, *, trusted: Callable[[int], bool]) -> None:
        self._size = size
        self._trusted = trusted
        self._of: dict[int, int] = {}
        self._taken = 0
        self._waiting: dict[int, int] = {}
        self._rounds = RoundRobin()

    async def take(self, uid: int) -> bool:
        """Take a place, waiting for one a while; False: there was none. Give it back with leave."""
        if self._room(uid):
            self._sit(uid)
            return True
        if sum(self._waiting.values()) >= self._size.waiting:
            return False
        self._waiting[uid] = self._waiting.get(uid, 0) + 1
        place = self._rounds.add(uid)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._size.wait_s):
                    await asyncio.shield(place)
        except asyncio.CancelledError:
            if place.done():
                self.leave(uid)
            raise
        finally:
            _less(self._waiting, uid)
            place.cancel()
        return not place.cancelled()

    def leave(self, uid: int) -> None:
        """Give a place back; the next one that may have it gets it at once."""
        self._taken -= 1
        _less(self._of, uid)
        while (following := self._rounds.release(self._room)) is not None:
            self._sit(following)

    def wanted(self, uid: int) -> bool:
        """Tell whether somebody waits who could have a place that this uid holds."""
        if uid in self._waiting or not self._waiting or self._trusted(uid):
            return uid in self._waiting
        return self._taken >= self._size.all - self._size.reserved

    def _sit(self, uid: int) -> None:
        self._taken += 1
        self._of[uid] = self._of.get(uid, 0) + 1

    def _room(self, uid: int) -> bool:
        size, trusted = self._size, self._trusted(uid)
        most = size.all if trusted else max(1, size.all - size.reserved)
        share = size.all if trusted else size.of_a_client
        return self._taken < most and self._of.get(uid, 0) < share


def _less(counts: dict[int, int], uid: int) -> None:
    counts[uid] -= 1
    if not counts[uid]:
        del counts[uid]
