"""The engine's events of a command: who sees its arguments there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from controller.app.process import SystemClock
from tests.gate.fixtures import World

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine, [])
    try:
        made.renew_own("running")
        asked = {"Cmd": ["echo", "S3CRET-ARG"], "AttachStdout": True}
        session = made.must("operator", "POST", f"/containers/{made.own}/exec", asked)["Id"]
        made.must("operator", "POST", f"/exec/{session}/start", {"Detach": True})
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("asked", [{}, {"event": ["exec_create: echo S3CRET-ARG"]}], ids=str)
@pytest.mark.parametrize("who", ["alice", "controller", "operator"])
def test_only_operators_see_the_arguments(world: World, who: str, asked: dict[str, Any]) -> None:
    now = int(SystemClock().now())
    instants = f"since={now - 600}&until={now + 1}"
    events = world.ask(who, "GET", f"/events?{instants}&filters={quote(json.dumps(asked))}").body
    assert b'"Action":"exec_create: ' in events
    assert (b"S3CRET-ARG" in events) is (who == "operator")
