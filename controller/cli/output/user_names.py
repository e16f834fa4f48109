"""Names of users in place of uids, in records and messages."""

from __future__ import annotations

import pwd
import re
from functools import cache

_UID = re.compile(r"\buid(?P<mark>[: ])(?P<uid>\d{1,10})\b")


@cache
def user_name(uid: int) -> str:
    """Return the name of a user, or the uid if the user is unknown."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def with_names(text: str) -> str:
    """Replace uids by names: ``root`` for ``uid:0``, ``ann (uid 1000)`` for ``uid 1000``."""
    return _UID.sub(_name_of, text)


def _name_of(match: re.Match[str]) -> str:
    name = user_name(int(match["uid"]))
    if name == match["uid"]:
        return match[0]
    return name if match["mark"] == ":" else f"{name} ({match[0]})"
