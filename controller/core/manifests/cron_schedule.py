"""When a cron schedule fires: pure functions of the schedule, the time zone and the time.

Local times follow Debian's cron. A schedule with fixed hours fires once for each local time: a time
that a gap skips fires at the end of the gap, together with all others of the gap, and a time that
comes twice fires the first time. A schedule with ``*`` in the hour goes by elapsed time, so nothing
is skipped and nothing fires twice at a time.

cronsim enumerates the times. The time zones are those of ``zoneinfo``: a database, which this
module reads as the data that it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS = 5
_START = datetime(2000, 1, 1)  # noqa: DTZ001 - a local time


@lru_cache(maxsize=512)
def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name in the tz database.

    Raises:
        ValueError: there is no such zone.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{name!r:.64} is not a time zone of the tz database") from error


def fault_of(text: str) -> str:
    """Return what is wrong with a schedule; '' for a good one.

    A schedule that never fires, such as ``0 0 30 2 *``, is wrong.
    """
    if len(text.split()) != _FIELDS:
        return "it doesn't have the 5 fields minute, hour, day of month, month, day of week"
    try:
        next(CronSim(text, _START))
    except CronSimError as error:
        return _never(text) or f"{error}".lower() or "it is no cron schedule"
    except StopIteration:
        return "it never fires"
    return ""


def _never(text: str) -> str:
    """Return why a schedule of valid parts never fires; '' for another fault.

    cronsim calls the day of ``0 0 30 2 *`` bad, as the day of ``0 0 32 * *``.
    """
    minute, hour, day, month, weekday = text.split()
    try:
        CronSim(f"{minute} {hour} {day} * {weekday}", _START)
        CronSim(f"{minute} {hour} 1 {month} {weekday}", _START)
    except CronSimError:
        return ""
    return f"it never fires, since no month of {month} has a day {day}"


def next_instant(text: str, zone: tzinfo, after_s: float) -> float | None:
    """Return the first instant after *after_s* at which a schedule fires, in seconds.

    None if there is none within 50 years.
    """
    after = datetime.fromtimestamp(int(after_s), UTC)
    try:
        if text.split()[1].startswith("*") or zone is UTC:
            return next(CronSim(text, after.astimezone(zone))).timestamp()
        return _next_local(text, zone, after)
    except StopIteration:
        return None


def _next_local(text: str, zone: tzinfo, after: datetime) -> float:
    local_times = CronSim(text, after.astimezone(zone).replace(tzinfo=None, fold=0))
    while True:
        instant = instant_of(next(local_times), zone)
        if instant > after:
            return instant.timestamp()


def instant_of(local: datetime, zone: tzinfo) -> datetime:
    """Return the instant of a local time: the first of two, and the end of a gap for none."""
    instant = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None, fold=0) == local:
        return instant
    # In a gap. With the offset before the gap the instant lies behind it, with the other before.
    before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    offset = instant.astimezone(zone).utcoffset()
    low, high = before, instant
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What a schedule asks for now."""

    #: The instant whose run is due, in seconds since the epoch; None if none is.
    due_s: float | None
    #: The next instant after now.
    next_s: float | None
    #: The first instant without a run that is too long ago; None if there is none.
    missed_s: float | None = None


def schedule_state(
    text: str, zone: tzinfo, *, last_s: float, now_s: float, deadline_s: float
) -> ScheduleState:
    """Return what a schedule asks for at *now_s*.

    *last_s* is the last instant that had its run, or the time since when the job is known. Of several
    instants without a run only the latest is due, and only within *deadline_s*.
    """
    due: float | None = None
    # A clock that was set back makes nothing due again: later instants than now are left alone.
    at = max(last_s, now_s - deadline_s - 1)
    following = next_instant(text, zone, at)
    while following is not None and following <= now_s:
        if now_s - following <= deadline_s:
            due = following
        following = next_instant(text, zone, following)
    missed = None
    if last_s < now_s - deadline_s:
        first = next_instant(text, zone, last_s)
        if first is not None and now_s - first > deadline_s:
            missed = first
    return ScheduleState(due, following, missed)
