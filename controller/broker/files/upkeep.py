"""The upkeep of delivered files: folders that are missing come back, unneeded contents go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller.broker.files.store import (
    FileStore,
    OpenContent,
    OpenSecretFunction,
    first_id,
    open_config,
    refuse_secrets,
)
from controller.broker.gate.state import GateState
from controller.core.files.layout import config_root
from controller.core.files.usage import used_contents
from controller.model.crashpoints import Reach
from controller.model.files.delivery import FileSet
from controller.model.inventory import Inventory

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SecretDelivery:
    """How Secrets are delivered: into a folder in memory, opened from ciphertext."""

    root: Path
    open: OpenContent
    answer: OpenSecretFunction
    forget: Callable[[FileSet], bool]


def restore(state_folder: Path, secrets: SecretDelivery | None) -> list[tuple[str, str]]:
    """Make every folder again that containers mount. Return those that can't be made, with the reason.

    No broker serves the state folder meanwhile.
    """
    roots, openers = _kinds(state_folder, secrets)
    store = FileStore(state_folder / "broker" / "files", roots, openers)
    return [(str(files), reason) for files, reason in store.restore()]


def _kinds(
    state_folder: Path, secrets: SecretDelivery | None
) -> tuple[dict[str, Path], dict[str, OpenContent]]:
    """Return the folders that containers mount files from, and how contents are opened, by kind."""
    roots = {"config": Path(config_root(str(state_folder)))}
    openers: dict[str, OpenContent] = {"config": open_config}
    if secrets is not None:
        roots["secret"], openers["secret"] = secrets.root, secrets.open
    return roots, openers


def open_store(
    state_folder: Path, state: GateState, reach: Reach, secrets: SecretDelivery | None = None
) -> FileStore:
    """Return the store in a state folder, and let *state* name its folders."""
    roots, openers = _kinds(state_folder, secrets)
    state.file_roots = {kind: str(root) for kind, root in roots.items()}
    contents = state_folder / "broker" / "files"
    return FileStore(
        contents,
        roots,
        openers,
        open_secret=secrets.answer if secrets is not None else refuse_secrets,
        forget_secret=secrets.forget if secrets is not None else lambda _files: False,
        first_id=lambda: first_id(state.volumes_root),
        reach=reach,
    )


async def run_upkeep(files: FileStore, state: GateState, *, every_s: float) -> None:
    """Make missing folders again, once; then remove unneeded contents, again and again.

    A fault of the disk ends neither. At the end, no folder in memory stays that is not mounted. While
    containers of this instance are unknown, nothing is removed: they may mount what the inventory lacks.
    """
    try:
        await _keep_up(files, state, every_s)
    finally:
        with suppress(OSError, ValueError):
            if state.split_brain.is_alone:
                files.clear_memory(_mounted(state.inventory), everything=True)


async def _keep_up(files: FileStore, state: GateState, every_s: float) -> None:
    try:
        for failed, reason in await asyncio.to_thread(lambda: list(files.restore())):
            LOG.error("files.unrestored files=%s error=%s", failed, reason)
    except (OSError, ValueError):
        LOG.exception("files.unrestored by a fault")
    while True:
        await asyncio.sleep(every_s)
        if not state.split_brain.is_alone:
            continue
        try:
            await asyncio.to_thread(files.clear_memory, _mounted(state.inventory))
            await asyncio.to_thread(files.collect, kept_contents(state.inventory))
        except (OSError, ValueError):
            LOG.exception("files.uncollected by a fault")


def _mounted(inventory: Inventory) -> Mapping[str, frozenset[str]]:
    """Return the contents that containers mount, by ``str(FileSet)``."""
    mounted: dict[str, set[str]] = {}
    for files, content in used_contents(inventory):
        mounted.setdefault(str(files), set()).add(content)
    return {key: frozenset(contents) for key, contents in mounted.items()}


def kept_contents(inventory: Inventory) -> Mapping[str, frozenset[str]]:
    """Return the contents that stay, by ``str(FileSet)``: those of the inventory, and of containers.

    A content that was lost left the inventory, and its folder can be mounted still.
    """
    kept = dict(_mounted(inventory))
    for key, each in inventory.files.items():
        kept[key] = kept.get(key, frozenset()) | {c.content for c in each.contents}
    return kept
