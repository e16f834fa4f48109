"""Mounts of delivered files: folders are made at need, and looked up anew at each look."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.broker import deliveries
from controller.broker.gate.commands import InspectPaths, MakeFiles
from controller.broker.gate.refusals import Denied
from controller.core.engine_api.requests import CreateRequest, FileRequest, MountRequest
from controller.core.files.content import variant_id
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.delivery import FileSet, StoredContent, StoredFiles, Variant
from controller.model.host_paths import PathFacts
from controller.model.inventory import Inventory
from tests.unit.broker.dialogue import RECORDED, converse, state
from tests.unit.broker.world import WEB, inventory

SITE = FileSet("config", "shop", "site")
CONTENT = "sha256:" + "c" * 64
ALL = variant_id(Variant())
ROOT = "/state/files/config"
FOLDER = f"{ROOT}/shop/site/{'c' * 64}/{ALL}"
MOUNT = ExpectedMount("config", "/srv", "site", read_only=True, content=CONTENT, variant=ALL)
BIND = ExpectedMount("bind", "/b", "/srv/b")


def knowing():
    stored = StoredFiles(SITE, (StoredContent(CONTENT, "team"),))
    knows = state(Inventory(files={str(SITE): stored}))
    knows.file_roots = {"config": ROOT}
    return knows


def item(*expected: ExpectedMount):
    known = inventory().containers[WEB]
    return replace(known, namespace="shop", confined=Confinement(mounts=expected))


def test_a_start_makes_the_folders_of_its_container_and_knows_their_paths() -> None:
    knows, made = knowing(), MakeFiles(SITE, CONTENT, ALL)
    told = converse(deliveries.make_recorded(knows, item(MOUNT, BIND)), [(made, "")], knows)
    assert told.value == {FOLDER}


def test_a_content_that_is_lost_is_recorded_so_that_it_is_delivered_again() -> None:
    knows, made = knowing(), MakeFiles(SITE, CONTENT, ALL)
    with pytest.raises(Denied, match=r"files\.undelivered"):
        steps = [(made, "the content isn't stored"), ("read", RECORDED)]
        converse(deliveries.make_recorded(knows, item(MOUNT)), steps, knows)
    assert knows.inventory.files == {}


def test_a_create_makes_the_folder_of_its_namespace() -> None:
    knows = knowing()
    files = FileRequest(CONTENT, uid=7, key="page")
    request = CreateRequest(mounts=(MountRequest("config", "site", "/p", files=files),))
    variant = Variant(uid=7)
    path = deliveries.paths_of(knows, request, "shop")["/p"]
    assert path == f"{ROOT}/shop/site/{'c' * 64}/{variant_id(variant)}/page"
    steps = [(MakeFiles(SITE, CONTENT, variant), "")]
    converse(deliveries.make_requested(knows, request, "shop"), steps, knows)


def test_the_kernel_is_compared_with_the_folder_of_now() -> None:
    knows = knowing()
    facts = PathFacts(FOLDER, "dir", device=8, inode=9, place="/x")
    confined = Confinement(mounts=(MOUNT, BIND))
    steps = [(InspectPaths((FOLDER,)), (facts,))]
    seen = converse(
        deliveries.with_present_sources(knows, item(MOUNT), confined), steps, knows
    ).value
    assert seen.mounts[1] == BIND
    found = seen.mounts[0]
    assert (found.type, found.source, found.device, found.inode, found.place) == (
        *("bind", FOLDER),
        *(8, 9, "/x"),
    )


def test_a_container_without_files_costs_no_look() -> None:
    knows, confined = knowing(), Confinement(mounts=(BIND,))
    assert (
        converse(deliveries.with_present_sources(knows, item(), confined), [], knows).value
        is confined
    )


def test_a_signal_names_the_contents_of_folders_that_stay() -> None:
    stable = replace(MOUNT, stable=True)
    assert deliveries.present_contents(knowing(), item(stable)) == (f"config/site={CONTENT}",)
    assert deliveries.present_contents(knowing(), item(MOUNT)) == ()


def test_a_content_that_cannot_be_mounted_now_is_not_forgotten() -> None:
    """A full disk, or a missing key, would take the contents of earlier revisions away."""
    knows, made = knowing(), MakeFiles(SITE, CONTENT, ALL)
    for reason in ("the files can't be written: No space left", "the content can't be opened now"):
        with pytest.raises(Denied, match=r"files\.undelivered"):
            converse(deliveries.make_recorded(knows, item(MOUNT)), [(made, reason)], knows)
    assert str(SITE) in knows.inventory.files
