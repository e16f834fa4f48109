"""``notices.json``: all that the process of notifications remembers, replaced durably before a message is sent."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

from controller.core.encoding.stored_form import StoredForm
from controller.model.crashpoints import Reach, pass_by
from controller.model.notifications import NoticeState
from controller.system.durable_files import write_atomic

log = logging.getLogger("trimtab.notify")

NAME: Final = "notices.json"
FORMAT: Final = 1
_STATE: Final = StoredForm(NoticeState)


class DamagedNotices(Exception):
    """The file can't be read as notices."""


def read_notices(folder: Path) -> NoticeState:
    """Return the state in a folder; an empty one without a file.

    Raises:
        DamagedNotices: the file has something else.
        OSError: the file can't be read.
    """
    try:
        found = json.loads((folder / NAME).read_bytes())
        if found["format"] != FORMAT:
            raise DamagedNotices(f"its format is {found['format']!r:.20}")
        return _STATE.from_json(found["state"])
    except FileNotFoundError:
        return NoticeState()
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedNotices(f"it can't be read: {error}") from error


def take_notices(folder: Path) -> NoticeState:
    """Return the state in a folder. A damaged file is put aside, and open incidents are sent again."""
    try:
        return read_notices(folder)
    except DamagedNotices as error:
        path = folder / NAME
        path.rename(path.with_suffix(".damaged"))
        log.error("%s is damaged (%s), and kept as %s.damaged", path, error, path.stem)  # noqa: TRY400 - no traceback
        return NoticeState()


def write_notices(folder: Path, state: NoticeState, reach: Reach = pass_by) -> None:
    """Replace the file durably.

    Raises:
        OSError: the file isn't replaced.
    """
    members = {"format": FORMAT, "state": _STATE.to_json(state)}
    write_atomic(folder / NAME, json.dumps(members).encode(), reach=reach, points="notices")
