"""Sizes in the notation of Docker and Compose."""

from __future__ import annotations

import pytest

from controller.model.quantities import format_elapsed_ms, parse_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1024", 1024),
        ("10b", 10),
        ("10k", 10 << 10),
        ("10 kb", 10 << 10),
        ("1.5g", 3 << 29),
        ("1.g", 1 << 30),
        (".5G", 1 << 29),
        ("1.1k", 1126),
        ("2TiB", 2 << 40),
        ("1p", 1 << 50),
        ("010g", 10 << 30),
    ],
)
def test_a_size_is_a_number_with_a_power_of_1024(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "text", ["", ".", "g", "-1", "1e3", "1.2.3g", "1  g", "1gg", "\u0661g", "8192p", "9" * 400]
)
def test_another_text_is_no_size(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (9949, "9.9 s"),
        (9950, "10 s"),
        (59_499, "59 s"),
        (59_500, "1 min 0 s"),
        (125_000, "2 min 5 s"),
    ],
)
def test_a_measured_time_has_one_form(count: int, text: str) -> None:
    assert format_elapsed_ms(count) == text
