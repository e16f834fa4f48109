"""Recovery in the background: after a start and after a lost response, until settled."""

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest

from controller.broker.gate.commands import (
    Command,
    CommandResult,
    Forward,
    Lost,
    Relay,
    WriteRecord,
)
from controller.broker.gate.state import GateState
from controller.broker.guards import recovery
from controller.broker.server import background_tasks
from controller.core.enforcement.settlement import SettlementEvidence
from controller.core.records.inventory_json import settings_to_json
from controller.model import names
from controller.model.observed import Settings
from controller.model.records import Reply, Request
from tests.unit.broker.engine_side import told
from tests.unit.broker.serving import Bench, ask, entry, post, run, status_of

Steps = Generator[Command, CommandResult, Reply | Relay]
ID = "c" * 64
LIST = "GET /v1.45/containers/json"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_tasks, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(background_tasks, "LAST_PAUSE_S", 0.01)


def create(_request: Request, state: GateState) -> Steps:
    """A create as the gate records it, without its admission."""
    labels = {
        names.INSTANCE: state.instance,
        names.INTENT: entry(1).id,
        names.ORIGIN: "controller",
        names.OWNER: "alice",
        names.SERVICE: "web",
        names.NAMESPACE: "default",
        names.SLOT: "1",
        names.REVISION: "v2:" + "a" * 64,
        names.IMAGE: "web:1",
    }
    summary: dict[str, object] = {
        "name": "web.1-aaaaaaaa",
        "image": "web:1",
        "labels": labels,
        "settings": settings_to_json(Settings(name="web.1-aaaaaaaa")),
    }
    request: dict[str, object] = {
        "method": "POST",
        "route": "container.create",
        "object": "web.1-aaaaaaaa",
        "summary": summary,
    }
    state.intents.in_flight.add(entry(1).id)
    try:
        yield WriteRecord(entry(1, request=request, actor={"role": "controller"}))
        answer = yield Forward("POST", "/containers/create")
        assert isinstance(answer, Lost)
        return Reply(504)
    finally:
        state.intents.in_flight.discard(entry(1).id)


async def until_closed(bench: Bench, state: GateState) -> None:
    while state.inventory.open:
        await asyncio.to_thread(bench.recorded, "recovered")


def settled(bench: Bench) -> list[object]:
    return [record.entry.result["settled"] for record in bench.recorded("recovered")]


def container(state: GateState, status: str = "created") -> dict[str, object]:
    labels = {names.INTENT: entry(1).id, names.INSTANCE: state.instance}
    return {
        "Id": ID,
        "Names": ["/web.1-aaaaaaaa"],
        "Labels": labels,
        "Config": {"Labels": labels},
        "Name": "/web.1-aaaaaaaa",
        "State": {"Status": status},
    }


def test_a_lost_answer_is_settled_by_what_the_engine_shows(tmp_path: Path) -> None:
    bench = Bench(tmp_path, create)
    bench.engine.answers["POST /v1.45/containers/create"] = b""

    async def test() -> None:
        async with bench.serving() as broker:
            bench.engine.answers[LIST] = told(200, [container(broker.state)])
            assert status_of(await ask(bench.socket, post("/create"))) == 504
            await until_closed(bench, broker.state)
            assert broker.state.inventory.containers[ID].service == "web"

    run(test())
    assert settled(bench) == ["applied"]


def test_what_the_engine_may_still_do_isn_t_given_up_before_its_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, create)
    bench.engine.answers["POST /v1.45/containers/create"] = b""
    bench.engine.answers[LIST] = told(200, [])

    async def test() -> None:
        async with bench.serving() as broker:
            assert status_of(await ask(bench.socket, post("/create"))) == 504
            for _ in range(8):
                while not (await bench.engine.arrivals.get()).startswith(LIST):
                    pass
            assert settled(bench) == []
            bench.clock.ahead = 3600
            await until_closed(bench, broker.state)
            assert broker.state.inventory.containers == {}

    run(test())
    assert settled(bench) == ["not-applied"]


def test_recovery_waits_for_an_engine_that_is_away(tmp_path: Path) -> None:
    bench = Bench(tmp_path, create)
    bench.engine.answers["POST /v1.45/containers/create"] = b""

    async def crash() -> None:
        async with bench.serving():
            assert status_of(await ask(bench.socket, post("/create"))) == 504

    run(crash())
    bench.clock.ahead = 3600

    async def test() -> None:
        ready = asyncio.Event()
        broker = bench.broker()
        bench.stop = asyncio.Event()
        task = asyncio.ensure_future(broker.serve(bench.stop, ready=ready))
        await ready.wait()
        assert list(broker.state.inventory.open) == [entry(1).id]
        bench.engine.answers[LIST] = told(200, [])
        async with bench.engine.serving():
            bench.clock.ahead += 3600  # of its own life: the wall clock proves nothing
            await until_closed(bench, broker.state)
            bench.stop.set()
            await task

    run(test())
    assert settled(bench) == ["not-applied"]


def test_what_an_earlier_broker_created_and_never_started_is_removed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, create)
    bench.engine.answers["POST /v1.45/containers/create"] = b""

    async def crash() -> None:
        async with bench.serving():
            assert status_of(await ask(bench.socket, post("/create"))) == 504

    run(crash())

    async def test() -> None:
        broker = bench.broker()
        bench.stop = asyncio.Event()
        bench.engine.answers = {
            LIST: told(200, [container(broker.state)]),
            f"GET /v1.45/containers/{ID}/json": told(200, container(broker.state)),
            f"DELETE /v1.45/containers/{ID}": b"HTTP/1.1 204 No Content\r\n\r\n",
        }
        async with bench.engine.serving():
            task = asyncio.ensure_future(broker.serve(bench.stop))
            while not bench.recorded("outcome"):
                await asyncio.to_thread(bench.recorded, "outcome")
            bench.stop.set()
            await task
        assert broker.state.inventory.containers == {}

    run(test())
    assert settled(bench) == ["applied"]
    assert (f"DELETE /v1.45/containers/{ID}", b"") in bench.engine.sent


def test_a_bug_in_one_recovery_doesn_t_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, create)
    bench.engine.answers = {"POST /v1.45/containers/create": b"", LIST: told(200, [])}
    bench.clock.ahead = 0
    right, failures = recovery.settle, [RuntimeError("a bug")]

    def settle(state: GateState, identifier: str, *, earlier: SettlementEvidence | None) -> object:
        if failures:
            raise failures.pop()
        return right(state, identifier, earlier=earlier)

    monkeypatch.setattr(recovery, "settle", settle)

    async def test() -> None:
        async with bench.serving() as broker:
            assert status_of(await ask(bench.socket, post("/create"))) == 504
            bench.clock.ahead = 3600
            await until_closed(bench, broker.state)

    run(test())
    assert settled(bench) == ["not-applied"]
    assert "recovery.failed" in caplog.text
