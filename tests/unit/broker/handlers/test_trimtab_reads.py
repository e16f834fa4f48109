"""The journal through the broker: what is asked of it, who is told what, and following it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.engine.relay import ClientStream
from controller.broker.gate.commands import Follow, GiveWay, JournalNotReadable, QueryJournal
from controller.broker.handlers.trimtab_reads import TURN_BYTES
from controller.broker.server.journal_queries import JournalQueries
from controller.core.records.query import (
    EVERYTHING,
    Filter,
    Page,
    QueryResult,
    Question,
    Reader,
    RecordSubject,
)
from controller.core.records.record import GENESIS, line_of, prepare
from controller.model.errors import StateError
from controller.model.records import Actor, Entry, Reply, Role
from controller.system.slots import Share
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    OPERATOR,
    RECORDED,
    Step,
    Told,
    converse,
    request,
    state,
)
from tests.unit.broker.serving import Bench, body_of, get, run, status_of
from tests.unit.broker.serving import ask as ask_broker
from tests.unit.broker.world import DB, WEB, inventory

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
OURS = Reader(Role.OPERATOR, 0)
ALICES = Reader(Role.CLIENT, 1000, "alice")


def ask(target: str, dialogue: list[Step], actor: Actor = OPERATOR) -> Told:
    knows = state(inventory())
    return converse(handle(request("GET", target, actor=actor), knows), dialogue, knows)


NOTHING = RecordSubject()


def found(seq: int, entry: Entry, about: RecordSubject = NOTHING) -> QueryResult:
    record, _ = prepare(entry).seal(seq=seq, time="2026-01-01T12:00:00.000Z", prev=GENESIS)
    return QueryResult(record, about)


READ = found(8, Entry(ID, "read", actor={"uid": 0, "role": "operator"}))


def test_records_are_the_lines_of_the_journal() -> None:
    step: Step = (QueryJournal(Question(Filter(), OURS, limit=500)), Page((READ,)))
    answer = ask("/trimtab/v1/journal", [step])
    assert answer.value.body == line_of(READ.record) + b"\n"
    assert answer.value.headers == (("content-type", "application/x-ndjson"),)


def test_a_long_page_is_made_in_parts_and_others_continue_between_them() -> None:
    long = Entry(ID, "read", actor={"uid": 0}, request={"object": "x" * TURN_BYTES})
    page = tuple(found(seq, long) for seq in range(3))
    step: Step = (QueryJournal(Question(Filter(), OURS, limit=500)), Page(page))
    answer = ask("/trimtab/v1/journal", [step, *[(GiveWay(), None)] * 3])
    assert answer.value.body == b"".join(line_of(each.record) + b"\n" for each in page)


def test_a_page_says_where_the_next_one_begins() -> None:
    wanted = Question(Filter(after=7), OURS, limit=1, last=False)
    answer = ask("/trimtab/v1/journal?after=7&limit=1", [(QueryJournal(wanted), Page((READ,), 8))])
    assert dict(answer.value.headers)["trimtab-following"] == "8"
    from_the_start = Question(Filter(), OURS, limit=500, last=False)
    assert (
        ask("/trimtab/v1/journal?after=0", [(QueryJournal(from_the_start), Page())]).status == 200
    )


def test_all_that_can_be_wanted_is_asked_for() -> None:
    wanted = Filter(
        since="2026-01-01T11:00:00.000Z",
        until="2026-01-01T11:30:00.250Z",
        service="shop/web",
        owner="alice",
        actor="1000",
        verdict="deny",
        stages=frozenset({"intent", "refusal"}),
        action="stop",
        routes=frozenset({"container.stop"}),
        container="web.1-01234567",
        ids=frozenset({WEB, DB}),
        record=ID,
        after=3,
        upto=99,
    )
    question = Question(wanted, OURS, limit=20, last=False, there="2026-01-01T11:00:00.000Z")
    target = (
        "/trimtab/v1/journal?since=2026-01-01T12:00:00%2B01:00&until=2026-01-01T11:30:00.25Z"
        "&service=shop/web&owner=alice&actor=uid:1000&verdict=deny&stages=intent,refusal"
        f"&action=stop&routes=container.stop&container=web.1-01234567&ids={WEB},{DB}&record={ID}"
        "&after=3&upto=99&limit=20&there=2026-01-01T11:00:00Z"
    )
    assert ask(target, [(QueryJournal(question), Page())]).status == 200


@pytest.mark.parametrize(
    "query",
    [
        *("since=yesterday", "until=1h", "there=1767268800", "after=-1", "after=x", "limit=0"),
        *("stages=Intent", "stages=a,,b", "ids=" + ",".join("a" * 65), f"service={'x' * 256}"),
    ],
)
def test_what_makes_no_sense_is_refused(query: str) -> None:
    answer = ask(f"/trimtab/v1/journal?{query}", [("refusal", RECORDED)])
    assert (answer.status, answer.rule) == (400, "query.invalid")


def test_a_client_asks_for_what_it_may_know_and_in_smaller_pages() -> None:
    step: Step = (QueryJournal(Question(Filter(), ALICES, limit=200)), Page())
    assert ask("/trimtab/v1/journal?limit=10000", [step], ALICE).value.body == b""
    controllers = Question(Filter(), Reader(Role.CONTROLLER, 990), limit=500)
    assert (
        ask("/trimtab/v1/journal", [(QueryJournal(controllers), Page())], CONTROLLER).status == 200
    )


def test_a_client_reads_no_identity_no_chain_and_no_record_of_others() -> None:
    entry = Entry(
        ID,
        "outcome",
        actor={"uid": 990, "gid": 990, "pid": 4, "role": "controller", "separated": True},
        result={"status": 409, "error": f"bob-db ({DB}) holds the port of alice-web ({WEB})"},
    )
    about = RecordSubject(
        owner="alice", name="alice-web", id=WEB, action="container.start", method="POST"
    )
    page = Page((found(9, entry, about),))
    step: Step = (QueryJournal(Question(Filter(), ALICES, limit=200)), page)
    told = json.loads(ask("/trimtab/v1/journal?about=1", [step], ALICE).value.body)
    assert told["about"]["name"] == "alice-web"
    assert told["record"]["actor"] == {"role": "controller"}
    assert told["record"]["result"]["error"] == f"… (…) holds the port of alice-web ({WEB})"
    assert not {"prev", "hash"} & told["record"].keys()


def test_about_is_told_beside_the_line() -> None:
    about = RecordSubject(
        *("default", "web", "alice", "web.1", WEB, "container.rename", "POST"), becomes="web"
    )
    page = Page((READ._replace(about=about),))
    step: Step = (QueryJournal(Question(Filter(), OURS, limit=500)), page)
    body = ask("/trimtab/v1/journal?about=1", [step]).value.body
    assert body.endswith(b',"record":' + line_of(READ.record) + b"}\n")
    assert json.loads(body)["about"] == {
        "namespace": "default",
        "service": "web",
        "owner": "alice",
        "name": "web.1",
        "id": WEB,
        "action": "container.rename",
        "method": "POST",
        "becomes": "web",
    }


def test_while_it_can_not_be_asked_it_says_why() -> None:
    untold = JournalNotReadable(
        "journal.indexing", "5 of 9 records are indexed", "try again in a moment"
    )
    answer = ask(
        "/trimtab/v1/journal", [(QueryJournal(Question(Filter(), OURS, limit=500)), untold)]
    )
    assert (answer.status, answer.rule) == (503, "journal.indexing")


def test_following_begins_now_or_after_a_record() -> None:
    now = ask("/trimtab/v1/journal/follow?service=web", []).value
    assert now == Follow(Question(Filter(service="web", after=7), OURS), line=now.line)
    later = ask("/trimtab/v1/journal/follow?after=3", [], ALICE).value
    assert later == Follow(Question(Filter(after=3), ALICES), line=later.line)
    assert json.loads(later.line(READ))["seq"] == 8


# On a socket


def reading(bench: Bench, target: str) -> Any:
    return ask_broker(bench.socket, get(target))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, handle)


@asynccontextmanager
async def following(bench: Bench, query: str = "") -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_unix_connection(bench.socket)
    try:
        writer.write(get(f"/trimtab/v1/journal/follow{query}"))
        yield reader
    finally:
        writer.close()


async def lines_of(reader: asyncio.StreamReader, count: int) -> list[Any]:
    """Return so many lines of a chunked answer, each of which comes in a chunk of its own."""
    await reader.readuntil(b"\r\n\r\n")
    lines: list[Any] = []
    while len(lines) < count:
        line = await reader.readline()
        if line.startswith(b"{"):
            lines.append(json.loads(line))
    return lines


def test_what_was_recorded_is_told_at_once_whole_and_in_order(bench: Bench) -> None:
    async def test() -> None:
        async with bench.serving():
            for _ in range(5):
                assert status_of(await reading(bench, "/nowhere")) == 404
            told = body_of(await reading(bench, "/trimtab/v1/journal?stages=refusal"))
            records = bench.recorded("refusal")
            assert len(records) == 5
            assert told == b"".join(line_of(record) + b"\n" for record in records)
            health = json.loads(body_of(await reading(bench, "/trimtab/v1/health")))
            assert health["journal"]["index"]["behind"] <= health["journal"]["seq"]

    run(test())
    assert (bench.journal.parent / "index.sqlite").stat().st_mode & 0o777 == 0o600


def test_who_follows_is_told_what_was_before_and_what_comes(bench: Bench) -> None:
    async def test() -> None:
        async with bench.serving():
            await reading(bench, "/build")
            async with following(bench, "?after=0&stages=refusal") as reader:
                (first,) = await lines_of(reader, 1)
                await reading(bench, "/session")
                while not (line := await reader.readline()).startswith(b"{"):
                    pass
                second = json.loads(line)
            assert [first["request"]["object"], second["request"]["object"]] == [
                "/build",
                "/session",
            ]

    run(test())


def test_a_follower_does_not_hold_up_the_broker_s_end(bench: Bench) -> None:
    async def test() -> None:
        async with bench.serving():
            reader, _writer = await asyncio.open_unix_connection(bench.socket)
            _writer.write(get("/trimtab/v1/journal/follow"))
            await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b""
        _writer.close()

    run(test())


# How many may, and what an archive does to them


class Archived:
    """An archive with records that a test adds; ``failing`` says what asking it raises.

    ``late`` are records that become durable once it is asked.
    """

    def __init__(self) -> None:
        self.found: list[QueryResult] = []
        self.late: list[QueryResult] = []
        self.failing: StateError | None = None
        self.asked: list[Question] = []
        self.was_asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.indexed = 0
        self.error = ""

    @property
    def durable(self) -> int:
        return self.found[-1].record.seq if self.found else 0

    def ask(self, question: Question) -> Page:
        self.asked.append(question)
        self._loop.call_soon_threadsafe(self.was_asked.set)
        if self.failing is not None:
            raise self.failing
        self.found += self.late
        self.late = []
        rest = [each for each in self.found if each.record.seq > question.wanted.after]
        page = tuple(rest[: question.limit])
        return Page(page, page[-1].record.seq if len(rest) > len(page) else 0)

    def wake(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def asking(test: Callable[[JournalQueries, Archived, Callable[[Reader], Any]], Any]) -> None:
    """Run a test with an asking, its archive, and a way to have a reader follow."""

    async def bounded() -> None:
        archive = Archived()
        asker = JournalQueries(archive, followers=Share(3, 2))
        tasks: list[asyncio.Task[Reply | None]] = []
        writers: list[asyncio.StreamWriter] = []

        async def follow(reader: Reader) -> tuple[asyncio.StreamReader, asyncio.Task[Reply | None]]:
            theirs, ours = socket.socketpair()
            client = ClientStream(*await streams(ours), chunked=False, keep_alive=False)
            answers, writer = await streams(theirs)
            writers.extend((client.writer, writer))
            order = Follow(Question(reader=reader), line=lambda each: line_of(each.record) + b"\n")
            task = asyncio.ensure_future(asker.follow(order, client))
            tasks.append(task)
            await asyncio.sleep(0)
            return answers, task

        try:
            await test(asker, archive, follow)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in writers:
                writer.close()

    run(bounded())


async def streams(end: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(sock=end)


def of_client(uid: int) -> Reader:
    return Reader(Role.CLIENT, uid, "team")


def test_a_peer_and_all_clients_together_have_so_many_followers() -> None:
    async def test(
        _asker: JournalQueries, _archive: Archived, follow: Callable[[Reader], Any]
    ) -> None:
        first = [await follow(of_client(1)) for _ in range(2)]
        _, refused = await follow(of_client(1))
        assert (await refused).status == 429
        await follow(of_client(2))
        _, refused = await follow(of_client(3))
        assert json.loads((await refused).body)["trimtab"]["rule"] == "journal.followers"
        await follow(EVERYTHING)
        await follow(replace(EVERYTHING, role=Role.CONTROLLER))
        first[0][1].cancel()
        await asyncio.gather(first[0][1], return_exceptions=True)
        _, task = await follow(of_client(3))
        assert not task.done(), "a place was given back"

    asking(test)


def test_a_follower_reads_page_by_page_and_goes_on_after_a_failure() -> None:
    async def test(
        _asker: JournalQueries, archive: Archived, follow: Callable[[Reader], Any]
    ) -> None:
        archive.failing = StateError("journal.indexing", "not yet")
        archive.found = [found(seq, Entry(ID, "read")) for seq in range(1, 451)]
        answers, _ = await follow(EVERYTHING)
        await archive.was_asked.wait()
        archive.failing = None
        await answers.readuntil(b"\r\n\r\n")
        seqs = [json.loads(await answers.readline())["seq"] for _ in range(450)]
        assert seqs == list(range(1, 451))
        assert all(question.limit == 200 and not question.last for question in archive.asked)
        archive.found.append(found(451, Entry(ID, "read")))
        assert json.loads(await answers.readline())["seq"] == 451

    asking(test)


def test_a_record_that_becomes_durable_while_a_follower_is_served_is_sent_once() -> None:
    async def test(
        _asker: JournalQueries, archive: Archived, follow: Callable[[Reader], Any]
    ) -> None:
        archive.found = [found(1, Entry(ID, "read"))]
        archive.late = [found(2, Entry(ID, "read"))]
        answers, _ = await follow(EVERYTHING)
        await answers.readuntil(b"\r\n\r\n")
        seqs = [json.loads(await answers.readline())["seq"] for _ in range(2)]
        archive.found.append(found(3, Entry(ID, "read")))
        seqs.append(json.loads(await answers.readline())["seq"])
        assert seqs == [1, 2, 3]

    asking(test)


def test_a_follower_is_let_go_where_the_journal_is_damaged() -> None:
    async def test(
        _asker: JournalQueries, archive: Archived, follow: Callable[[Reader], Any]
    ) -> None:
        archive.failing = StateError("journal.damaged", "record 5")
        archive.found = [found(1, Entry(ID, "read"))]
        _, task = await follow(EVERYTHING)
        assert await asyncio.wait_for(task, 10) is None

    asking(test)


def test_what_can_not_be_asked_is_told_and_lets_the_next_one_ask() -> None:
    async def test(
        asker: JournalQueries, archive: Archived, _follow: Callable[[Reader], Any]
    ) -> None:
        archive.failing = StateError("journal.damaged", "record 5", remedy="look")
        asked = (asker.ask(Question()), asker.ask(Question(reader=of_client(1))))
        untold = JournalNotReadable("journal.damaged", "record 5", "look")
        assert list(await asyncio.gather(*asked)) == [untold, untold]
        archive.failing = None
        assert await asker.ask(Question()) == Page()

    asking(test)


def test_the_uid_of_this_process_is_an_operator_s_here(bench: Bench) -> None:
    """So that the tests above ask as one who may read everything."""

    async def test() -> None:
        async with bench.serving():
            me = json.loads(body_of(await reading(bench, "/trimtab/v1/whoami")))
            assert (me["uid"], me["role"]) == (os.geteuid(), "operator")

    run(test())
