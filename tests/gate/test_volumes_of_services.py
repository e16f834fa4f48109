"""What the controller's user can do with volumes, on a real engine: the limits of G18."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from controller.model import names
from tests.gate.fixtures import IMAGE, World
from tests.gate.wire import Answer
from tests.instance import eventually

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root
REVISION = "v2:" + "5b" * 32
OF_TEAM = {names.OWNER: "team", names.NAMESPACE: "data"}


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine, [])
    try:
        made.must(
            "controller", "POST", "/volumes/create", {"Name": "data.store", "Labels": OF_TEAM}
        )
        yield made
    finally:
        made.close()


def create(world: World, volume: str, *command: str) -> Answer:
    labels = OF_TEAM | {names.SERVICE: "wiper", names.SLOT: "1", names.REVISION: REVISION}
    body: dict[str, Any] = {
        "Image": IMAGE,
        "User": "0",
        "Entrypoint": [],
        "Cmd": list(command),
        "Labels": labels | {names.IMAGE: IMAGE},
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [{"Type": "volume", "Source": volume, "Target": "/data"}],
        },
    }
    path = "/containers/create?name=data.wiper.1-5b5b5b5b"
    return world.ask("controller", "POST", path, body)


def test_the_controller_mounts_no_volume_of_a_client_or_of_nobody(world: World) -> None:
    for volume in ("alice-store", "gate-unlabelled", "gate-bindroot"):
        assert "volume.foreign" in create(world, volume, "true").rule


def test_the_controller_reaches_a_services_data_and_the_record_says_so(world: World) -> None:
    """The limit that SECURITY.md states: G18 guards the volume, not its contents."""
    made = create(world, "data.store", "sh", "-c", "echo emptied >/data/db; cat /data/db")
    assert made.status == 201
    identifier = made.json["Id"]
    world.must("controller", "POST", f"/containers/{identifier}/start")
    logs = f"/containers/{identifier}/logs?stdout=1"
    eventually(lambda: b"emptied" in world.ask("controller", "GET", logs).body, what="the output")
    assert world.ask("controller", "DELETE", "/volumes/data.store").rule == "volume.approval"
    page = world.ask("operator", "GET", "/trimtab/v1/journal?routes=container.create&limit=4").body
    intent = next(each for each in map(json.loads, page.splitlines()) if each["stage"] == "intent")
    assert (intent["actor"]["role"], intent["request"]["summary"]["mounts"]) == (
        "controller",
        [{"type": "volume", "source": "data.store", "target": "/data", "readOnly": False}],
    )
    world.must("operator", "DELETE", f"/containers/{identifier}?force=1")
    world.must("operator", "DELETE", "/volumes/data.store")
