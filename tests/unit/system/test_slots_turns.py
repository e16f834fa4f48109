"""The order of waiting tasks."""

from __future__ import annotations

import asyncio

import pytest

from controller.system.slots import (
    CROWD,
    CROWDED_S,
    AdmissionLock,
    FairQueue,
)
from tests.unit.broker.serving import run

ALICE, BOB, CONTROLLER = 1000, 1001, 990


def test_one_turn_is_given_in_each_round_of_the_loop_and_the_uids_alternate() -> None:
    async def test() -> None:
        turns, rounds, came = FairQueue(), 0, list[tuple[str, int]]()
        ended = asyncio.Event()

        async def ask(name: str, uid: int) -> None:
            await turns.take(uid)
            came.append((name, rounds))
            if len(came) == 5:
                ended.set()

        tasks = [
            asyncio.ensure_future(ask(*each))
            for each in (
                ("a1", ALICE),
                ("a2", ALICE),
                ("a3", ALICE),
                ("a4", ALICE),
                ("c", CONTROLLER),
            )
        ]
        while not ended.is_set():
            rounds += 1
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert [name for name, _ in came] == ["a1", "a2", "c", "a3", "a4"]
        assert len({number for _, number in came}) == 5

    run(test())


async def order_of(admission: AdmissionLock, askers: list[tuple[str, int, bool]]) -> list[str]:
    """Return the order in which waiters get a lock that is held at their start."""
    order: list[str] = []

    async def ask(name: str, uid: int, trusted: bool) -> None:
        await admission.acquire(uid, trusted=trusted)
        order.append(name)
        await asyncio.sleep(0)
        admission.release()

    await admission.acquire(0, trusted=False)
    tasks = [asyncio.ensure_future(ask(*each)) for each in askers]
    await asyncio.sleep(0)
    admission.release()
    await asyncio.gather(*tasks)
    assert admission.is_free
    return order


def test_the_admission_goes_round_the_uids_and_every_second_turn_is_the_trusted_ones() -> None:
    async def test() -> None:
        askers = [(f"a{number}", ALICE, False) for number in range(3)]
        askers += [("b0", BOB, False)]
        askers += [(f"c{number}", CONTROLLER, True) for number in range(2)]
        found = await order_of(AdmissionLock(), askers)
        assert found == ["c0", "a0", "c1", "b0", "a1", "a2"]

    run(test())


def test_who_gives_up_waiting_holds_nothing() -> None:
    async def test() -> None:
        admission = AdmissionLock()
        await admission.acquire(ALICE, trusted=False)
        early = asyncio.ensure_future(admission.acquire(BOB, trusted=False))
        late = asyncio.ensure_future(admission.acquire(CONTROLLER, trusted=True))
        await asyncio.sleep(0)
        early.cancel()
        admission.release()  # to late, which is cancelled before it knows
        late.cancel()
        for task in (early, late):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert admission.is_free

    run(test())


def test_a_crowd_leaves_time_to_others_and_whoever_is_trusted_waits_for_nobody() -> None:
    async def test() -> None:
        turns, came = FairQueue(lambda uid: uid == CONTROLLER), list[int]()
        loop = asyncio.get_running_loop()

        async def ask(uid: int) -> None:
            await turns.take(uid)
            came.append(uid)

        crowd = [asyncio.ensure_future(ask(ALICE)) for _ in range(CROWD + 3)]
        began = loop.time()
        await asyncio.sleep(0)
        await ask(CONTROLLER)
        assert came == [ALICE, CONTROLLER]
        await asyncio.gather(*crowd)
        assert len(came) == CROWD + 4
        assert loop.time() - began >= CROWDED_S  # but only while it is one: the rest goes at once

    run(test())
