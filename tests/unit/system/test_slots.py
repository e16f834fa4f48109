"""Slots of groups: what each group has, who waits, and who gets a slot next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from controller.system.slots import Share, Slot, Slots, SlotUser

ALICE, BOB, ROOT = SlotUser("client", 1000), SlotUser("client", 1001), SlotUser("operator", 0)


def slots(*, wait_s: float = 60.0) -> Slots:
    """Return three slots for clients, two for each of them, and one for operators."""
    return Slots({"client": Share(3, 2), "operator": Share(1, 1)}, wait_s=wait_s)


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test, 20)

    asyncio.run(bounded())


async def begun(tasks: list[asyncio.Task[Slot | None]]) -> list[bool]:
    """Let all tasks run until they wait, and return those with a slot."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def taken(places: Slots, *users: SlotUser) -> list[Slot]:
    """Take slots that are free."""
    found = [await places.take(user) for user in users]
    assert None not in found
    return [slot for slot in found if slot is not None]


def test_a_group_s_slots_are_its_own_and_a_user_has_a_share_of_them() -> None:
    async def test() -> None:
        places = slots(wait_s=0)
        users = (ALICE, ALICE, ALICE, BOB, BOB, ROOT, ROOT, SlotUser("stranger", 5))
        found = [await places.take(user) for user in users]
        assert [slot is not None for slot in found] == [
            *(True, True, False),
            *(True, False),
            *(True, False),
            False,
        ]
        assert places.in_use() == {"client": 3, "operator": 1}

    run(test())


def test_a_released_slot_goes_to_a_waiting_user_with_room() -> None:
    async def test() -> None:
        places = slots()
        first, second, bobs = await taken(places, ALICE, ALICE, BOB)
        waiting = [asyncio.ensure_future(places.take(user)) for user in (ALICE, ALICE, BOB)]
        assert await begun(waiting) == [False, False, False]
        assert (places.is_wanted(ALICE), places.is_wanted(BOB)) == (True, True)
        assert not places.is_wanted(ROOT), "no client gets an operator's slot"
        bobs.release()  # alice has her share already
        assert await begun(waiting) == [False, False, True]
        first.release()
        first.release()  # a second release returns nothing
        assert await begun(waiting) == [True, False, True]
        second.release()
        assert None not in await asyncio.gather(*waiting)
        assert not places.is_wanted(ALICE)

    run(test())


def test_a_user_waits_for_a_bounded_time() -> None:
    async def test() -> None:
        places = slots(wait_s=0.02)
        first, _ = await taken(places, ALICE, ALICE)
        assert await places.take(ALICE) is None
        first.release()
        await taken(places, ALICE)

    run(test())


def test_a_cancelled_user_takes_no_slot() -> None:
    async def test() -> None:
        places = slots()
        first, _ = await taken(places, ALICE, ALICE)
        early = asyncio.ensure_future(places.take(ALICE))
        late = asyncio.ensure_future(places.take(ALICE))
        await begun([early, late])
        early.cancel()
        await begun([early])
        first.release()  # to late, which is cancelled before it runs again
        late.cancel()
        for task in (early, late):
            with pytest.raises(asyncio.CancelledError):
                await task
        await taken(places, ALICE)

    run(test())
