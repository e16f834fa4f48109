"""Users by their names, wherever a record or a message has a number."""

from __future__ import annotations

import pwd
import re
from functools import cache

_UID = re.compile(r"\buid(?P<mark>[: ])(?P<uid>\d{1,10})\b")


@cache
def user_name(uid: int) -> str:
    """Return the user's name, or the uid where it has none (any more)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def with_names(text: str) -> str:
    """Return a message with users by name: ``root`` for ``uid:0``, ``ann (uid 1000)`` for ``uid 1000``."""
    return _UID.sub(_named, text)


def _named(match: re.Match[str]) -> str:
    name = user_name(int(match["uid"]))
    if name == match["uid"]:
        return match[0]
    return name if match["mark"] == ":" else f"{name} ({match[0]})"
