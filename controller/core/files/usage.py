"""The contents of delivered files in use by containers, from the broker's inventory."""

from __future__ import annotations

from collections.abc import Iterator

from controller.model.files.delivery import FILE_KINDS, FileSet
from controller.model.inventory import Inventory


def used_contents(inventory: Inventory) -> Iterator[tuple[FileSet, str]]:
    """Yield the contents of delivered files in the mounts of containers."""
    for item in inventory.containers.values():
        for mount in item.confined.mounts if item.confined is not None else ():
            if mount.type in FILE_KINDS:
                yield FileSet(mount.type, item.namespace, mount.source), mount.content


def owners_shown(inventory: Inventory, files: FileSet) -> frozenset[str]:
    """Return the owners of the containers with a mount for each later content of *files*."""
    return frozenset(
        item.owner
        for item in inventory.containers.values()
        for mount in (item.confined.mounts if item.confined is not None else ())
        if mount.stable and FileSet(mount.type, item.namespace, mount.source) == files
    )
