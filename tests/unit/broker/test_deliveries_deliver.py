"""A delivery at the gate: recorded around the store, answered at once when it is there already."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import StoreContent
from controller.broker.gate.state import GateState
from controller.core.files import content
from controller.core.files.content import content_id
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.delivery import NAMESPACE_BYTES_MAX, FileSet, StoredContent, StoredFiles
from controller.model.inventory import Inventory
from controller.model.records import Actor
from tests.unit.broker import world
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    OPERATOR,
    RECORDED,
    UNRECORDED,
    Step,
    Told,
    converse,
    request,
    state,
)

SITE = FileSet("config", "default", "site")
FILES = {"page": b"hidden words"}
CONTENT = content_id(FILES)
STORE = StoreContent(SITE, CONTENT, content.encode_blob(FILES))
LOOK = StoreContent(SITE, CONTENT)


def body(owner: str = "team", files: dict[str, bytes] = FILES) -> object:
    encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    return {"owner": owner, "files": encoded}


def put(knows: GateState, *dialogue: Step, actor: Actor = CONTROLLER, sent: object = None) -> Told:
    asked = request(
        "PUT", f"/trimtab/v1/files/{SITE}", actor=actor, body=body() if sent is None else sent
    )
    return converse(handle(asked, knows), dialogue, knows)


def knowing(*contents: StoredContent) -> GateState:
    return state(Inventory(files={str(SITE): StoredFiles(SITE, contents)}))


def test_a_delivery_is_recorded_stored_and_in_the_inventory() -> None:
    knows = state()
    told = put(knows, ("intent", RECORDED), (STORE, ""), ("outcome", RECORDED))
    assert (told.status, told.json) == (201, {"Content": CONTENT})
    assert knows.inventory.files[str(SITE)].contents == (StoredContent(CONTENT, "team", 12),)
    summary = told.entries[0].request["summary"]
    assert summary == {
        "name": "site",
        "namespace": "default",
        "owner": "team",
        "kind": "config",
        "content": CONTENT,
        "sizeBytes": 12,
        "fileCount": 1,
        "fileNames": ["page"],
    }
    assert "hidden" not in str(told.entries)


def test_what_is_there_already_is_neither_stored_nor_recorded() -> None:
    told = put(knowing(StoredContent(CONTENT, "team", 12)), (LOOK, ""))
    assert (told.status, told.entries) == (200, [])


def test_what_the_disk_has_lost_is_stored_again() -> None:
    knows = knowing(StoredContent(CONTENT, "team", 12))
    lost = (LOOK, "the content isn't stored")
    told = put(knows, lost, ("intent", RECORDED), (STORE, ""), ("outcome", RECORDED))
    assert told.status == 201


@pytest.mark.parametrize(
    "there", [StoredContent(CONTENT, "others"), StoredContent("sha256:x", "team")]
)
def test_another_owner_or_an_earlier_content_is_a_delivery(there: StoredContent) -> None:
    told = put(knowing(there), ("intent", RECORDED), (STORE, ""), ("outcome", RECORDED))
    assert told.status == 201


def test_a_full_disk_is_an_outcome_with_a_reason_and_changes_nothing() -> None:
    knows = state()
    told = put(knows, ("intent", RECORDED), (STORE, "no space"), ("outcome", RECORDED))
    assert (told.status, told.rule) == (507, "files.storage")
    assert knows.inventory.files == {}


def test_without_a_record_nothing_is_stored() -> None:
    assert put(state(), ("intent", UNRECORDED)).status == 503


@pytest.mark.parametrize(
    ("actor", "sent", "rule"),
    [
        (ALICE, None, "role.denied"),
        (OPERATOR, None, "role.denied"),
        (CONTROLLER, [], "body.type"),
        (CONTROLLER, {"owner": "team", "files": {"a": "?"}}, "body.type"),
        (CONTROLLER, body(files={"../a": b""}), "files.bounds"),
        (CONTROLLER, body(files={"a": bytes(1024 * 1024 + 1)}), "files.bounds"),
        (CONTROLLER, body(owner="Team"), "owner.invalid"),
    ],
)
def test_what_may_not_be_delivered_is_refused_and_recorded(
    actor: Actor, sent: object, rule: str
) -> None:
    told = put(state(), ("refusal", RECORDED), actor=actor, sent=sent)
    assert told.rule == rule


def test_a_full_namespace_refuses_what_is_new() -> None:
    knows = knowing(StoredContent("sha256:big", "team", NAMESPACE_BYTES_MAX))
    told = put(knows, ("refusal", RECORDED))
    assert told.rule == "files.full"


def test_containers_of_another_owner_never_see_a_content() -> None:
    """Their folder stays when the content changes: they would see the new owner's files at once."""
    mount = ExpectedMount("config", "/srv", "site", read_only=True, content="sha256:x", stable=True)
    item = replace(
        world.inventory().containers[world.WEB],
        namespace="default",
        owner="others",
        confined=Confinement(mounts=(mount,)),
    )
    stored = {str(SITE): StoredFiles(SITE, (StoredContent("sha256:x", "others"),))}
    knows = state(Inventory(containers={world.WEB: item}, files=stored))
    assert put(knows, ("refusal", RECORDED)).rule == "files.foreign"
    confined = Confinement(mounts=(replace(mount, stable=False),))
    knows = state(Inventory(containers={world.WEB: replace(item, confined=confined)}, files=stored))
    assert put(knows, ("intent", RECORDED), (STORE, ""), ("outcome", RECORDED)).status == 201
