"""The driver: every command has a timeout, and a refusal delays no other request."""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controller.broker.engine.client import BROKER
from controller.broker.gate.commands import (
    PROOFS_BUSY,
    SECRETS_BUSY,
    EndProcess,
    InspectPaths,
    OpenSecret,
    ReadEngine,
    SecretOpened,
    VerifyProof,
    WriteRecord,
)
from controller.broker.secrets.opener import SecretWorker
from controller.broker.server import driver as module
from controller.broker.server.driver import Driver
from controller.core.secrets.declared import GeneratedSource, SecretName
from controller.model.records import Entry, Record, Reply
from controller.system.slots import SlotUser
from tests.unit.broker.dialogue import ALICE, BOB, CONTROLLER, TIME
from tests.unit.broker.serving import run
from tests.unit.core.proofs.repository import rule

NOTHING: Any = None


class Books:
    """A record store: each write waits for the test."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.entries: list[Entry] = []

    def open_secret(self, _command: OpenSecret) -> SecretOpened:
        raise AssertionError("this test opens no Secret")

    def refresh_health(self) -> None:
        return None

    async def write(self, entry: Entry) -> Record:
        self.entries.append(entry)
        await self.released.wait()
        return Record(1, TIME, entry, "", "")


class Engine:
    """An engine client: each read waits for the test."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def read(
        self,
        _method: str,
        _path: str,
        *,
        user: SlotUser,
        auth: str,
        rows: object = None,
        bytes_max: int = 0,
        deadline_s: float,
    ) -> Reply:
        assert (auth, deadline_s > 0) == ("", True)
        await self.released.wait()
        return Reply(200)


def a_driver(books: Any = None, engine: Any = None, inspect_paths: Any = None) -> Driver:
    books = books or Books()
    return Driver(
        client=engine,
        store=books,
        limiter=books,
        inspect_paths=inspect_paths,
        queries=books,
        files=books,
    )


def refused() -> Any:
    yield WriteRecord(Entry("r", "refusal"))
    return Reply(403)


def changing(name: str) -> Callable[[], Any]:
    """Return a flow that reads from the engine and writes an intent."""

    def steps() -> Any:
        yield ReadEngine(f"/{name}")
        yield WriteRecord(Entry(name, "intent"))
        return Reply(204)

    return steps


def test_a_filesystem_that_hangs_shows_nothing_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "INSPECT_S", 0.05)
    released = threading.Event()

    def hang(_paths: tuple[str, ...]) -> tuple[()]:
        released.wait(5.0)
        return ()

    async def drive() -> object:
        try:
            return await a_driver(inspect_paths=hang).run(steps())
        finally:
            released.set()

    def steps() -> Any:
        return (yield InspectPaths(("/srv/hung",)))

    assert asyncio.run(drive()) == ()


def test_so_many_looks_may_hang_and_the_next_one_sees_nothing_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "INSPECT_S", 20)
    released = threading.Event()
    began = threading.Semaphore(0)

    def hang(paths: tuple[str, ...]) -> Any:
        began.release()
        released.wait(20)
        return paths

    def steps() -> Any:
        return (yield InspectPaths(("/srv/hung",)))

    async def test() -> None:
        driver = a_driver(inspect_paths=hang)
        hung = [asyncio.ensure_future(driver.run(steps())) for _ in range(module.INSPECTIONS_MAX)]
        for _ in hung:
            await asyncio.to_thread(began.acquire)
        assert await driver.run(steps()) == ()
        released.set()
        assert await asyncio.gather(*hung) == [("/srv/hung",)] * len(hung)
        assert await driver.run(steps()) == ("/srv/hung",)

    run(test())


def test_while_a_refusal_is_written_other_changes_go_on() -> None:
    async def test() -> None:
        books, engine = Books(), Engine()
        engine.released.set()
        driver = a_driver(books, engine)
        refusing = asyncio.ensure_future(driver.drive(refused, NOTHING, admits=ALICE))
        begun = asyncio.ensure_future(driver.drive(changing("a"), NOTHING, admits=CONTROLLER))
        for _ in range(5):
            await asyncio.sleep(0)
        assert [entry.stage for entry in books.entries] == ["refusal", "intent"]
        books.released.set()
        assert (await refusing, await begun) == (Reply(403), Reply(204))

    run(test())


def test_who_waited_for_the_admission_begins_anew_and_a_refusal_does_not_wait() -> None:
    seen: list[int] = []

    async def test() -> None:
        books, engine = Books(), Engine()
        driver = a_driver(books, engine)

        def counting() -> Any:
            seen.append(len(books.entries))
            yield WriteRecord(Entry("b", "intent"))
            return Reply(204)

        first = asyncio.ensure_future(driver.drive(changing("a"), NOTHING, admits=CONTROLLER))
        second = asyncio.ensure_future(driver.drive(counting, NOTHING, admits=BOB))
        third = asyncio.ensure_future(driver.drive(refused, NOTHING, admits=ALICE))
        for _ in range(5):
            await asyncio.sleep(0)
        assert [entry.stage for entry in books.entries] == ["refusal"]
        assert seen == [0]
        engine.released.set()
        books.released.set()
        await asyncio.gather(first, second, third)
        assert seen == [0, 2]
        assert [entry.id for entry in books.entries] == ["r", "a", "b"]

    run(test())


def test_a_change_of_the_controller_is_judged_once_although_it_waits() -> None:
    begun: list[str] = []

    def beginning(name: str) -> Callable[[], Any]:
        def steps() -> Any:
            begun.append(name)
            yield from changing(name)()
            return Reply(204)

        return steps

    async def test() -> None:
        books, engine = Books(), Engine()
        driver = a_driver(books, engine)
        changes = [
            asyncio.ensure_future(driver.drive(beginning(name), NOTHING, admits=CONTROLLER))
            for name in ("a", "b", "c")
        ]
        engine.released.set()
        books.released.set()
        await asyncio.gather(*changes)
        assert [entry.id for entry in books.entries] == ["a", "b", "c"]

    run(test())
    assert begun == ["a", "b", "c"]


def test_looks_that_follow_are_asked_for_at_once_and_anew_after_a_change() -> None:
    asked: list[str] = []
    together = asyncio.Barrier(2)

    class Both:
        async def read(
            self,
            _method: str,
            path: str,
            *,
            user: SlotUser,
            auth: str = "",
            rows: object = None,
            bytes_max: int = 0,
            deadline_s: float,
        ) -> Reply:
            assert (user, auth, deadline_s > 0) == (BROKER, "", True)
            asked.append(path)
            if len(asked) <= 2:
                await together.wait()  # each of the first two waits for the other
            await asyncio.sleep(0)
            return Reply(200, str(len(asked)).encode())

    def steps() -> Any:
        yield ReadEngine("/a", ahead=("/b", "/unused"))
        yield ReadEngine("/b")
        yield ReadEngine("/b")
        yield ReadEngine("/a", ahead=("/c",))
        yield WriteRecord(Entry("r", "read"))
        return (yield ReadEngine("/c"))

    async def test() -> None:
        books = Books()
        books.released.set()
        await a_driver(books, Both()).run(steps())

    run(test())
    assert sorted(asked[:3]) == ["/a", "/b", "/unused"]
    assert asked[3:] == ["/b", "/a", "/c", "/c"]


class Counting:
    """An engine that answers reads, and notes their paths."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def read(self, _method: str, path: str, **_more: object) -> Awaitable[Reply]:
        self.asked.append(path)
        return asyncio.sleep(0, Reply(200))


def test_no_more_looks_are_asked_for_ahead_than_a_few() -> None:
    engine = Counting()

    def steps() -> Any:
        return (yield ReadEngine("/first", ahead=tuple(f"/{n}" for n in range(50))))

    run(a_driver(engine=engine).run(steps()))
    assert len(engine.asked) == 1 + module.AHEAD_MAX


def test_a_read_that_is_answered_makes_room_for_the_next_announced_one() -> None:
    engine = Counting()
    paths = [f"/{n}" for n in range(module.AHEAD_MAX + 9)]

    def steps() -> Any:
        for number, path in enumerate(paths):
            yield ReadEngine(path, ahead=tuple(paths[number + 1 :]))
            assert len(engine.asked) >= min(number + module.AHEAD_MAX, len(paths))

    run(a_driver(engine=engine).run(steps()))
    assert sorted(engine.asked) == sorted(paths)


def test_secrets_that_take_long_hold_up_no_other_command() -> None:
    """Their threads are their own: a violator is ended, and further Secrets are refused at once."""
    released, began = threading.Event(), threading.Semaphore(0)
    command = OpenSecret(SecretName("shop", "team", "db"), GeneratedSource({"pw": 32}))
    opened = SecretOpened("hmac:1", ("pw",), b"{}")

    class Files(Books):
        """A store whose decryption waits for the test."""

        def open_secret(self, _command: OpenSecret) -> SecretOpened:
            began.release()
            released.wait(20)
            return opened

    def steps(wanted: Any) -> Any:
        return (yield wanted)

    async def test() -> None:
        driver = a_driver(books=Files())
        slow = [
            asyncio.ensure_future(driver.run(steps(command))) for _ in range(module.OPENINGS_MAX)
        ]
        for _ in slow:
            await asyncio.to_thread(began.acquire)
        assert await driver.run(steps(command)) == SECRETS_BUSY
        assert await driver.run(steps(EndProcess(2**22 + 1, "c"))) != ""
        released.set()
        assert await asyncio.gather(*slow) == [opened] * len(slow)

    asyncio.run(test())


def test_the_worker_of_secrets_outlives_the_request_that_started_it() -> None:
    """The kernel ends the worker with the thread that started it."""
    worker = SecretWorker(monotonic=time.monotonic)
    command = OpenSecret(SecretName("shop", "team", "db"), GeneratedSource({"pw": 32}))

    class Files(Books):
        """A store that says which worker there is."""

        def open_secret(self, _command: OpenSecret) -> SecretOpened:
            worker.start()
            return SecretOpened(str(worker.pid), (), b"")

    def steps() -> Any:
        return (yield command)

    async def test() -> None:
        driver = a_driver(books=Files())
        first = await driver.run(steps())
        # The end of a thread, and of the worker with it, would come within this time.
        process = os.pidfd_open(int(first.content))
        ended: object = await asyncio.to_thread(select.select, [process], [], [], 0.5)
        os.close(process)
        assert ended == ([], [], [])
        assert await driver.run(steps()) == first

    try:
        asyncio.run(test())
    finally:
        worker.stop()


def test_a_change_does_not_wait_for_a_proof_under_verification() -> None:
    begun, done = threading.Event(), threading.Event()

    def prove(_command: VerifyProof) -> Any:
        begun.set()
        assert done.wait(30)
        return PROOFS_BUSY

    def upload() -> Any:
        yield VerifyProof(rule("0" * 40), b"")
        return Reply(409)

    async def drive() -> None:
        books, engine = Books(), Engine()
        books.released.set()
        engine.released.set()
        driver = a_driver(books, engine)
        driver.use_prover(prove)
        proof = asyncio.create_task(driver.drive(upload, NOTHING, admits=CONTROLLER))
        await asyncio.to_thread(begun.wait, 30)
        change = await driver.drive(changing("a"), NOTHING, admits=CONTROLLER)
        assert change == Reply(204)
        assert not proof.done()
        done.set()
        assert await proof == Reply(409)

    run(drive())
