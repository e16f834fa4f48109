"""Following the engine's events: named containers are checked, and all at each start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.broker.gate.commands import Command, CommandResult
from controller.broker.gate.state import GateState
from controller.broker.server import background_tasks
from controller.broker.server.background_tasks import CHECKS, containers_of
from controller.model.confinement import Confinement
from controller.model.inventory import Inventory
from controller.model.records import Reply, Request
from tests.unit.broker.engine_side import LOOKOUT, chunked, told
from tests.unit.broker.serving import Bench, run
from tests.unit.broker.world import DB, SLOT, WEB, inventory

NOBODYS = "9" * 64


def ours() -> Inventory:
    """Return three managed containers with an admitted state."""
    known = inventory()
    return replace(
        known,
        containers={
            key: replace(item, confined=Confinement()) for key, item in known.containers.items()
        },
    )


def event(kind: str, identifier: str, **attributes: str) -> bytes:
    return json.dumps(
        {"Type": kind, "Action": "start", "Actor": {"ID": identifier, "Attributes": attributes}}
    ).encode()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (event("container", WEB, name="web"), [(WEB, "", False)]),
        (event("container", WEB, **{"io.trimtab.instance": "i1"}), [(WEB, "i1", False)]),
        (event("network", "n", container=WEB), [(WEB, "", False)]),
        (event("network", "n"), []),
        (event("container", WEB).replace(b"start", b"die"), [(WEB, "", True)]),
        (event("container", WEB).replace(b"start", b"destroy"), [(WEB, "", True)]),
        (b"{}", []),
        (b"[1]", []),
        (b"not json", []),
        (b"", []),
    ],
)
def test_an_event_names_the_container_that_it_is_about(
    line: bytes, names: list[tuple[str, str, bool]]
) -> None:
    assert list(containers_of(line)) == names


def nothing(_request: Request, _state: GateState) -> Generator[Command, CommandResult, Reply]:
    raise AssertionError("nobody asks")


def look(identifier: str) -> str:
    return f"GET /v1.45/containers/{identifier}/json"


def test_what_events_name_is_looked_at_and_everything_at_each_beginning(tmp_path: Path) -> None:
    """Also after a broken stream, so that no change in between is missed."""
    bench = Bench(tmp_path, nothing)
    streams: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    known, ended = asyncio.Event(), asyncio.Event()

    async def follow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await known.wait()
        writer.write(chunked(end=False))
        streams.put_nowait(writer)
        await ended.wait()
        ended.clear()

    there = [{"Id": identifier} for identifier in (WEB, DB, SLOT)]
    bench.engine.answers = {LOOKOUT: follow, "GET /v1.45/containers/json": told(200, there)}

    async def looked(*identifiers: str) -> None:
        arrived: list[str] = []
        while len(arrived) < len(identifiers):
            target = await bench.engine.arrivals.get()
            if target.endswith("/json") and "/containers/json" not in target:
                arrived.append(target)
        assert sorted(arrived) == sorted(map(look, identifiers))

    async def test() -> None:
        async with bench.serving() as broker:
            broker.state.inventory = ours()
            known.set()
            stream = await streams.get()
            await looked(WEB, DB, SLOT)
            lines = [event("container", NOBODYS), b"garbage", event("network", "n", container=DB)]
            data = b"\n".join(lines) + b"\n"
            for part in (data[:40], data[40:]):  # a line may come in parts
                stream.write(b"%x\r\n%b\r\n" % (len(part), part))
            await looked(DB)
            ended.set()
            await streams.get()
            await looked(WEB, DB, SLOT)
            ended.set()

    run(test())


def test_an_owners_many_slow_checks_delay_no_check_of_another_owner(tmp_path: Path) -> None:
    bench = Bench(tmp_path, nothing)
    known, ended = asyncio.Event(), asyncio.Event()
    streams: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    alices = [f"{number:064x}" for number in range(1, 41)]

    async def follow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await known.wait()
        writer.write(chunked(end=False))
        streams.put_nowait(writer)
        await ended.wait()

    async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await ended.wait()

    bench.engine.answers = {LOOKOUT: follow, **{look(each): hang for each in alices}}

    async def test() -> None:
        async with bench.serving() as broker:
            before = ours()
            web = before.containers[WEB]
            many = {each: replace(web, id=each) for each in alices}
            broker.state.inventory = replace(before, containers={**many, DB: before.containers[DB]})
            known.set()  # the stream's beginning makes all due, alice's first
            stream = await streams.get()
            arrived: list[str] = []
            while look(DB) not in arrived:
                arrived.append(await bench.engine.arrivals.get())
            line = event("container", DB) + b"\n"
            stream.write(b"%x\r\n%b\r\n" % (len(line), line))
            while (target := await bench.engine.arrivals.get()) != look(DB):
                arrived.append(target)
            assert len(set(arrived) & set(map(look, alices))) <= CHECKS.of_a_user
            ended.set()

    run(test())


def test_without_events_each_container_is_checked_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_tasks, "BLIND_CHECK_S", 0.01)
    bench = Bench(tmp_path, nothing)

    async def test() -> None:
        async with bench.serving() as broker:
            broker.state.inventory = ours()
            missing = 2 * [look(each) for each in (WEB, DB, SLOT)]
            while missing:
                target = await bench.engine.arrivals.get()
                if target in missing:
                    missing.remove(target)

    run(test())


def test_a_container_is_checked_once_more_after_changes_during_its_check(tmp_path: Path) -> None:
    bench = Bench(tmp_path, nothing)
    known, ended, lasting = asyncio.Event(), asyncio.Event(), asyncio.Event()
    streams: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    running = most = 0

    async def follow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await known.wait()
        writer.write(chunked(end=False))
        streams.put_nowait(writer)
        await ended.wait()

    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await lasting.wait()
        running -= 1
        writer.close()

    bench.engine.answers = {LOOKOUT: follow, look(DB): slow}

    async def test() -> None:
        async with bench.serving() as broker:
            before = ours()
            broker.state.inventory = replace(before, containers={DB: before.containers[DB]})
            known.set()
            stream = await streams.get()
            while await bench.engine.arrivals.get() != look(DB):
                pass
            lines = 3 * (event("container", DB) + b"\n")
            stream.write(b"%x\r\n%b\r\n" % (len(lines), lines))
            await stream.drain()
            lasting.set()
            while await bench.engine.arrivals.get() != look(DB):
                pass
            ended.set()
        assert most == 1

    run(test())
