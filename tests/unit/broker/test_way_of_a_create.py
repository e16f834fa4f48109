"""The way of a create: the modules that a request enters, from the socket to the engine."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest

from controller.broker.dispatch import handle
from tests.unit.broker.engine_side import told
from tests.unit.broker.serving import Bench, ask, post, run
from tests.unit.broker.world import REFERENCE, image, inventory, policy

#: The most modules that a create enters.
MODULES = 25
JSON = "Content-Type: application/json"
BODY = {"Image": REFERENCE, "HostConfig": {"NetworkMode": "none"}}


@contextmanager
def entered(modules: set[str]) -> Iterator[None]:
    """Collect the modules of the functions that are called in this thread."""

    def note(frame: FrameType, event: str, _argument: object) -> None:
        name = str(frame.f_globals.get("__name__", ""))
        if event == "call" and name.startswith("controller."):
            modules.add(name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def test_a_create_enters_few_modules_on_its_way_to_the_engine(
    tmp_path: Path, record_property: pytest.FixtureRequest
) -> None:
    bench = Bench(tmp_path, handle, policy=policy())
    modules: set[str] = set()
    seen: list[int] = []

    async def create(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(len(modules))
        sys.setprofile(None)
        writer.write(told(201, {"Id": "99" * 32, "Warnings": []}))

    bench.engine.answers = {
        f"GET /v1.45/images/{REFERENCE}/json": told(200, json.loads(json.dumps(image()))),
        "POST /v1.45/containers/create": create,
    }
    asked = post("/v1.45/containers/create?name=job", json.dumps(BODY).encode(), JSON)

    async def test() -> None:
        async with bench.serving() as broker:
            trusted = inventory().ledger
            broker.state.inventory = replace(broker.state.inventory, ledger=trusted)
            await ask(bench.socket, asked)  # whatever is loaded or compared once
            modules.clear()
            with entered(modules):
                answer = await ask(bench.socket, asked.replace(b"name=job", b"name=next"))
            assert b" 201 " in answer.partition(b"\r\n")[0], answer

    run(test())
    print(len(modules), "\n".join(sorted(modules)))
    assert seen[-1] <= MODULES, "\n".join(sorted(modules))
