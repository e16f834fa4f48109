"""A look at one service: what its parts' own routes reply, in one reply."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from controller.broker.dispatch import handle
from controller.broker.gate.commands import ReadEngine
from controller.broker.handlers.trimtab_reads import OBSERVATION_BYTES_MAX
from controller.model.inventory import PinnedImage
from controller.model.records import Actor
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    INSTANCE,
    NOT_FOUND,
    RECORDED,
    Step,
    Told,
    converse,
    reply,
    request,
    state,
)
from tests.unit.broker.world import (
    ALL_VOLUMES,
    IMAGE,
    NETWORK,
    REFERENCE,
    SERVICE,
    SLOT,
    WEB,
    image,
    inspect,
    inventory,
    labels,
    network,
)

VOLUME = {"Name": "alice-data", "Driver": "local", "Labels": labels("alice")}
NETWORKS: Step = (ReadEngine(f"/networks/{NETWORK}"), reply(network(NETWORK, "lan", "alice")))
VOLUMES: Step = (ReadEngine(ALL_VOLUMES), reply({"Volumes": [VOLUME]}))


def ask(
    dialogue: list[Step],
    images: str = "",
    actor: Actor = CONTROLLER,
    *,
    have: str = "[]",
    volumes: bool = True,
) -> Told:
    target = f"/trimtab/v1/observe?namespace=default&service=web&have={quote(have)}"
    if images:
        target += f"&images={quote(images)}"
    known = inventory()
    knows = state(known if volumes else replace(known, volumes={}))
    return converse(handle(request("GET", target, actor=actor), knows), dialogue, knows)


def test_a_look_has_all_that_a_pass_reads() -> None:
    answer: Any = ask(
        [
            (ReadEngine(f"/containers/{SLOT}/json"), reply(inspect(SLOT, SERVICE, "team"))),
            NETWORKS,
            VOLUMES,
            (ReadEngine(f"/images/{REFERENCE}/json"), reply(image())),
            (ReadEngine("/images/ghcr.io/platformnetwork/absent:1/json"), NOT_FOUND),
        ],
        json.dumps([REFERENCE, "ghcr.io/platformnetwork/absent:1"]),
    ).json
    assert [each["Id"] for each in answer["containers"]] == [SLOT]
    assert "hunter2" not in json.dumps(answer), "values of variables are for operators"
    assert [each["Id"] for each in answer["networks"]] == [NETWORK]
    assert len(answer["volumes"]) == 1
    assert "Mountpoint" not in answer["volumes"][0], "a path of the host"
    shown = answer["images"]
    assert (shown[REFERENCE]["Id"], shown["ghcr.io/platformnetwork/absent:1"]) == (IMAGE, None)
    items = answer["inventory"]
    assert [each["id"] for each in items["containers"]] == [SLOT]
    assert [each["id"] for each in items["networks"]] == [NETWORK]
    assert items["instance"] == INSTANCE
    assert WEB not in json.dumps(answer), "containers of others are no part of it"


def test_the_containers_of_a_look_are_read_at_the_same_time_and_networks_later() -> None:
    known, other = inventory(), "c4" * 32
    second = replace(known.containers[SLOT], id=other, slot=2)
    knows = state(replace(known, containers={**known.containers, other: second}))
    target = "/trimtab/v1/observe?namespace=default&service=web"
    flow = handle(request("GET", target, actor=CONTROLLER), knows)
    first = flow.send(None)
    assert isinstance(first, ReadEngine)
    assert (first.path, first.ahead) == (
        f"/containers/{SLOT}/json",
        (f"/containers/{other}/json",),
    )
    last = flow.send(reply(inspect(SLOT, SERVICE, "team")))
    assert isinstance(last, ReadEngine)
    assert (last.path, last.ahead) == (f"/containers/{other}/json", ())
    assert flow.send(reply(inspect(other, "web.2-01234567", "team"))) == NETWORKS[0]


def test_without_volumes_of_the_instance_none_are_listed() -> None:
    inspected = (ReadEngine(f"/containers/{SLOT}/json"), reply(inspect(SLOT, SERVICE, "team")))
    answer: Any = ask([inspected, NETWORKS], volumes=False).json
    assert (answer["volumes"], answer["inventory"]["volumes"]) == ([], [])


def test_members_with_a_tag_that_the_caller_has_are_left_out_until_they_change() -> None:
    pin = PinnedImage("sha256:1", "", "ghcr.io/platformnetwork/web")
    knows = state(replace(inventory(), pins={"v2:a": pin}, networks={}, volumes={}))

    def look(*have: str) -> Any:
        target = "/trimtab/v1/observe?namespace=default&service=absent"
        target += f"&have={quote(json.dumps(have))}"
        return converse(handle(request("GET", target, actor=CONTROLLER), knows), [], knows).json

    first = look()["inventory"]
    assert dict(first["pins"])["v2:a"]["id"] == "sha256:1"
    tags = first["tags"]
    second = look(*tags.values())["inventory"]
    assert second["tags"] == tags
    assert not {"pins", "endings"} & second.keys()
    knows.inventory = replace(knows.inventory, pins={"v2:a": replace(pin)})  # an equal copy
    assert look(*tags.values())["inventory"]["tags"] == tags
    knows.inventory = replace(knows.inventory, pins={})
    third = look(*tags.values())["inventory"]
    assert third["pins"] == []
    assert third["tags"]["endings"] == tags["endings"]
    assert third["tags"]["pins"] != tags["pins"]
    knows.inventory = replace(knows.inventory, pins={"v2:a": pin})
    again = look(*tags.values())["inventory"]
    assert again["pins"], "a tag is never used again"


def test_an_image_that_the_caller_has_and_a_running_container_uses_is_not_read() -> None:
    running = inspect(SLOT, SERVICE, "team")
    stopped = {**running, "State": {"Status": "exited", "Running": False}}
    read: Step = (ReadEngine(f"/images/{IMAGE}/json"), reply(image()))
    for shown, have, reads in (
        (running, [IMAGE], []),
        (running, [], [read]),
        (running, ["sha256:" + "0" * 64], [read]),
        # The engine removes the image of a stopped container by force.
        (stopped, [IMAGE], [read]),
    ):
        steps = [(ReadEngine(f"/containers/{SLOT}/json"), reply(shown)), NETWORKS, VOLUMES, *reads]
        answer: Any = ask(steps, json.dumps([IMAGE]), have=json.dumps(have)).json
        assert answer["images"].keys() == ({IMAGE} if reads else set())


def test_a_container_that_is_gone_is_left_out() -> None:
    answer: Any = ask(
        [
            (ReadEngine(f"/containers/{SLOT}/json"), NOT_FOUND),
            ("read", RECORDED),
            NETWORKS,
            VOLUMES,
        ]
    ).json
    assert answer["containers"] == []


def test_a_look_beyond_its_bound_is_refused_and_not_recorded() -> None:
    big = {**inspect(SLOT, SERVICE, "team"), "Padding": "x" * OBSERVATION_BYTES_MAX}
    answer = ask([(ReadEngine(f"/containers/{SLOT}/json"), reply(big))])
    assert (answer.status, answer.rule, answer.entries) == (413, "observe.too-large", [])


def test_a_list_of_images_is_bounded() -> None:
    for images in ("x", "[1]", json.dumps(["a"] * 17), "{}"):
        answer = ask([("refusal", RECORDED)], images)
        assert (answer.status, answer.rule) == (400, "query.invalid")


def test_a_look_is_not_for_clients() -> None:
    answer = ask([("refusal", RECORDED)], actor=ALICE)
    assert (answer.status, answer.rule) == (403, "role.denied")
