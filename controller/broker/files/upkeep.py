"""The upkeep of delivered files: folders that are missing come back, unneeded contents go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from controller.broker.files.store import FileStore, first_id
from controller.broker.gate.state import GateState
from controller.model.crashpoints import Reach

LOG = logging.getLogger(__name__)


def file_roots(state_folder: Path) -> dict[str, Path]:
    """Return the folders that containers mount delivered files from, by kind."""
    return {"config": state_folder / "files" / "config"}


def restore(state_folder: Path) -> list[tuple[str, str]]:
    """Make every folder again that containers mount. Return those that can't be made, with the reason.

    No broker serves the state folder meanwhile.
    """
    store = FileStore(state_folder / "broker" / "files", file_roots(state_folder))
    return [(str(files), reason) for files, reason in store.restore()]


def open_store(state_folder: Path, state: GateState, reach: Reach) -> FileStore:
    """Return the store in a state folder, and let *state* name its folders."""
    roots = file_roots(state_folder)
    state.file_roots = {kind: str(root) for kind, root in roots.items()}
    contents = state_folder / "broker" / "files"
    return FileStore(contents, roots, first_id=lambda: first_id(state.volumes_root), reach=reach)


async def run_upkeep(files: FileStore, state: GateState, *, every_s: float) -> None:
    """Make missing folders again, once; then remove contents that the inventory lacks, again and again."""
    for failed, reason in await asyncio.to_thread(lambda: list(files.restore())):
        LOG.error("files.unrestored files=%s error=%s", failed, reason)
    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(files.collect, _kept(state))


def _kept(state: GateState) -> Mapping[str, frozenset[str]]:
    stored = state.inventory.files
    return {key: frozenset(c.content for c in each.contents) for key, each in stored.items()}
