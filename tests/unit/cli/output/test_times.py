"""Instants and spans in words."""

from __future__ import annotations

import pytest

from controller.cli.output.times import age, parse_time, span, until

NOW = 1_772_366_400.0  # 2026-03-01T12:00:00Z


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d")],
)
def test_a_span_has_one_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("since", "text"),
    [
        ("2026-03-01T11:59:00.123456789Z", "59s"),
        ("2026-03-01T13:00:00Z", "0s"),
        ("0001-01-01T00:00:00Z", "-"),
        ("", "-"),
    ],
)
def test_an_age_is_never_negative(since: str, text: str) -> None:
    assert age(since, NOW) == text


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        ("2026-03-01T12:00:40Z", "again in 40 s"),
        ("2026-03-01T12:05:00Z", "again in 5 min"),
        ("2026-03-01T12:00:00Z", "again now"),
        ("", ""),
    ],
)
def test_the_next_try_is_said_in_seconds_or_minutes(instant: str, text: str) -> None:
    assert until(instant, NOW) == text


def test_an_instant_without_a_zone_is_in_utc() -> None:
    assert parse_time("2026-03-01T12:00:00") == NOW
