"""Connection slots, and the connections that wait for them."""

from __future__ import annotations

import asyncio

import pytest

from controller.broker.server.connection_limit import ConnectionSlots, SlotLimits
from tests.unit.broker.serving import run

ALICE, BOB, ROOT = 1000, 1001, 0


def seats(*, waiting: int = 10, wait_s: float = 60.0) -> ConnectionSlots:
    """Return four slots: one reserved for root, at most two for a client."""
    size = SlotLimits(4, connections_of_a_client=2, reserved=1, waiting=waiting, wait_s=wait_s)
    return ConnectionSlots(size, trusted=lambda uid: uid == ROOT)


async def begun(tasks: list[asyncio.Task[bool]]) -> list[bool]:
    """Let all tasks run until they wait, and return those with a slot."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


def test_a_client_has_its_share_and_the_last_places_are_the_trusted_ones() -> None:
    async def test() -> None:
        places = seats(wait_s=0)
        taken = [await places.take(uid) for uid in (ALICE, ALICE, ALICE, BOB, BOB, ROOT, ROOT)]
        assert taken == [True, True, False, True, False, True, False]

    run(test())


def test_a_place_that_is_given_back_goes_to_who_waits_and_may_have_it() -> None:
    async def test() -> None:
        places = seats()
        for uid in (ALICE, ALICE, BOB):
            assert await places.take(uid)
        waiting = [asyncio.ensure_future(places.take(uid)) for uid in (ALICE, ALICE, BOB)]
        assert await begun(waiting) == [False, False, False]
        assert (places.is_wanted(ALICE), places.is_wanted(BOB)) == (True, True)
        assert not places.is_wanted(ROOT), "what is left to root is no client's"
        places.leave(BOB)  # alice has her share already
        assert await begun(waiting) == [False, False, True]
        places.leave(ALICE)
        assert await begun(waiting) == [True, False, True]
        places.leave(ALICE)
        assert await asyncio.gather(*waiting) == [True, True, True]
        assert not places.is_wanted(ALICE)

    run(test())


def test_only_so_many_wait_and_none_for_ever() -> None:
    async def test() -> None:
        places = seats(waiting=1, wait_s=0.02)
        for _ in range(2):
            assert await places.take(ALICE)
        waiting = asyncio.ensure_future(places.take(ALICE))
        assert await begun([waiting]) == [False]
        assert not await places.take(ALICE)
        assert not await waiting
        places.leave(ALICE)
        assert await places.take(ALICE)

    run(test())


def test_who_is_cut_off_while_it_waits_takes_no_place() -> None:
    async def test() -> None:
        places = seats()
        for _ in range(2):
            assert await places.take(ALICE)
        early = asyncio.ensure_future(places.take(ALICE))
        late = asyncio.ensure_future(places.take(ALICE))
        await begun([early, late])
        early.cancel()
        await begun([early])
        places.leave(ALICE)  # to late, which is cut off before it knows
        late.cancel()
        for task in (early, late):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await places.take(ALICE)

    run(test())
