"""A broker on a disk of 8 MiB that fills up: first clients are refused, then everybody."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.broker import dispatch
from controller.broker.gate.commands import Command, CommandResult, Relay, WriteRecord
from controller.broker.gate.state import GateState
from controller.journal.index import queries
from controller.journal.verify.verify import TrustAnchors, verify
from controller.journal.writer.append_log import RESERVE_SHARE
from controller.model.records import Entry, Record, Reply, Request
from tests.disk import MIB, Disk, small_disk
from tests.unit.broker.serving import Bench, ask, body_of, get, post, run, status_of
from tests.unit.journal.builders import read_public_keys

Steps = Generator[Command, CommandResult, Reply | Relay]
LATER = "2100-01-01T00:00:00Z"


def recording(request: Request, state: GateState) -> Steps:
    """Record an intent of the role in the path, and its outcome. Own routes are real."""
    if request.path.startswith("/trimtab"):
        answer = yield from dispatch.handle(request, state)
        assert isinstance(answer, Reply), "health, inventory and their like are read at once"
        return answer
    actor: dict[str, object] = {"uid": 7, "role": request.path.strip("/")}
    told: dict[str, object] = {"route": "container.kill", "object": "x" * 64}
    identifier = state.new_id()
    intent = yield WriteRecord(Entry(identifier, "intent", actor=actor, request=told))
    if not isinstance(intent, Record):
        return Reply(503, b"{}")
    state.intents.in_flight.add(identifier)
    yield WriteRecord(Entry(identifier, "outcome", actor=actor, result={"status": 204}))
    state.intents.in_flight.discard(identifier)
    return Reply(204)


if os.geteuid() == 0:

    @pytest.fixture
    def disk(tmp_path: Path) -> Iterator[Disk]:
        with small_disk(tmp_path / "disk", image=tmp_path / "image") as disk:
            yield disk

    async def change(bench: Bench, role: str) -> int:
        return status_of(await ask(bench.socket, post(f"/{role}")))

    async def health(bench: Bench) -> dict[str, Any]:
        answer = await ask(bench.socket, get("/trimtab/v1/health"))
        told: dict[str, Any] = json.loads(body_of(answer))
        return {**told["journal"], "open": told["openIntents"]}

    async def indexed(bench: Bench) -> None:
        """Wait until the index has all records."""
        while (await health(bench))["index"]["behind"]:
            pass

    def test_a_broker_that_starts_on_a_full_disk_answers_without_its_index(disk: Disk) -> None:
        """SQLite would end the process: it maps a file without disk space (ext4 with small blocks)."""
        bench = Bench(disk.root, recording, signed=True)

        async def test() -> None:
            async with bench.serving():
                assert await change(bench, "operator") == 204
                await indexed(bench)
            disk.leave(0)
            for _ in range(3):
                async with bench.serving():
                    answer = await ask(bench.socket, get("/trimtab/v1/journal?stages=intent"))
                    assert len(body_of(answer).splitlines()) == 1, answer
                    assert "KiB are free" in (await health(bench))["index"]["error"]

        run(test(), within_s=60)

    def test_a_disk_that_fills_up_stops_clients_first_then_all_changes_and_no_read(
        disk: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As if the journal were too long to be read without its index.
        monkeypatch.setattr(queries, "ALONE_MAX", 0)
        bench = Bench(disk.root, recording, signed=True)

        async def test() -> None:
            async with bench.serving():
                roles = ("client", "controller", "operator")
                assert [await change(bench, role) for role in roles] == [204] * 3
                told = await health(bench)
                assert (told["writable"], told["reserved"]) == (True, False)
                assert told["freeBytes"] > 1 * MIB
                await indexed(bench)
                # Of 8 MiB an eighth is kept.
                disk.leave(disk.size // RESERVE_SHARE - 128 * 1024)
                assert [await change(bench, role) for role in roles] == [503, 204, 204]
                told = await health(bench)
                assert (told["writable"], told["reserved"], told["error"]) == (True, True, "")
                # To the last byte. What still fits in the last block is written.
                disk.leave(0)
                while 204 in [await change(bench, role) for role in roles]:
                    pass
                assert [await change(bench, role) for role in roles] == [503] * 3
                told = await health(bench)
                assert (told["writable"], told["error"]) == (False, "No space left on device")
                for path in ("health", "inventory", "policy", "journal", f"journal?there={LATER}"):
                    answer = await ask(bench.socket, get(f"/trimtab/v1/{path}"))
                    assert status_of(answer) == 200, (path, answer)
                answer = await ask(bench.socket, get("/trimtab/v1/journal?limit=1"))
                assert json.loads(body_of(answer))["seq"] >= told["seq"], "the last one of all"
                assert verify(bench.journal).ok
                # It comes back by itself: nobody asks for anything.
                disk.free()
                while not (await health(bench))["writable"]:
                    pass
                assert [await change(bench, role) for role in roles] == [204] * 3
                told = await health(bench)
                assert (told["writable"], told["reserved"]) == (True, False)
                # An outcome that didn't fit is recovery's to close, once its time is over.
                bench.clock.ahead += 600
                while (await health(bench))["open"]:
                    pass

        run(test(), within_s=60)
        keys = frozenset(read_public_keys(bench.root / "journal.pub"))
        found = verify(bench.journal, TrustAnchors(keys))
        assert (found.ok, found.open_intents) == (True, ())
        assert any("not writable from" in repair.what for repair in found.repairs)
        assert found.signed == found.records - 1
