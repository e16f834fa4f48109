"""Threads for calls that can hang: their number is limited, and a thread serves many calls."""

from __future__ import annotations

import asyncio
import threading

import pytest

from controller.broker.server.thread_limit import ThreadLimit, ThreadsBusy


def test_calls_one_after_another_share_a_thread() -> None:
    threads = ThreadLimit[str, int](lambda _: threading.get_ident(), threads=4)

    async def test() -> None:
        assert len({await threads("") for _ in range(20)}) == 1

    asyncio.run(test())


async def both_free(threads: ThreadLimit[str, str]) -> None:
    """Return once two calls are taken at a time; a cancelled call ends at an instant of its own."""
    while True:
        calls = (threads("a"), threads("b"))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        if [*answers] == ["a", "b"]:
            return
        assert {type(each) for each in answers} <= {str, ThreadsBusy}


def test_a_call_beyond_the_limit_is_refused_and_a_cancelled_call_keeps_its_thread() -> None:
    gate = threading.Event()

    def hang(argument: str) -> str:
        assert gate.wait(10)
        return argument

    threads = ThreadLimit(hang, threads=2)

    async def test() -> None:
        first, second = (asyncio.ensure_future(threads(name)) for name in ("first", "second"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        with pytest.raises(ThreadsBusy):
            await threads("third")
        gate.set()
        assert await second == "second"
        await both_free(threads)

    asyncio.run(test())


def test_an_error_is_the_caller_s_and_the_thread_serves_on() -> None:
    def divide(by: int) -> float:
        return 6 / by

    threads = ThreadLimit(divide, threads=1)

    async def test() -> None:
        with pytest.raises(ZeroDivisionError):
            await threads(0)
        assert await threads(3) == 2

    asyncio.run(test())


def test_an_idle_thread_ends_and_the_next_call_starts_another() -> None:
    threads = ThreadLimit[str, threading.Thread](
        lambda _: threading.current_thread(), threads=2, idle_s=0.01
    )

    async def test() -> None:
        first = await threads("")
        await asyncio.to_thread(first.join, 10)
        assert not first.is_alive()
        assert (await threads("")) is not first

    asyncio.run(test())
