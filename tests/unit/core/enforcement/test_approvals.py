"""What an operator approves is what the inventory has, and an approval holds for nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from controller.core.enforcement.approvals import (
    ApprovalObject,
    ApprovalView,
    UnknownObject,
    changes,
    read_digest,
    read_objects,
    view,
)
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.inventory import ContainerItem, Inventory, OwnedObject
from controller.model.observed import Settings
from tests.growth import LINEAR, steps

PLAN = "ab" * 32
WEB, GUEST = "1" * 64, "2" * 64
MADE = "019b7980-0000-7000-8000-000000000000"
SINCE = "2026-01-01T12:19:50Z"


def container(identifier: str, name: str, *, origin: str = "controller") -> ContainerItem:
    mount = ExpectedMount("volume", "/data", "data")
    return ContainerItem(
        id=identifier,
        namespace="shop",
        service="web",
        slot=1,
        revision="v2:" + "0" * 64,
        owner="team",
        origin=origin,
        intent=MADE,
        image="web:1",
        admitted=Settings(name=name),
        confined=Confinement(mounts=(mount,)),
    )


DATA = OwnedObject("data", "data", "shop", "team", "controller", MADE)
INVENTORY = Inventory(
    containers={
        WEB: container(WEB, "web.shop.1-0"),
        GUEST: container(GUEST, "guest", origin="client"),
    },
    volumes={"data": DATA},
)
SHOWN = ApprovalView(
    PLAN,
    (
        ApprovalObject(
            WEB, "container", "web.shop.1-0", "shop", "web", "team", SINCE, MADE, ("data",)
        ),
        ApprovalObject(
            "volume:data",
            "volume",
            "data",
            "shop",
            "",
            "team",
            SINCE,
            MADE,
            ("guest", "web.shop.1-0"),
        ),
    ),
)


def test_a_view_has_the_words_of_the_inventory() -> None:
    assert view(INVENTORY, PLAN, ["volume:data", WEB, WEB]) == SHOWN


def test_the_cost_of_a_view_does_not_grow_with_pairs_of_volumes_and_containers() -> None:
    def cost(count: int) -> int:
        known = Inventory(
            containers={f"{n:064x}": container(f"{n:064x}", f"web.{n}") for n in range(count)},
            volumes={f"v{n}": replace(DATA, id=f"v{n}", name=f"v{n}") for n in range(count)},
        )
        return steps(lambda: view(known, PLAN, [f"volume:v{n}" for n in range(count)]))

    cost(50)  # fills the caches of types and patterns
    few, more, many = cost(50), cost(100), cost(200)
    assert (many - more) / (more - few) < LINEAR


def test_what_the_broker_does_not_know_can_not_be_approved() -> None:
    absent = "3" * 64
    asked = [absent, "volume:none", "\x1b[31mred", GUEST, WEB]
    shown = view(INVENTORY, PLAN, asked)
    assert [each.id for each in shown.objects] == [WEB]
    assert shown.unknown == (
        UnknownObject("\x1b[31mred", "the broker doesn't know it"),
        UnknownObject(GUEST, "a client made it, and the controller isn't allowed to act on it"),
        UnknownObject(absent, "the broker doesn't know it"),
        UnknownObject("volume:none", "the broker doesn't know it"),
    )


@pytest.mark.parametrize("member", [field.name for field in fields(ApprovalObject)])
def test_the_digest_covers_the_plan_and_each_member(member: str) -> None:
    assert SHOWN.digest == view(INVENTORY, PLAN, ["volume:data", WEB]).digest
    assert replace(SHOWN, plan="cd" * 32).digest != SHOWN.digest
    other: Any = ("x",) if member == "mounts" else "x"
    changed = replace(SHOWN.objects[0], **{member: other})
    assert replace(SHOWN, objects=(changed, SHOWN.objects[1])).digest != SHOWN.digest
    assert replace(SHOWN, objects=SHOWN.objects[:1]).digest != SHOWN.digest


@pytest.mark.parametrize(
    ("inventory", "words"),
    [
        (INVENTORY, ""),
        (
            replace(INVENTORY, containers={}),
            "container web.shop.1-0 is gone; volume data: mounts is []",
        ),
        (
            replace(INVENTORY, volumes={"data": replace(DATA, intent="i2")}),
            "volume data is another one, made since",
        ),
        (
            replace(INVENTORY, volumes={"data": replace(DATA, owner="other")}),
            "volume data: owner is other",
        ),
    ],
)
def test_a_change_is_named(inventory: Inventory, words: str) -> None:
    assert changes(SHOWN, view(inventory, PLAN, ["volume:data", WEB])) == words


def test_an_object_that_was_not_shown_and_another_plan_are_named() -> None:
    before = replace(SHOWN, objects=SHOWN.objects[:1])
    now = replace(SHOWN, plan="cd" * 32)
    assert changes(before, now) == (
        f"volume data wasn't shown; the plan is {'cd' * 32}, not {PLAN}"
    )


def test_a_long_list_of_changes_is_cut() -> None:
    many = tuple(replace(SHOWN.objects[0], id=f"{n:064}", name=f"c{n}") for n in range(8))
    words = changes(ApprovalView(PLAN, many), ApprovalView(PLAN, ()))
    assert words.startswith("container c0 is gone; ")
    assert words.endswith("; container c4 is gone; and 3 more")


@pytest.mark.parametrize("value", [None, [], "x", [1], ["x" * 301], ["x"] * 1001])
def test_a_list_of_another_shape_is_refused(value: object) -> None:
    assert isinstance(read_objects(value), str)
    assert read_objects(["x", "\x1b"]) == ("x", "\x1b")


@pytest.mark.parametrize("shown", [None, 1, "", "AB" * 32, "ab" * 31])
def test_a_digest_of_another_shape_is_none(shown: object) -> None:
    assert read_digest({"shown": shown}) is None
    assert read_digest({"shown": "ab" * 32}) == "ab" * 32
