"""Host ports of containers between two lives, on a real engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.engine import free_port
from tests.gate.fixtures import IMAGE, World
from tests.gate.wire import Answer

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root
BOBS = "/containers/bob-front"


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine, [])
    try:
        yield made
    finally:
        made.close()


PORT = str(free_port())


def create(world: World, who: str, name: str) -> Answer:
    host = {"NetworkMode": "default", "PortBindings": {"8080/tcp": [{"HostPort": PORT}]}}
    return world.ask(
        who, "POST", f"/containers/create?name={name}", {"Image": IMAGE, "HostConfig": host}
    )


def test_a_stopped_containers_host_port_is_no_other_owners(world: World) -> None:
    assert create(world, "bob", "bob-front").status == 201
    world.must("bob", "POST", f"{BOBS}/start")
    world.must("bob", "POST", f"{BOBS}/stop?t=0")
    refused = create(world, "alice", "alice-front")
    assert (refused.status, refused.rule) == (409, "port.taken")
    assert PORT.encode() in refused.body
    assert b"bob" not in refused.body
    assert b"bob-front" in create(world, "operator", "root-front").body
    world.must("bob", "POST", f"{BOBS}/start")
    # An owner's own containers may share a port: one takes over from the other.
    assert create(world, "bob", "bob-next").status == 201
    for name in ("bob-front", "bob-next"):
        world.must("bob", "DELETE", f"/containers/{name}?force=1")
    assert create(world, "alice", "alice-front").status == 201
    world.must("alice", "POST", "/containers/alice-front/start")
