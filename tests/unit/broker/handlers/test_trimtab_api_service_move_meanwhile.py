"""A volume that goes to another owner while a create makes its further volumes.

Other changes are admitted as soon as the first volume is made, such as the adoption of the other
volume by an operator for another namespace or owner.
"""

from __future__ import annotations

from dataclasses import replace

from controller.broker.gate.commands import InspectPaths, ReadEngine
from controller.broker.gate.state import GateState
from controller.model.host_paths import PathFacts
from controller.model.inventory import OwnedObject
from tests.unit.broker.dialogue import NOT_FOUND, RECORDED, Step, state
from tests.unit.broker.handlers.test_container_create import (
    BODY,
    FREE,
    KEPT,
    KEPT_DATA,
    LOOK_IMAGE,
    LOOK_KEPT,
    Forwarded,
    create,
    kept_volume,
)
from tests.unit.broker.world import inventory, policy

DATA, DATA_PATH = "job.logs-0b5a2c", "/var/lib/docker/volumes/job.logs-0b5a2c/_data"


class MovingMeanwhile(Forwarded):
    """The creation of a volume, during which another volume goes to another namespace and owner."""

    def __init__(self, knows: GateState) -> None:
        super().__init__("/volumes/create")
        self._knows = knows

    def __eq__(self, other: object) -> bool:
        known = self._knows.inventory
        moved = replace(known.volumes[DATA], namespace="lab", owner="team")
        self._knows.inventory = replace(known, volumes={**known.volumes, DATA: moved})
        return super().__eq__(other)

    __hash__ = None


def test_no_container_gets_a_volume_that_moved_during_the_look_ups() -> None:
    owned = OwnedObject(DATA, DATA, "", "alice", "client", "i0")
    knows = state(inventory(volumes={DATA: owned}), policy=policy(mounts={"createVolumes": True}))
    paths = InspectPaths((KEPT_DATA, DATA_PATH))
    there = PathFacts(DATA_PATH, "dir", device=8, inode=7)
    dialogue: list[Step] = [
        LOOK_IMAGE,
        (LOOK_KEPT, NOT_FOUND),
        (ReadEngine(f"/volumes/{DATA}"), kept_volume("i0", Name=DATA)),
        FREE,
        (paths, (PathFacts(KEPT_DATA, "missing"), there)),
        ("intent", RECORDED),
        (MovingMeanwhile(knows), kept_volume("id-2")),
        ("outcome", RECORDED),
        (LOOK_KEPT, kept_volume("id-2")),
        FREE,
        (paths, (PathFacts(KEPT_DATA, "dir", device=8, inode=9), there)),
        ("refusal", RECORDED),
    ]
    host = {"NetworkMode": "none", "Binds": [f"{KEPT}:/data", f"{DATA}:/logs"]}
    answer = create(dialogue, knows=knows, body={**BODY, "HostConfig": host})
    assert (answer.rule, answer.status) == ("held", 409)
