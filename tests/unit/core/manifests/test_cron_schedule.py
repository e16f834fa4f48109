"""Cron schedules: each local time once, in every zone and at every change of an offset."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.manifests.cron_schedule import (
    fault_of,
    instant_of,
    next_instant,
    schedule_state,
    zone_of,
)
from tests.examples import examples

MINUTE = timedelta(minutes=1)
HOUR = 3600.0
BERLIN = ZoneInfo("Europe/Berlin")
FIRST, LAST = datetime(2023, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)


def transitions(zone: tzinfo) -> Iterator[datetime]:
    """Yield the hours of UTC before each change of a zone's offset."""
    day, step = FIRST, timedelta(days=7)
    while day < LAST:
        low, high = day, day + step
        if low.astimezone(zone).utcoffset() != high.astimezone(zone).utcoffset():
            while high - low > timedelta(hours=1):
                middle = low + (high - low) / 2
                same = middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            yield low.replace(minute=0, second=0, microsecond=0)
        day += step


def fired(
    minutes: set[int], hours: set[int] | None, zone: tzinfo, begin: datetime, end: datetime
) -> list[datetime]:
    """Return when a schedule fires, minute by minute: the second implementation."""
    found = []
    at = begin + MINUTE
    before = begin.astimezone(zone).replace(tzinfo=None, fold=0)
    latest = before
    while at <= end:
        local = at.astimezone(zone).replace(tzinfo=None, fold=0)
        # The local times since the last minute: several after a gap.
        reached = [local]
        skipped = before + MINUTE
        while skipped < local:
            reached.append(skipped)
            skipped += MINUTE
        if hours is None:
            fires = local.minute in minutes
        else:
            # A time that comes twice has been reached before.
            fires = any(
                each > latest and each.minute in minutes and each.hour in hours for each in reached
            )
        if fires:
            found.append(at)
        before, latest = local, max(latest, local)
        at += MINUTE
    return found


def enumerated(text: str, zone: tzinfo, begin: datetime, end: datetime) -> list[datetime]:
    found, at = [], begin.timestamp()
    while (following := next_instant(text, zone, at)) is not None and following <= end.timestamp():
        assert following > at
        found.append(datetime.fromtimestamp(following, UTC))
        at = following
    return found


def compare(name: str, minutes: set[int], hours: set[int] | None, begin: datetime) -> None:
    zone, end = zone_of(name), begin + timedelta(hours=9)
    listed = ",".join(map(str, sorted(minutes)))
    text = f"{listed} {'*' if hours is None else ','.join(map(str, sorted(hours)))} * * *"
    expected = fired(minutes, hours, zone, begin, end)
    assert enumerated(text, zone, begin, end) == expected, f"{text} in {name} from {begin}"


def test_all_zones_agree_with_a_walk_through_each_minute() -> None:
    changes = 0
    for number, name in enumerate(sorted(available_timezones())):
        for at in [*transitions(ZoneInfo(name))][:2] or [FIRST]:
            begin = at - timedelta(hours=4)
            around = {(at + timedelta(hours=h)).astimezone(ZoneInfo(name)).hour for h in range(4)}
            hours = None if number % 4 == 0 else {min(around), max(around), *around}
            compare(name, {0, 30} if number % 2 else {15, 59}, hours, begin)
            changes += 1
    assert changes > 700


@settings(max_examples=examples(12))
@given(
    st.sampled_from(sorted(available_timezones())),
    st.sets(st.integers(0, 59), min_size=1, max_size=4),
    st.none() | st.sets(st.integers(0, 23), min_size=1, max_size=5),
    st.datetimes(datetime(2001, 1, 1), datetime(2036, 1, 1)),  # noqa: DTZ001 - local
)
def test_any_schedule_agrees_at_any_time(
    name: str, minutes: set[int], hours: set[int] | None, start: datetime
) -> None:
    compare(name, minutes, hours, start.replace(second=0, microsecond=0, tzinfo=UTC))


def test_a_skipped_time_fires_at_the_end_of_the_gap_and_a_repeated_one_once() -> None:
    gap = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)  # 02:00 becomes 03:00
    for text in ("30 2 * * *", "*/5 2 * * *", "0 3 * * *", "30 2,3 * * *"):
        assert next_instant(text, BERLIN, gap.timestamp() - HOUR) == gap.timestamp()
    fold = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 02:30, and once more an hour later
    assert next_instant("30 2 * * *", BERLIN, fold.timestamp() - HOUR) == fold.timestamp()
    after = next_instant("30 2 * * *", BERLIN, fold.timestamp())
    assert after is not None
    assert after - fold.timestamp() > 24 * HOUR


def test_a_day_that_a_zone_skips_fires_once_at_its_end() -> None:
    apia = ZoneInfo("Pacific/Apia")  # there was no 30 December 2011
    end = datetime(2011, 12, 30, 10, 0, tzinfo=UTC)
    begin = datetime(2011, 12, 29, 22, 0, tzinfo=UTC)
    assert next_instant("0 12 30 12 *", apia, begin.timestamp()) == end.timestamp()
    assert instant_of(datetime(2011, 12, 30, 12), apia) == end  # noqa: DTZ001 - local


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0 3 * * *", ""),
        ("*/15 8-18 * * MON-FRI", ""),
        ("0 0 30 2 *", "never fires, since no month of 2 has a day 30"),
        ("0 0 31 4,6 *", "never fires"),
        ("0 0 29 2 *", ""),
        ("0 0 30 2 MON", ""),
        ("0 0 32 * *", "bad day-of-month"),
        ("0 0 30 13 *", "bad month"),
        ("61 * * * *", "bad minute"),
        ("0 0 * * 9", "bad day-of-week"),
        ("@daily", "5 fields"),
        ("0 * * * * *", "5 fields"),
        ("", "5 fields"),
        ("x y z a b", "bad minute"),
    ],
)
def test_a_schedule_is_good_or_has_a_fault(text: str, fault: str) -> None:
    found = fault_of(text)
    assert fault in found
    assert bool(found) == bool(fault)


@pytest.mark.parametrize(
    "name", ["Europe/Nowhere", "", "../etc/passwd", "/etc/localtime", "berlin"]
)
def test_an_unknown_zone_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="not a time zone"):
        zone_of(name)


# What is due


def state(last_s: float, now_s: float, *, deadline_s: float = HOUR, text: str = "0 * * * *"):
    return schedule_state(text, UTC, last_s=last_s, now_s=now_s, deadline_s=deadline_s)


def test_of_several_missed_instants_the_latest_is_due_within_the_deadline() -> None:
    found = state(0.0, 3 * HOUR + 60)
    assert (found.due_s, found.next_s, found.missed_s) == (3 * HOUR, 4 * HOUR, HOUR)
    late = state(0.0, 3 * HOUR + 60, deadline_s=30)
    assert (late.due_s, late.missed_s) == (None, HOUR)
    assert state(3 * HOUR, 3 * HOUR + 60).due_s is None
    on_time = state(2 * HOUR, 3 * HOUR)
    assert (on_time.due_s, on_time.missed_s) == (3 * HOUR, None)


@given(
    st.lists(st.integers(-5, 5).map(lambda hours: hours * HOUR), max_size=6),
    st.integers(0, 10**6),
)
def test_however_the_clock_jumps_no_instant_has_two_runs(jumps: list[float], start: int) -> None:
    now, last, ran = float(start), float(start), list[float]()
    for jump in [0.0, *jumps]:
        now = max(0.0, now + jump)
        for _ in range(4):
            now += HOUR / 2
            found = state(last, now)
            if found.due_s is not None:
                ran.append(found.due_s)
                last = found.due_s
            assert found.next_s is None or found.next_s > now
    assert len(ran) == len(set(ran))
    assert ran == sorted(ran)
