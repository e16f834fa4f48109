"""The controller is answered while the outcome of its change is written (decision 0025)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from controller.broker.gate.commands import WriteRecord
from controller.broker.server import driver as module
from controller.broker.server.driver import Driver
from controller.model.records import Entry, Record, Reply
from tests.unit.broker.dialogue import CONTROLLER, TIME
from tests.unit.broker.serving import run

DONE = Reply(204)
UNAVAILABLE = Reply(503)
CLIENT: Any = object()  # nothing is streamed to it


class Books:
    """The books' side: outcomes get durable, or fail, when the test says so."""

    def __init__(self) -> None:
        self.turns = asyncio.Event()
        self.works = True
        self.asked: list[str] = []
        self.optimistic: list[str] = []
        self.rollbacks = 0

    def refresh_health(self) -> None:
        return None

    async def is_durable_since(self, rollbacks: int) -> bool:
        if self.optimistic:
            await self.turns.wait()
        return self.rollbacks == rollbacks

    async def write(self, entry: Entry, *, optimistic: bool = False) -> Record | None:
        self.asked.append(entry.id)
        if not optimistic:
            return Record(1, TIME, entry, "", "")
        self.optimistic.append(entry.id)
        await self.turns.wait()
        self.optimistic.remove(entry.id)
        self.rollbacks += not self.works
        return Record(1, TIME, entry, "", "") if self.works else None


class NoFiles:
    """A store that no test asks."""

    def open_secret(self, command: object) -> object:
        raise AssertionError(f"a Secret was asked for: {command}")


class Scene:
    """A driver, its books, and how often it said that an intent was left open."""

    def __init__(self) -> None:
        self.books, self.left_open = Books(), 0
        books: Any = self.books
        nothing: Any = None
        files: Any = NoFiles()
        self.driver = Driver(
            client=nothing,
            store=books,
            limiter=books,
            inspect_paths=nothing,
            queries=nothing,
            files=files,
            left_open=self._note,
        )

    def _note(self) -> None:
        self.left_open += 1

    async def ask(self, begin: Callable[[], Any]) -> Any:
        return await self.driver.drive(begin, CLIENT, admits=CONTROLLER)

    def asks(self, begin: Callable[[], Any]) -> Any:
        return asyncio.ensure_future(self.ask(begin))

    async def let_go(self, *, works: bool = True) -> None:
        self.books.works = works
        self.books.turns.set()
        await turns()


def change(name: str, *, then: Callable[[], None] = lambda: None) -> Callable[[], Any]:
    """Return steps whose client is answered before their outcome is written."""

    def steps() -> Any:
        try:
            if (yield WriteRecord(Entry(f"{name}-intent", "intent"))) is None:
                return UNAVAILABLE
            yield WriteRecord(Entry(f"{name}-outcome", "outcome"), DONE)
        finally:
            then()
        return Reply(500)

    return steps


async def turns() -> None:
    """Let every task go as far as it gets."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_client_is_answered_and_the_steps_go_on_to_their_end() -> None:
    ends: list[str] = []

    async def test() -> None:
        scene = Scene()
        assert await scene.ask(change("a", then=lambda: ends.append("a"))) == DONE
        assert (scene.books.asked, ends) == (["a-intent"], [])
        await turns()
        assert (scene.books.asked[1:], ends) == (["a-outcome"], [])
        await scene.let_go()
        assert (ends, scene.left_open) == (["a"], 0)

    run(test())


def test_whatever_is_asked_after_the_answer_meets_books_that_know_of_it() -> None:
    seen: list[list[str]] = []

    async def test() -> None:
        scene = Scene()

        def looks() -> Any:
            seen.append(list(scene.books.optimistic))
            yield from ()
            return Reply(200)

        await scene.ask(change("a"))
        assert await scene.ask(looks) == Reply(200)  # in the same turn: it was sent ahead
        await scene.let_go()

    run(test())
    assert seen == [["a-outcome"]]


def test_no_intent_is_written_before_what_it_was_judged_by_is_durable() -> None:
    async def test() -> None:
        scene = Scene()
        await scene.ask(change("a"))
        following = scene.asks(change("b"))
        await turns()
        assert scene.books.asked == ["a-intent", "a-outcome"]
        await scene.let_go()
        assert await following == DONE
        assert scene.books.asked[2:] == ["b-intent", "b-outcome"]

    run(test())


def test_what_was_judged_by_an_outcome_that_is_taken_back_does_not_happen() -> None:
    async def test() -> None:
        scene = Scene()
        await scene.ask(change("a"))
        following = scene.asks(change("b"))
        await turns()
        await scene.let_go(works=False)
        assert await following == UNAVAILABLE
        assert scene.books.asked == ["a-intent", "a-outcome"]
        assert scene.left_open == 1
        await scene.let_go()
        assert await scene.ask(change("b")) == DONE  # and what begins now knows better

    run(test())


def test_only_the_first_intent_waits_for_that() -> None:
    async def test() -> None:
        scene = Scene()
        scene.books.turns.set()

        def twice() -> Any:
            yield WriteRecord(Entry("a", "intent"))
            scene.books.rollbacks += 1  # somebody else's
            return DONE if (yield WriteRecord(Entry("b", "intent"))) else UNAVAILABLE

        assert await scene.ask(twice) == DONE

    run(test())


def test_the_brokers_own_steps_answer_nobody_early() -> None:
    async def test() -> None:
        scene = Scene()
        scene.books.turns.set()
        assert await scene.driver.run(change("a")()) == Reply(500)

    run(test())


def test_the_end_waits_for_outcomes_but_not_for_a_disk_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends: list[str] = []

    async def test(*, hangs: bool) -> list[str]:
        monkeypatch.setattr(module, "REST_S", 0.05 if hangs else 60.0)
        scene = Scene()
        await scene.ask(change("a", then=lambda: ends.append("a")))
        closing = asyncio.ensure_future(scene.driver.close())
        if not hangs:
            await turns()
            assert not closing.done()
            scene.books.turns.set()
        await closing
        await turns()
        return scene.books.optimistic

    assert asyncio.run(test(hangs=False)) == []
    assert asyncio.run(test(hangs=True)) == ["a-outcome"]
    assert ends == ["a", "a"]


def test_what_fails_after_the_answer_is_told_and_holds_nobody_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def steps() -> Any:
        yield WriteRecord(Entry("a", "outcome"), DONE)
        raise ZeroDivisionError

    async def test() -> None:
        scene = Scene()
        scene.books.turns.set()
        assert await scene.ask(steps) == DONE
        assert await scene.ask(change("b")) == DONE
        await turns()

    run(test())
    assert "failed after its answer" in caplog.text
