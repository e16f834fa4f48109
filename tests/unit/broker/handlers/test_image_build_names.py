"""Builds of documents: the name of the result, if another image took it while the build ran."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from controller.broker.dispatch import handle
from controller.broker.gate.call import IMAGE_BYTES_MAX
from controller.broker.gate.commands import (
    BuildEnded,
    ContextReceived,
    Forward,
    ReadEngine,
    ReceiveContext,
    RunBuild,
)
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.core.admission.builds import BuildRequest, read_build
from controller.model import names
from controller.model.inventory import TrustedImage
from controller.model.records import Reply
from tests.unit.broker.dialogue import (
    CONTROLLER,
    NOT_FOUND,
    RECORDED,
    Step,
    Told,
    converse,
    reply,
    request,
    state,
)
from tests.unit.broker.world import image, inventory, policy

NAME = "ghcr.io/platformnetwork/app:1"
BUILT = "sha256:" + "44" * 32
LABELS = {names.OWNER: "alice", names.NAMESPACE: "default", names.SERVICE: "web"}
QUERY = {"t": NAME, "labels": json.dumps(LABELS)}
POLICY = policy(images={"allow": ["ghcr.io/platformnetwork/"], "build": {}})
LOOK = ReadEngine(f"/images/{NAME}/json")
HISTORY = ReadEngine(f"/images/{BUILT}/history", bytes_max=IMAGE_BYTES_MAX)
NAMED = Forward("POST", f"/images/{BUILT}/tag?repo=ghcr.io%2Fplatformnetwork%2Fapp&tag=1")
TEXT = "FROM scratch\nLABEL a=b\n"


def build(after: Reply, *rest: Step) -> tuple[Told, GateState]:
    """Build for alice's documents; *after* is what the engine says of the name when it has built."""
    knows = state(inventory(), policy=POLICY)
    rules = POLICY.images.build
    assert rules is not None
    asked = read_build(QUERY, actor=CONTROLLER, policy=POLICY, host="linux/amd64")
    assert isinstance(asked, BuildRequest)
    limits = (rules.context.bytes, rules.context.files)
    run = RunBuild(
        path=build_path("/build", asked.query),
        dockerfile="Dockerfile",
        text=TEXT.replace("scratch", "scratch AS stage-0"),
        within_s=rules.time / 1000,
        bytes_max=rules.result,
        pids_max=rules.pids,
    )
    dialogue: list[Step] = [
        (ReadEngine("/version"), reply({"Os": "linux", "Arch": "amd64"})),
        (LOOK, NOT_FOUND),
        (
            ReceiveContext(*limits, "Dockerfile", rules.time / 1000),
            ContextReceived("sha256:" + "0" * 64, 30, 1, TEXT),
        ),
        (LOOK, NOT_FOUND),
        ("intent", RECORDED),
        (run, BuildEnded(reply({"Id": BUILT}), ())),
        (HISTORY, reply([{"Size": 5}])),
        (LOOK, after),
        *rest,
        ("outcome", RECORDED),
    ]
    target = f"/build?{urlencode(QUERY)}"
    flow = handle(request("POST", target, actor=CONTROLLER), knows)
    return converse(flow, dialogue, knows), knows


def test_the_result_gets_its_name_and_the_trust_of_its_owner() -> None:
    told, knows = build(NOT_FOUND, (NAMED, Reply(201)))
    assert told.status == 200
    assert knows.inventory.ledger[NAME] == TrustedImage(NAME, BUILT, "", "alice")


def test_a_name_that_another_image_took_meanwhile_stays_that_images() -> None:
    told, knows = build(reply(image()))
    assert (told.status, told.rule) == (409, "build.tag-taken")
    assert told.entries[-1].result["status"] == 409
    assert NAME not in knows.inventory.ledger
