"""The paths at which a container needs an unnamed volume, and the names of these volumes.

Names are deterministic: a later container of the same slot finds the same volume.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from controller.core.encoding.canonical_json import digest
from controller.model.names import Key, qualified

if TYPE_CHECKING:
    from controller.model.desired.desired import ImageVolume, Service

#: Fixed for good: another bound would change the names of existing volumes.
VOLUME_NAME_MAX = 63
_TAIL_MAX = 20
#: The least number of characters for the path. The longest slot has 52 characters.
_TAIL_MIN = 3
_MARK = 6
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+", re.ASCII)
_OF_A_SLOT = re.compile(r"[a-z0-9.-]+\.[1-9][0-9]{0,2}\.[A-Za-z0-9_-]+-[0-9a-f]{6}", re.ASCII)


def uncovered(declared: Iterable[str], targets: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of *declared* without a mount among *targets*, normalized and sorted."""
    covered = set(targets)
    return tuple(sorted({posixpath.normpath(path) for path in declared} - covered))


def volume_name(holder: str, path: str) -> str:
    """Return the name of the volume of *holder* at *path*.

    The holder is a slot, or a client's container.
    Example: ``volume_name("shop.redis.1", "/data")`` is ``shop.redis.1.data-`` and 6 hex digits.
    """
    mark = digest(path)[:_MARK]
    room = VOLUME_NAME_MAX - len(holder) - _MARK - 2
    if room < _TAIL_MIN:
        mark, room = digest([holder, path])[:_MARK], _TAIL_MIN
        holder = holder[: VOLUME_NAME_MAX - _MARK - 2 - _TAIL_MIN]
    last = _UNFIT.sub("-", path.rpartition("/")[2]).strip("-") or "data"
    return f"{holder}.{last[: min(room, _TAIL_MAX)]}-{mark}"


def slot_volume(key: Key, slot: int | str, path: str) -> str:
    """Return the name of a slot's volume at *path*."""
    return volume_name(qualified(key.namespace, f"{key.name}.{slot}"), path)


def is_slot_volume(name: str) -> bool:
    """Return True if a name has the form of a slot's volume, which only the controller creates."""
    return _OF_A_SLOT.fullmatch(name) is not None


def slot_volumes(service: Service, slot: int) -> tuple[tuple[ImageVolume, str], ...]:
    """Return a slot's volumes at the image's VOLUMEs, each with its name ('': a tmpfs)."""
    return tuple(
        (each, slot_volume(service.key, slot, each.path) if each.keeping == "slot" else "")
        for each in service.image_volumes or ()
    )


def describe(volume: ImageVolume, name: str) -> str:
    """Return a line about such a path: ``/data: volume shop.redis.1.data-1a2b3c (slot)``."""
    kind = f"volume {name}" if name else "tmpfs"
    return f"{volume.path}: {kind} ({volume.keeping})"
