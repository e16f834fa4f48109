"""The last of the disk is for what the controller and operators change, and for ends.

Below the reserve, what a client asks for, refusals and reads aren't recorded any more, and so
refused or left out: nobody can fill the disk so far that who heals the host can't.
"""

from __future__ import annotations

from typing import Final

from controller.core.enforcement.rate_limit import LIMITED
from controller.core.records.record import CLOSING
from controller.model.records import Entry, Role

RESERVE_BYTES: Final = 64 * 1024 * 1024
#: Of a small file system no more than this part is reserved.
RESERVE_SHARE: Final = 8

_NEVER: Final = LIMITED | {"summary"}
_OURS: Final = frozenset({Role.CONTROLLER.value, Role.OPERATOR.value})


def is_scarce(*, free_bytes: int, size_bytes: int) -> bool:
    """Tell whether of a file system of that size only the reserve is left."""
    return free_bytes < min(RESERVE_BYTES, size_bytes // RESERVE_SHARE)


def may_use_reserve(entry: Entry) -> bool:
    """Tell whether an entry is recorded also when only the reserve is left."""
    role = entry.actor.get("role")
    if entry.stage in CLOSING:
        return True  # whoever asked: an intent that was admitted is always closed
    if role == Role.BROKER:
        return True  # what is gone, violations, policies; and the journal's own records
    return role in _OURS and entry.stage not in _NEVER
