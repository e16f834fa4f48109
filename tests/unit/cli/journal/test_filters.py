"""Which records the options of ``journal list`` mean: times as people on call write them, and who."""

from __future__ import annotations

import pwd
from datetime import datetime

import click
import pytest

from controller.cli.journal.filters import parse_actor, time_range_at


def span(now: str, since: str = "", until: str = "") -> str:
    """The beginning and the end at a time of 2 January, as day and time."""
    at = datetime.fromisoformat(f"2026-01-02T{now}:00+00:00").timestamp()
    return " to ".join(
        each.removeprefix("2026-01-").removesuffix(":00.000Z")
        for each in time_range_at(since, until, now=at)
    )


@pytest.mark.parametrize(
    ("now", "since", "until", "meant"),
    [
        # In the middle of it, the evening after, and before it came round again.
        ("03:10", "03:00", "03:20", "02T03:00 to 02T03:20"),
        ("18:00", "03:00", "03:20", "02T03:00 to 02T03:20"),
        ("02:00", "03:00", "03:20", "01T03:00 to 01T03:20"),
        # Over midnight.
        ("00:30", "23:00", "01:00", "01T23:00 to 02T01:00"),
        ("09:00", "23:00", "01:00", "01T23:00 to 02T01:00"),
        ("23:30", "23:00", "01:00", "02T23:00 to 03T01:00"),
        ("03:10", "03:00", "03:00", "02T03:00 to 02T03:00"),
        # Alone it is the last one.
        ("03:10", "03:20", "", "01T03:20 to "),
        ("03:10", "", "03:20", " to 01T03:20"),
        # The night that a date says, and all since a duration ago.
        ("09:00", "2025-12-28T03:00Z", "03:20", "2025-12-28T03:00 to 2025-12-28T03:20"),
        ("09:00", "2025-12-28t03:00z", "", "2025-12-28T03:00 to "),
        ("09:00", "7d", "03:20", "2025-12-26T09:00 to 02T03:20"),
        ("03:10", "1h", "03:20", "02T02:10 to 02T03:20"),
        ("09:00", "24h", "10m", "01T09:00 to 02T08:50"),
    ],
)
def test_times_of_day_are_those_of_the_night_that_is_meant(
    now: str, since: str, until: str, meant: str
) -> None:
    assert span(now, since, until) == meant


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        ("1h", "2h", "--since, 2026-01-02T08:00:00.000Z, is later than --until, 2026-01-02T07:00"),
        ("08:00", "2026-01-01", "is later than --until, 2026-01-01T00:00:00.000Z"),
        ("3 o'clock", "", '"3 o\'clock" is no duration'),
        ("", "1_0d", "'1_0d' is no duration"),
        ("9999-12-31T23:00-02:00", "", "is no duration"),
        ("", "0001-01-01T00:00+14:00", "is no duration"),
    ],
)
def test_an_end_before_the_beginning_and_what_is_no_time_are_wrong_usage(
    since: str, until: str, said: str
) -> None:
    with pytest.raises(click.UsageError) as raised:
        span("09:00", since, until)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("who", "wanted"),
    [
        ("", ""),
        ("operator", "operator"),
        ("root", "0"),
        ("uid:1001", "1001"),
        ("1001", "1001"),
        # As the column ACTOR shows them.
        ("operator:root", "operator:0"),
        ("operator:root?", "operator:0"),
        ("client:4000000", "client:4000000"),
        ("broker", "broker"),
    ],
)
def test_an_actor_is_wanted_as_it_is_shown(who: str, wanted: str) -> None:
    assert parse_actor(who) == wanted


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("rooot", "there is no user 'rooot' here; did you mean root?; known are a role (broker, "),
        ("operator:rooot", "there is no user 'rooot' here; did you mean root?"),
        ("clent", "there is no user 'clent' here; did you mean client?"),
        ("clent:root", "there is no role 'clent'; did you mean client?"),
        ("client:", "there is no user '' here"),
        ("uid:", "uid:N, or ROLE:USER"),
    ],
)
def test_an_unknown_actor_is_wrong_usage_and_what_is_known_is_said(who: str, said: str) -> None:
    assert "rooot" not in {each.pw_name for each in pwd.getpwall()}
    with pytest.raises(click.BadParameter) as raised:
        parse_actor(who)
    assert said in str(raised.value)
