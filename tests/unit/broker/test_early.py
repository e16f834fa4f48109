"""Clients that are answered before the outcome of their change is recorded (decision 0025)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from controller.broker import driver as module
from controller.broker.commands import Write
from controller.broker.driver import Driver
from controller.model.entries import Actor, Entry, Record, Reply
from tests.unit.broker.dialogue import ALICE, BOB, TIME
from tests.unit.broker.serving import run

DONE = Reply(204)
CLIENT: Any = object()  # nothing is streamed to it


class Disk:
    """The books' side: outcomes get durable when the test says so, or fail then."""

    def __init__(self) -> None:
        self.turns = asyncio.Event()
        self.written: list[str] = []
        self.asked: list[str] = []

    def look_up(self) -> None:
        return None

    async def write(self, entry: Entry) -> Record | None:
        self.asked.append(entry.id)
        if entry.stage == "outcome":
            await self.turns.wait()
        self.written.append(entry.id)
        return Record(1, TIME, entry, "", "")


def change(name: str, *, then: Callable[[], None] = lambda: None) -> Callable[[], Any]:
    """Return steps whose client is answered before their outcome is written."""

    def steps() -> Any:
        try:
            yield Write(Entry(f"{name}-intent", "intent"))
            yield Write(Entry(f"{name}-outcome", "outcome"), DONE)
        finally:
            then()
        return Reply(500)

    return steps


def read() -> Any:
    yield Write(Entry("read", "read"))
    return Reply(200)


class Scene:
    """A driver, its disk, and how often it said that a change ended."""

    def __init__(self) -> None:
        self.disk, self.ended = Disk(), 0
        books: Any = self.disk
        nothing: Any = None
        self.driver = Driver(
            upstream=nothing,
            books=books,
            meter=books,
            examine=nothing,
            asking=nothing,
            ended=self._note,
        )

    def _note(self) -> None:
        self.ended += 1

    async def ask(
        self, begin: Callable[[], Any], actor: Actor = ALICE, *, changes: bool = True
    ) -> Any:
        return await self.driver.drive(begin, CLIENT, actor=actor, changes=changes)

    def asks(self, begin: Callable[[], Any], actor: Actor = ALICE, *, changes: bool = True) -> Any:
        return asyncio.ensure_future(self.ask(begin, actor, changes=changes))


async def turns() -> None:
    """Let every task go as far as it gets."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_client_is_answered_and_the_steps_go_on_to_their_end() -> None:
    ends: list[str] = []

    async def test() -> None:
        scene = Scene()
        assert await scene.ask(change("a", then=lambda: ends.append("a"))) == DONE
        assert (scene.disk.asked, ends, scene.ended) == (["a-intent"], [], 0)
        await turns()
        assert (scene.disk.asked[1:], scene.disk.written) == (["a-outcome"], ["a-intent"])
        scene.disk.turns.set()
        await turns()
        assert (scene.disk.written[1:], ends, scene.ended) == (["a-outcome"], ["a"], 1)

    run(test())


def test_its_next_request_waits_for_the_outcome_and_nobody_elses_does() -> None:
    async def test() -> None:
        scene = Scene()
        await scene.ask(change("a"))
        mine, looks = scene.asks(change("b")), scene.asks(read, changes=False)
        others = scene.asks(change("c"), BOB)
        await turns()
        assert others.result() == DONE
        assert (mine.done(), looks.done()) == (False, False)
        assert "b-intent" not in scene.disk.asked
        scene.disk.turns.set()
        assert (await mine, await looks) == (DONE, Reply(200))
        assert scene.disk.written.index("a-outcome") < scene.disk.written.index("b-intent")

    run(test())


def test_where_the_disk_hangs_reads_go_on_and_changes_are_refused_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BEHIND_S", 0.01)
    monkeypatch.setattr(module, "ADMISSION_S", 0.05)

    async def test() -> None:
        scene = Scene()
        await scene.ask(change("a"))
        assert await scene.ask(read, changes=False) == Reply(200)
        refused = await scene.ask(change("b"))
        assert refused.status == 503
        assert b"longer than 0.05 s to be recorded" in refused.body
        assert "b-intent" not in scene.disk.asked
        scene.disk.turns.set()
        await turns()
        assert await scene.ask(change("b")) == DONE

    run(test())


def test_the_brokers_own_steps_answer_nobody_early() -> None:
    async def test() -> None:
        scene = Scene()
        scene.disk.turns.set()
        assert await scene.driver.run(change("a")()) == Reply(500)

    run(test())


def test_the_end_waits_for_outcomes_but_not_for_a_disk_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BEHIND_S", 0.05)
    ends: list[str] = []

    async def test(*, hangs: bool) -> list[str]:
        scene = Scene()
        await scene.ask(change("a", then=lambda: ends.append("a")))
        closing = asyncio.ensure_future(scene.driver.close())
        await turns()
        assert not closing.done()
        if not hangs:
            scene.disk.turns.set()
        await closing
        await turns()
        return scene.disk.written

    assert asyncio.run(test(hangs=False)) == ["a-intent", "a-outcome"]
    assert asyncio.run(test(hangs=True)) == ["a-intent"]
    assert ends == ["a", "a"]


def test_what_fails_after_the_answer_is_told_and_holds_nobody_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def steps() -> Any:
        yield Write(Entry("a", "outcome"), DONE)
        raise ZeroDivisionError

    async def test() -> None:
        scene = Scene()
        scene.disk.turns.set()
        assert await scene.ask(steps) == DONE
        assert await scene.ask(change("b")) == DONE
        assert scene.ended >= 1

    run(test())
    assert "failed after its answer" in caplog.text
