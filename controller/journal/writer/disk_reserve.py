"""The disk reserve: the last free space is for the controller, operators and closing records.

Once only the reserve is left, requests of clients, refusals and reads are no longer recorded, and
thus refused or left out. No client can fill the disk to the point where operators can't act.
"""

from __future__ import annotations

from typing import Final

from controller.core.enforcement.record_summaries import LIMITED
from controller.core.records.parts import ActorPart
from controller.core.records.record import CLOSING
from controller.model.records import Entry, Role

RESERVE_BYTES: Final = 64 * 1024 * 1024
#: At most one part in so many of a small file system is reserved.
RESERVE_SHARE: Final = 8

_NEVER: Final = LIMITED | {"summary"}
_OURS: Final = frozenset({Role.CONTROLLER.value, Role.OPERATOR.value})


def is_scarce(*, free_bytes: int, size_bytes: int) -> bool:
    """Return True if only the reserve of the file system is left."""
    return free_bytes < min(RESERVE_BYTES, size_bytes // RESERVE_SHARE)


def may_use_reserve(entry: Entry) -> bool:
    """Return True if the entry is recorded even when only the reserve is left."""
    role = ActorPart.read(entry.actor).role
    if entry.stage in CLOSING:
        return True  # for every role: an admitted intent must be closed
    if role == Role.BROKER:
        return True  # removed objects, violations, policies, and the journal's own records
    return role in _OURS and entry.stage not in _NEVER
