"""Removing images, and asking registries about them: only what came through the broker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, ReadEngine
from controller.broker.gate.state import GateState
from controller.broker.guards.recovery import settle
from controller.model.inventory import Inventory, OpenIntent, PinnedImage, TrustedImage
from controller.model.records import Actor
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    NOT_FOUND,
    OPERATOR,
    RECORDED,
    TIME,
    Step,
    Told,
    at,
    converse,
    lost,
    reply,
    request,
    state,
)
from tests.unit.broker.world import DIGEST, IMAGE, REFERENCE, REVISION, image, inventory

PATH = f"/images/{REFERENCE}"
LOOK = ReadEngine(f"{PATH}/json")
USERS = ReadEngine("/containers/json?all=1")
OTHER = "sha256:" + "33" * 32
GONE = reply([{"Untagged": REFERENCE}, {"Deleted": IMAGE}])


def ask(knows: GateState, target: str, dialogue: list[Step], **more: Any) -> Told:
    more.setdefault("actor", OPERATOR)
    method = more.pop("method", "DELETE")
    return converse(handle(request(method, target, **more), knows), dialogue, knows)


def remove(knows: GateState, *dialogue: Step, actor: Actor = OPERATOR, path: str = PATH) -> Told:
    return ask(knows, path, list(dialogue), actor=actor)


def removed(forward: str = PATH) -> list[Step]:
    return [
        (USERS, reply([{"ImageID": OTHER}])),
        ("intent", RECORDED),
        (Forward("DELETE", forward), GONE),
        ("outcome", RECORDED),
    ]


@pytest.mark.parametrize("who", [OPERATOR, CONTROLLER])
def test_what_came_through_the_broker_is_removed_and_forgotten(who: Actor) -> None:
    knows = state(inventory())
    told = remove(knows, (LOOK, reply(image())), *removed(), actor=who)
    assert told.json == [{"Untagged": REFERENCE}, {"Deleted": IMAGE}]
    assert told.entries[1].result == {
        "status": 200,
        "error": "",
        "durationMs": 0,
        "untagged": [REFERENCE],
        "deleted": [IMAGE],
    }
    assert knows.inventory.ledger == {}


def test_force_and_noprune_are_passed_on_and_nothing_else() -> None:
    forward = f"{PATH}?force=1&noprune=1"
    dialogue = [(LOOK, reply(image())), *removed(forward)]
    remove(state(inventory()), *dialogue, path=f"{PATH}?noprune=1&force=true")
    told = remove(state(inventory()), ("refusal", RECORDED), path=f"{PATH}?force=perhaps")
    assert told.rule == "query.invalid"
    told = remove(state(inventory()), ("refusal", RECORDED), path=f"{PATH}?platforms=x")
    assert told.rule == "query.invalid"


def test_a_client_removes_no_image() -> None:
    told = remove(state(inventory()), ("refusal", RECORDED), actor=ALICE)
    assert told.rule == "role.denied"


@pytest.mark.parametrize(
    "ledger",
    [
        {},
        # The name was let in for another image.
        {REFERENCE: TrustedImage(REFERENCE, OTHER, DIGEST)},
    ],
)
def test_an_image_from_outside_the_broker_is_not_removed(ledger: dict[str, TrustedImage]) -> None:
    knows = state(inventory(ledger=ledger))
    told = remove(knows, (LOOK, reply(image())), ("refusal", RECORDED))
    assert (told.status, told.rule) == (404, "foreign")


def test_by_its_id_an_image_goes_only_if_all_its_names_are_known() -> None:
    path, look = f"/images/{IMAGE}", ReadEngine(f"/images/{IMAGE}/json")
    remove(state(inventory()), (look, reply(image())), *removed(path), path=path)
    more = image(RepoTags=[REFERENCE, "somebody.example/else:1"])
    told = remove(state(inventory()), (look, reply(more)), ("refusal", RECORDED), path=path)
    assert told.rule == "foreign"


@pytest.mark.parametrize("name", ["415069f4ee51", "ghcr.io/x/../y", "sha256:12"])
def test_no_start_of_an_id_names_an_image(name: str) -> None:
    told = remove(state(inventory()), ("refusal", RECORDED), path=f"/images/{name}")
    assert told.status == 400


def test_an_image_in_use_is_not_removed() -> None:
    told = remove(
        state(inventory()),
        (LOOK, reply(image())),
        (USERS, reply([{"ImageID": IMAGE}])),
        ("refusal", RECORDED),
    )
    assert (told.status, told.rule) == (409, "image.used")


def test_what_a_container_is_just_being_made_of_stays() -> None:
    making = OpenIntent(
        8, TIME, "client", {"route": "container.create", "summary": {"imageId": IMAGE}}
    )
    told = remove(
        state(inventory(open={"i8": making})),
        (LOOK, reply(image())),
        (USERS, reply([])),
        ("refusal", RECORDED),
    )
    assert told.rule == "image.used"


def pinned() -> Inventory:
    return replace(
        inventory(), pins={REVISION: PinnedImage(IMAGE, DIGEST, "ghcr.io/platformnetwork/web")}
    )


def test_what_a_rollback_may_need_stays_for_the_controller_and_is_an_operators_to_remove() -> None:
    told = remove(
        state(pinned()),
        (LOOK, reply(image())),
        (USERS, reply([])),
        ("refusal", RECORDED),
        actor=CONTROLLER,
    )
    assert (told.status, told.rule) == (409, "image.needed")
    knows = state(pinned())
    remove(knows, (LOOK, reply(image())), *removed())
    assert knows.inventory.pins == {}


def test_an_image_that_only_lost_a_name_keeps_its_pins() -> None:
    knows = state(pinned())
    dialogue = [(LOOK, reply(image())), *removed()]
    dialogue[3] = (Forward("DELETE", PATH), reply([{"Untagged": REFERENCE}]))
    remove(knows, *dialogue)
    assert (knows.inventory.ledger, list(knows.inventory.pins)) == ({}, [REVISION])


@pytest.mark.parametrize(
    ("shown", "settled", "ledger"),
    [(NOT_FOUND, "applied", []), (reply(image()), "not-applied", [REFERENCE])],
)
def test_a_removal_whose_answer_was_lost_is_settled_by_whether_it_is_there(
    shown: object, settled: str, ledger: list[str]
) -> None:
    knows = state(inventory())
    dialogue: list[Step] = [(LOOK, reply(image())), *removed()[:2]]
    told = remove(knows, *dialogue, (Forward("DELETE", PATH), lost()))
    assert told.status == 504
    identifier = told.entries[0].id
    at(knows, 21.0)
    if settled == "applied":
        converse(
            settle(knows, identifier, earlier=None), [(LOOK, shown), ("recovered", RECORDED)], knows
        )
    else:
        seen = converse(settle(knows, identifier, earlier=None), [(LOOK, shown)], knows).value
        again = settle(knows, identifier, earlier=seen)
        closed = converse(again, [(LOOK, shown), ("recovered", RECORDED)], knows)
        assert closed.entries[0].result["settled"] == settled
    assert list(knows.inventory.ledger) == ledger


# Registries


ASKED = ReadEngine(f"/distribution/{REFERENCE}/json", deadline_s=30.0, registry="ghcr.io")


@pytest.mark.parametrize("who", [ALICE, OPERATOR, CONTROLLER])
def test_a_registry_is_asked_about_what_the_policy_admits_and_its_answer_rebuilt(
    who: Actor,
) -> None:
    descriptor = {"mediaType": "m", "digest": DIGEST, "size": 5, "annotations": {"a": "b"}}
    told = ask(
        state(inventory()),
        f"/distribution/{REFERENCE}/json",
        [
            (
                ASKED,
                reply({"Descriptor": descriptor, "Platforms": [{"os": "linux", "x": 1}], "y": 2}),
            )
        ],
        method="GET",
        actor=who,
        headers=[("x-registry-auth", "e30=")],
    )
    assert told.json == {
        "Descriptor": {"mediaType": "m", "digest": DIGEST, "size": 5},
        "Platforms": [{"os": "linux"}],
    }


@pytest.mark.parametrize(
    "name", ["evil.example/x", "169.254.169.254/latest", "localhost:5000/x", "sha256:" + "1" * 64]
)
def test_no_other_host_is_asked(name: str) -> None:
    told = ask(
        state(inventory()), f"/distribution/{name}/json", [("refusal", RECORDED)], method="GET"
    )
    assert 400 <= told.status < 500


def test_a_registry_that_refuses_or_hangs_is_told() -> None:
    target = f"/distribution/{REFERENCE}/json"
    denied = reply({"message": "denied"}, 403)
    assert ask(state(inventory()), target, [(ASKED, denied)], method="GET").status == 403
    assert ask(state(inventory()), target, [(ASKED, lost())], method="GET").status == 502
