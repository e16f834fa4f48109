"""The upkeep of delivered files: what containers mount stays, and no fault ends it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import pytest

from controller.broker.files import kept_contents, run_upkeep
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.delivery import FileSet, StoredContent, StoredFiles
from controller.model.inventory import Inventory
from tests.unit.broker.dialogue import state
from tests.unit.broker.world import WEB, inventory

SITE = FileSet("config", "shop", "site")


def test_a_content_that_left_the_inventory_stays_while_a_container_mounts_it() -> None:
    mounts = (ExpectedMount("config", "/srv", "site", read_only=True, content="sha256:used"),)
    item = replace(
        inventory().containers[WEB], namespace="shop", confined=Confinement(mounts=mounts)
    )
    stored = StoredFiles(SITE, (StoredContent("sha256:latest", "team"),))
    kept = kept_contents(Inventory(containers={WEB: item}, files={str(SITE): stored}))
    assert kept == {str(SITE): {"sha256:latest", "sha256:used"}}
    assert kept_contents(Inventory(containers={WEB: item})) == {str(SITE): {"sha256:used"}}


def test_a_fault_of_the_disk_ends_neither_the_restoring_nor_the_collecting() -> None:
    collected = threading.Event()

    class Files:
        """A store on a disk with faults."""

        left = 2

        def restore(self, *, missing_only: bool) -> Iterator[tuple[FileSet, str]]:
            raise ValueError("a damaged list of folders")

        def clear_memory(
            self, _mounted: Mapping[str, frozenset[str]], *, everything: bool = False
        ) -> None:
            if everything:
                raise OSError("no space left")

        def collect(self, _kept: Mapping[str, frozenset[str]]) -> None:
            self.left -= 1
            if self.left:
                raise OSError("no space left")
            collected.set()

    async def upkeep() -> None:
        alone = state()
        alone.split_brain.listed = True
        task = asyncio.ensure_future(run_upkeep(Files(), alone, every_s=0.0))  # type: ignore[arg-type]
        assert await asyncio.to_thread(collected.wait, 10.0)
        task.cancel()

    asyncio.run(upkeep())


@pytest.mark.parametrize(
    ("listed", "unknown", "since"),
    [(False, {}, ""), (True, {WEB: "web.1-0"}, ""), (True, {}, "2026-01-01T12:00:00.000Z")],
    ids=["in doubt", "unknown", "restored"],
)
def test_nothing_is_removed_while_containers_of_ours_are_unknown(
    listed: bool, unknown: dict[str, str], since: str
) -> None:
    restored = threading.Event()

    class Files:
        """A store that must stay as it is."""

        def restore(self, *, missing_only: bool) -> Iterator[tuple[FileSet, str]]:
            assert missing_only == bool(since)
            restored.set()
            return iter(())

        def clear_memory(self, *_: object, everything: bool = False) -> None:
            raise AssertionError(f"plain text is removed: {everything}")

        def collect(self, _kept: object) -> None:
            raise AssertionError("contents are removed")

    async def upkeep() -> None:
        forked = state()
        forked.split_brain.listed, forked.split_brain.unknown = listed, unknown
        forked.inventory = replace(forked.inventory, restored=since)
        task = asyncio.ensure_future(run_upkeep(Files(), forked, every_s=0.0))  # type: ignore[arg-type]
        assert await asyncio.to_thread(restored.wait, 10.0)
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(upkeep())
