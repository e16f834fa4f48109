"""The way of a create: the modules that the request enters, from the socket to the engine."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

from controller.broker.dispatch import handle
from tests.unit.broker.engine_side import told
from tests.unit.broker.serving import Bench, ask, post, run
from tests.unit.broker.world import REFERENCE, image, inventory, policy

#: The most modules and rooms on the way. One more is a reason to ask whose subject the step is.
MODULES, ROOMS = 83, 22
BODY = {"Image": REFERENCE, "HostConfig": {"NetworkMode": "none"}}


def test_a_create_enters_few_modules_and_rooms_on_its_way_to_the_engine(tmp_path: Path) -> None:
    bench = Bench(tmp_path, handle, policy=policy())
    entered: set[str] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        name = str(frame.f_globals["__name__"])
        if event == "call" and name.startswith("controller."):
            entered.add(name)

    async def create(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sys.setprofile(None)
        writer.write(told(201, {"Id": "99" * 32, "Warnings": []}))

    bench.engine.answers = {
        f"GET /v1.45/images/{REFERENCE}/json": told(200, image()),
        "POST /v1.45/containers/create": create,
    }

    async def test() -> None:
        async with bench.serving() as broker:
            trusted = inventory().ledger
            broker.state.inventory = replace(broker.state.inventory, ledger=trusted)
            body, kind = json.dumps(BODY).encode(), "Content-Type: application/json"
            # The first one identifies the engine.
            await ask(bench.socket, post("/v1.45/containers/create?name=first", body, kind))
            sys.setprofile(note)
            try:
                second = post("/v1.45/containers/create?name=second", body, kind)
                answer = await ask(bench.socket, second)
            finally:
                sys.setprofile(None)
            assert answer.startswith(b"HTTP/1.1 201 "), answer

    run(test())
    assert {"controller.broker.server.connection", "controller.broker.engine.client"} <= entered
    rooms = {name.rpartition(".")[0] for name in entered}
    assert len(entered) <= MODULES, "\n".join(sorted(entered))
    assert len(rooms) <= ROOMS, "\n".join(sorted(rooms))
