"""The broker's client with an engine that responds, sends garbage, hangs, or is down."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from controller.broker.engine.client import IDLE_MAX, ConnectedEngine, EngineClient, pinned_version
from controller.broker.engine.response import ResponseBroken, ResponseReader
from controller.broker.gate.commands import REPLY_BYTES_MAX, Lost, Rows
from controller.model.errors import EngineError, EngineUnavailable, StateError, UsageError
from controller.model.records import Reply
from controller.ports import EngineFacts
from controller.system.slots import Share, Slots, SlotUser
from controller.system.sockets import engine_socket_path
from tests.unit.broker.engine_side import INFO, VERSION, EngineSide, chunked, told
from tests.unit.broker.hostile_answers import BODIES

JSON = (("content-type", "application/json"),)


def with_engine(
    tmp_path: Path, test: Callable[[EngineSide, EngineClient], Awaitable[None]]
) -> EngineSide:
    """Run *test* with an engine and a client."""
    engine = EngineSide(tmp_path / "e.sock")

    async def run() -> None:
        async with engine.serving():
            await asyncio.wait_for(test(engine, EngineClient(str(engine.path))), 20)

    asyncio.run(run())
    return engine


def test_a_mutation_is_sent_as_rebuilt_and_nothing_else(tmp_path: Path) -> None:
    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        engine.answers["POST /v1.45/containers/create"] = told(201, {"Id": "x"})
        reply = await upstream.forward("POST", "/containers/create?name=a", b"{}", deadline_s=5)
        assert reply == Reply(201, b'{"Id": "x"}', JSON)

    engine = with_engine(tmp_path, test)
    assert [head.decode().split("\r\n") for head in engine.heads] == [
        [
            "POST /v1.45/containers/create?name=a HTTP/1.1",
            "Host: docker",
            "Connection: close",
            "Content-Type: application/json",
            "Content-Length: 2",
            "",
            "",
        ]
    ]
    assert engine.sent == [("POST /v1.45/containers/create?name=a", b"{}")]


def test_no_group_of_users_takes_the_connections_of_another(tmp_path: Path) -> None:
    alice, bob, root = SlotUser("client", 1000), SlotUser("client", 1001), SlotUser("operator", 0)
    slots = Slots({"client": Share(2, 1), "operator": Share(1, 1)}, wait_s=0.0)
    full = "all connections to the engine are in use of the group client, or of uid"

    async def test() -> None:
        engine = EngineSide(tmp_path / "e.sock")
        async with engine.serving():
            upstream = EngineClient(str(engine.path), slots=slots)

            async def open_as(user: SlotUser) -> ResponseReader | Lost:
                return await upstream.open("GET", "/events", b"", mutation=False, user=user)

            streams = [await open_as(alice), await open_as(bob)]
            for user in (alice, bob, SlotUser("client", 1002)):
                lost = Lost(f"{full} {user.uid}", sent=False)
                assert await open_as(user) == lost
                assert await upstream.read("GET", "/x", user=user, deadline_s=5) == lost
                assert await upstream.forward("POST", "/x", b"", user=user, deadline_s=5) == lost
            for _ in range(3):  # a read and a mutation return their connection
                assert isinstance(await upstream.read("GET", "/x", user=root, deadline_s=5), Reply)
                sent = await upstream.forward("POST", "/x", b"", user=root, deadline_s=5)
                assert isinstance(sent, Reply)
            for stream in streams:
                assert isinstance(stream, ResponseReader)
                stream.close()
                stream.close()
            assert slots.in_use() == {"client": 0, "operator": 0}
            last = await open_as(alice)
            assert isinstance(last, ResponseReader)
            last.close()
            await last.writer.wait_closed()

    asyncio.run(asyncio.wait_for(test(), 20))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (told(404, {}), Reply(404, b"{}", JSON)),
        (chunked(b"ab", b"c"), Reply(200, b"abc")),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", Reply(200, b"to the end")),
        (b"HTTP/1.1 204 No Content\r\nApi-Version: 1.45\r\n\r\n",
         Reply(204, b"", (("api-version", "1.45"),))),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", Reply(304)),
        (b"", "the engine closed the connection without an answer"),
        (b"HTTP/1.1 200", "the engine closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "the engine's answer broke off"),
        (chunked(b"abc", end=False), "the engine's answer broke off"),
        (b"SSH-2.0-x\r\n\r\n", "the engine's answer isn't HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         "the engine's answer isn't HTTP: "),
        (b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
         "the engine answered 101, which wasn't asked for"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "the engine answered 100, which wasn't asked for"),
        (told(200) + told(200), "the engine's answer isn't HTTP: "),
        (chunked(b"a").replace(b"Connection: close\r\n", b"") * 2,
         "the engine answered more than it was asked"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "the engine's answer isn't HTTP: "),
    ],
)  # fmt: skip
def test_an_answer_is_whole_or_lost(tmp_path: Path, raw: bytes, expected: Reply | str) -> None:
    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        engine.answers["POST /v1.45/x"] = raw
        found = await upstream.forward("POST", "/x", b"", deadline_s=5)
        if isinstance(expected, Reply):
            assert found == expected
            return
        assert isinstance(found, Lost)
        assert found.sent
        assert found.reason.startswith(expected) or len(raw) > 65536, found

    with_engine(tmp_path, test)


def test_the_answer_to_a_head_has_no_body_whatever_its_length(tmp_path: Path) -> None:
    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        engine.answers["HEAD /v1.45/_ping"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        assert await upstream.read("HEAD", "/_ping", deadline_s=5) == Reply(200)

    with_engine(tmp_path, test)


def test_an_answer_larger_than_the_limit_is_lost(tmp_path: Path) -> None:
    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b" " * 1_000_000)
            await writer.drain()

    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        engine.answers["GET /v1.45/x"] = pour
        found = await upstream.read("GET", "/x", deadline_s=15)
        assert found == Lost(f"the engine's answer passes {REPLY_BYTES_MAX} bytes", unreadable=True)

    with_engine(tmp_path, test)


def test_an_engine_that_hangs_is_lost_at_the_deadline(tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        engine.answers["POST /v1.45/x"] = hang
        found = await upstream.forward("POST", "/x", b"", deadline_s=0.05)
        assert found == Lost("the engine didn't answer within 0.05 s")

    with_engine(tmp_path, test)


def test_what_never_reached_an_engine_is_told_apart_from_what_was_lost(tmp_path: Path) -> None:
    async def run() -> None:
        upstream = EngineClient(str(tmp_path / "nobody"))
        found = await upstream.forward("POST", "/x", b"", deadline_s=5)
        assert isinstance(found, Lost)
        assert not found.sent
        with pytest.raises(EngineUnavailable):
            await upstream.identify()
        engine = EngineSide(tmp_path / "nobody", answers={"POST /v1.45/x": told(200, 1)})
        async with engine.serving():
            assert await upstream.forward("POST", "/x", b"", deadline_s=5) == Reply(200, b"1", JSON)
        gone = await upstream.forward("POST", "/x", b"", deadline_s=5)
        assert isinstance(gone, Lost)
        assert (gone.sent, upstream.engine) == (False, None)

    asyncio.run(run())


def test_the_engine_is_asked_once_who_it_is_until_it_breaks(tmp_path: Path) -> None:
    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        engine.answers = {"GET /v1.45/x": told(200, 1), "GET /v1.45/broken": b""}
        looks = [upstream.read("GET", "/x", deadline_s=5) for _ in range(20)]
        assert {await each for each in asyncio.as_completed(looks)} == {Reply(200, b"1", JSON)}
        assert engine.asked == 1
        await upstream.read("GET", "/broken", deadline_s=5)
        await upstream.read("GET", "/x", deadline_s=5)
        assert engine.asked == 2
        # Also when it is a stream that breaks, which others read.
        engine.answers["GET /v1.45/stream"] = chunked(b"ab", end=False)
        stream = await upstream.open("GET", "/stream", b"", mutation=False)
        assert isinstance(stream, ResponseReader)
        with pytest.raises(ResponseBroken):
            await stream.read_whole()
        stream.close()
        assert upstream.engine is None
        await upstream.read("GET", "/x", deadline_s=5)
        assert engine.asked == 3

    with_engine(tmp_path, test)


def test_the_engine_s_facts_are_its_own_words(tmp_path: Path) -> None:
    async def test(_engine: EngineSide, upstream: EngineClient) -> None:
        assert await upstream.identify() == ConnectedEngine(
            facts=EngineFacts("engine-1", "26.1.5", "1.45", 2, 4096),
            pinned="1.45",
            data_root="/var/lib/docker",
            platform="linux/amd64",
        )
        assert upstream.error == ""

    with_engine(tmp_path, test)


def test_an_engine_that_isn_t_taken_gets_nothing(tmp_path: Path) -> None:
    def refuse(engine: ConnectedEngine) -> None:
        raise StateError("state.other-engine", f"not {engine.facts.engine_id}")

    engine = EngineSide(tmp_path / "e.sock")

    async def run() -> None:
        upstream = EngineClient(str(engine.path), admit=refuse)
        async with engine.serving():
            with pytest.raises(StateError):
                await upstream.identify()
            found = await upstream.forward("POST", "/x", b"", deadline_s=5)
            assert found == Lost("state.other-engine: not engine-1", sent=False)
            assert upstream.error == "state.other-engine: not engine-1"

    asyncio.run(run())
    assert engine.sent == []


def test_the_version_is_the_lower_of_the_pinned_and_the_engine_s() -> None:
    versions = {"1.44": "1.44", "1.45": "1.45", "1.51": "1.45", "2.0": "1.45"}
    assert {version: pinned_version(version) for version in versions} == versions
    for version in ("1.43", "1.24", "", "1.45.0", "1.x", "\u0661.45"):
        with pytest.raises(EngineError) as caught:
            pinned_version(version)
        assert caught.value.code == "engine.too-old"


def test_an_engine_that_serves_only_newer_versions_gets_nothing() -> None:
    assert pinned_version("1.60", "1.45") == "1.45"
    with pytest.raises(EngineError) as caught:
        pinned_version("1.60", "1.46")
    assert caught.value.code == "engine.too-new"


def test_an_engine_that_is_too_old_gets_nothing(tmp_path: Path) -> None:
    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        engine.version["ApiVersion"] = "1.43"
        found = await upstream.forward("POST", "/x", b"", deadline_s=5)
        assert isinstance(found, Lost)
        assert found.reason.startswith("engine.too-old: ")
        assert not found.sent

    assert with_engine(tmp_path, test).sent == []


def test_only_a_unix_socket_is_an_engine_s_address() -> None:
    assert engine_socket_path("unix:///var/run/docker.sock") == "/var/run/docker.sock"
    for address in ("tcp://127.0.0.1:2375", "ssh://host", "unix://docker.sock", "/run/x", ""):
        with pytest.raises(UsageError) as caught:
            engine_socket_path(address)
        assert caught.value.code == "engine.address"


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/ä", "a", "/a#b"])
def test_a_target_that_could_end_its_line_is_a_bug(tmp_path: Path, path: str) -> None:
    async def test(_engine: EngineSide, upstream: EngineClient) -> None:
        with pytest.raises(AssertionError, match="not a target"):
            await upstream.forward("POST", path, b"", deadline_s=5)

    assert with_engine(tmp_path, test).sent == []


def test_a_stream_is_opened_with_its_head_and_read_as_it_comes(tmp_path: Path) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"1\r\na\r\n")
        await reader.read(1)  # never comes: the stream is closed

    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        engine.answers["GET /v1.45/logs"] = drip
        stream = await upstream.open("GET", "/logs", b"", mutation=False)
        assert isinstance(stream, ResponseReader)
        assert (stream.status, stream.length, stream.hijacked) == (200, None, False)
        parts = stream.chunks()
        assert await anext(parts) == b"a"
        await parts.aclose()  # type: ignore[attr-defined]
        stream.close()

    with_engine(tmp_path, test)


def test_a_hijack_carries_what_came_with_the_head(tmp_path: Path) -> None:
    agreed = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly"

    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        engine.answers["POST /v1.45/attach"] = agreed
        stream = await upstream.open("POST", "/attach", b"", mutation=False, hijack=True)
        assert isinstance(stream, ResponseReader)
        assert (stream.status, stream.hijacked, stream.early) == (101, True, b"early")
        stream.close()
        engine.answers["POST /v1.45/attach"] = told(409, {"message": "no"})
        stream = await upstream.open("POST", "/attach", b"", mutation=False, hijack=True)
        assert isinstance(stream, ResponseReader)
        assert (await stream.read_whole()).status == 409
        stream.close()

    engine = with_engine(tmp_path, test)
    assert b"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" in engine.heads[0]


def test_a_mutation_passes_the_crash_points_and_a_read_none(tmp_path: Path) -> None:
    passed: list[str] = []
    engine = EngineSide(tmp_path / "e.sock", answers={"POST /v1.45/x": told(200, 1)})

    async def run() -> None:
        upstream = EngineClient(str(engine.path), reach=passed.append)
        async with engine.serving():
            await upstream.read("GET", "/x", deadline_s=5)
            assert passed == []
            await upstream.forward("POST", "/x", b"", deadline_s=5)

    asyncio.run(run())
    assert passed == [
        "upstream.send.before",
        "upstream.send.after",
        "upstream.receive.before",
        "upstream.receive.after",
    ]


class Keeping:
    """An engine with persistent connections. ``counted`` has the requests of each connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counted: list[list[str]] = []
        self.heads: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked: list[str] = []
        self.counted.append(asked)
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                path = head.split(b" ")[1].decode()
                asked.append(path)
                facts = {"/version": VERSION, "/v1.45/info": INFO}
                body = json.dumps(facts.get(path, path)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                if b"Connection: close" in head:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[EngineClient]:
        self.path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, self.path)
        upstream = EngineClient(str(self.path))
        try:
            yield upstream
        finally:
            upstream.close()
            server.close()
            for writer in self.writers:
                writer.close()
            for writer in self.writers:
                with suppress(ConnectionError):
                    await writer.wait_closed()


WHO = [["/version"], ["/v1.45/info"]]


async def looked(upstream: EngineClient, path: str) -> None:
    found = await upstream.read("GET", path, deadline_s=5)
    assert found == Reply(200, json.dumps(f"/v1.45{path}").encode())


def test_looks_share_a_connection_and_a_mutation_has_its_own(tmp_path: Path) -> None:
    engine = Keeping(tmp_path / "e.sock")

    async def run() -> None:
        async with engine.serving() as upstream:
            await looked(upstream, "/a")
            await looked(upstream, "/b")
            await upstream.forward("POST", "/c", b"", deadline_s=5)
            stream = await upstream.open("GET", "/d", b"", mutation=False)
            assert isinstance(stream, ResponseReader)
            stream.close()
            await looked(upstream, "/e")

    asyncio.run(run())
    assert engine.counted == [
        *WHO,
        ["/v1.45/a", "/v1.45/b", "/v1.45/e"],
        ["/v1.45/c"],
        ["/v1.45/d"],
    ]
    assert [b"Connection: close" in head for head in engine.heads] == [
        *(True, True, False, False),
        *(True, True, False),
    ]


def test_no_more_connections_are_kept_than_a_few(tmp_path: Path) -> None:
    engine = Keeping(tmp_path / "e.sock")

    async def run() -> None:
        async with engine.serving() as upstream:
            await asyncio.gather(*(looked(upstream, f"/{n}") for n in range(IDLE_MAX + 5)))
            await asyncio.gather(*(looked(upstream, f"/{n}") for n in range(IDLE_MAX + 5)))

    asyncio.run(run())
    assert sorted(map(len, engine.counted)) == [1] * (2 + 5 + 5) + [2] * IDLE_MAX


def test_when_a_kept_connection_ended_the_engine_is_asked_who_it_is(tmp_path: Path) -> None:
    engine = Keeping(tmp_path / "e.sock")

    async def run() -> None:
        async with engine.serving() as upstream:
            await looked(upstream, "/a")
            engine.writers[-1].close()
            await engine.writers[-1].wait_closed()
            await looked(upstream, "/b")

    asyncio.run(run())
    assert engine.counted == [*WHO, ["/v1.45/a"], *WHO, ["/v1.45/b"]]


def test_a_look_that_a_kept_connection_doesn_t_answer_is_asked_once_more(tmp_path: Path) -> None:
    engine = Keeping(tmp_path / "e.sock")

    async def run() -> None:
        async with engine.serving() as upstream:
            await looked(upstream, "/a")
            asking = asyncio.ensure_future(upstream.read("GET", "/b", deadline_s=5))
            await asyncio.sleep(0)  # it is sent, and isn't read yet
            engine.writers[-1].transport.abort()
            assert await asking == Reply(200, b'"/v1.45/b"')

    asyncio.run(run())
    assert engine.counted == [*WHO, ["/v1.45/a"], *WHO, ["/v1.45/b"]]


@pytest.mark.parametrize("turns", [0, 5], ids=["in the socket", "read by the event loop"])
def test_what_nobody_asked_for_answers_nothing(tmp_path: Path, turns: int) -> None:
    engine = Keeping(tmp_path / "e.sock")

    async def run() -> None:
        async with engine.serving() as upstream:
            await looked(upstream, "/a")
            engine.writers[-1].write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
            for _ in range(turns):
                await asyncio.sleep(0)
            await looked(upstream, "/b")

    asyncio.run(run())
    assert engine.counted == [*WHO, ["/v1.45/a"], *WHO, ["/v1.45/b"]]


HEADS = {
    "nothing": b"",
    "no head": b"\x00\xff" * 100,
    "another protocol": b"HTTP/2 200\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a huge length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a cut body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a cut chunk": chunked(b"[{}", end=False),
    "switching protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: tcp\r\n\r\n",
    "two answers": told(200, []) + told(200, []),
    **{name: chunked(body) if body else chunked() for name, body in BODIES.items()},
}


@pytest.mark.parametrize("member", [None, "", "Volumes"])
def test_whatever_the_engine_sends_a_read_ends_and_the_next_one_is_answered(
    tmp_path: Path, member: str | None
) -> None:
    rows = None if member is None else Rows(lambda row: json.dumps(row).encode(), member)

    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        for name, raw in HEADS.items():
            engine.answers |= {"GET /v1.45/x": raw, "GET /v1.45/y": told(200, {"Volumes": []})}
            found = await upstream.read("GET", "/x", rows=rows, deadline_s=15)
            assert isinstance(found, Reply | Lost), name
            after = await upstream.read("GET", "/y", deadline_s=15)
            assert isinstance(after, Reply), name

    with_engine(tmp_path, test)


@pytest.mark.parametrize("name", BODIES)
def test_whatever_the_engine_says_of_itself_it_is_asked_again(tmp_path: Path, name: str) -> None:
    async def test(engine: EngineSide, upstream: EngineClient) -> None:
        engine.answers["GET /version"] = chunked(BODIES[name]) if BODIES[name] else chunked()
        assert isinstance(await upstream.read("GET", "/y", deadline_s=15), Lost)
        engine.answers = {"GET /v1.45/y": told(200, {})}
        assert isinstance(await upstream.read("GET", "/y", deadline_s=15), Reply)

    with_engine(tmp_path, test)
