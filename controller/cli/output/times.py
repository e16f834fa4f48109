"""Times, durations and names of users for people.

Times and durations for people.

Names of users in place of uids, in records and messages.
"""

from __future__ import annotations

import pwd
import re
from datetime import UTC, datetime
from functools import cache

from controller.app.process import SystemClock

MINUTE, HOUR, DAY = 60, 3600, 86400


def current_time() -> float:
    """Return the current time in seconds since the epoch."""
    return SystemClock().now()


def parse_time(text: str) -> float | None:
    """Return a time (RFC 3339) in seconds since the epoch, or None if *text* isn't a time.

    The engine writes year 1 for "never", which gives None.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    if when.year <= 1:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def age(since: str, now: float) -> str:
    """Return the time since *since* in its largest unit, such as ``5m``; ``-`` for no time."""
    then = parse_time(since)
    return "-" if then is None else span(max(0.0, now - then))


def span(seconds: float) -> str:
    """Return a duration in its largest unit: ``45s``, ``5m``, ``3h``, ``2d``."""
    if seconds < 2 * MINUTE:
        return f"{int(seconds)}s"
    if seconds < 2 * HOUR:
        return f"{int(seconds // MINUTE)}m"
    if seconds < 2 * DAY:
        return f"{int(seconds // HOUR)}h"
    return f"{int(seconds // DAY)}d"


def local_time(instant: str) -> str:
    """Return a time to the second in the zone of this computer: ``2026-03-01 13:00:00``."""
    then = parse_time(instant)
    if then is None:
        return instant
    return f"{datetime.fromtimestamp(then, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def until(instant: str, now: float) -> str:
    """Return the time until a retry: ``again in 40 s``, ``again in 3 min``; empty if unknown."""
    then = parse_time(instant)
    if then is None:
        return ""
    left = then - now
    if left < 1:
        return "again now"
    return f"again in {round(left)} s" if left < 2 * MINUTE else f"again in {round(left / 60)} min"


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
