"""Files of Configs in worlds of their own: somebody with the controller's user asks for others' files.

Each bug that is planted here is found by the checker of invariant 4 in that world.
"""

from __future__ import annotations

import json

import pytest

from controller.broker import deliveries
from controller.core.admission import create
from controller.core.rules import mounts
from controller.model import names
from controller.model.delivery import FileSet
from controller.model.names import container_name
from tests.sim.broker import SimBroker
from tests.sim.controller import request_of
from tests.sim.doomed import DoomedWorld
from tests.sim.files import Doc
from tests.sim.people import CLAIM, USURPER
from tests.sim.planted import Plant, always
from tests.sim.stories import FILES, IMAGES, SITE, WEB, Tale, service
from tests.sim.violation import Violation
from tests.sim.world import World

FOREIGN = 4
REVISION = "v2:" + "7d" * 32


def usurped(namespace: str, owner: str):
    """Return an act: to ask for the files of ``SITE`` for a container of another place."""

    def act(world: World) -> str:
        broker: SimBroker = world.broker
        labels = {
            names.OWNER: owner,
            names.NAMESPACE: namespace,
            names.SERVICE: "spy",
            names.SLOT: "1",
            names.REVISION: REVISION,
            names.IMAGE: f"{IMAGES}/web:1",
        }
        (content,) = broker.stored[f"config/default/{SITE.name}"]
        mount = {"Type": "config", "Source": SITE.name, "Target": "/srv", "ReadOnly": True}
        host = {"NetworkMode": "none", "Mounts": [{**mount, "Trimtab": {"Content": content}}]}
        body = {"Image": f"{IMAGES}/web:1", "Labels": labels, "HostConfig": host}
        query = {"name": container_name(namespace, "spy", slot=1, revision=REVISION)}
        path, sent = "/containers/create", json.dumps(body).encode()
        asked = request_of(USURPER, "POST", path, query=query, body=sent, context=CLAIM)
        reply = world.ask(asked)
        status = 0 if reply is None else reply.status
        return f"somebody asks for the files of {SITE} for {namespace}, {owner}: {status}"

    return act


STORY = Tale(
    frozenset(),
    (Doc(SITE, {"data": {"a": "1"}}), service(WEB, mounts=FILES[:1])),
    ((5, usurped("lab", "team")), (6, usurped("default", "others"))),
)


def test_nobody_gets_the_files_of_another_namespace_or_owner() -> None:
    world = DoomedWorld(STORY)
    world.run()
    asked = [line for line in world.trace.lines if "somebody asks for the files" in line]
    assert [line.rpartition(": ")[2] for line in asked] == ["403", "403"]


def _of_default(kind: str, _namespace: str, name: str) -> FileSet:
    return FileSet(kind, "default", name)


_NO_RULE = tuple(rule for rule in create.CREATE_RULES if rule is not mounts.files_own)
PLANTED = (
    Plant(
        FOREIGN,
        "files-of-anybody",
        "the owner of a content isn't compared",
        ((create, "CREATE_RULES", always(_NO_RULE)),),
    ),
    Plant(
        FOREIGN,
        "files-of-any-namespace",
        "a Config of another namespace is admitted",
        ((mounts, "FileSet", always(_of_default)), (deliveries, "FileSet", always(_of_default))),
    ),
)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.patch)
def test_a_bug_that_gives_away_files_is_found(plant: Plant) -> None:
    with plant.growing(), pytest.raises(Violation, match=f"invariant {FOREIGN}:"):
        DoomedWorld(STORY).run()
