"""Durations and sizes of Compose."""

from __future__ import annotations

import pytest

from controller.core.compose.translation.units import byte_text, duration_text, whole_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10s", "10s"),
        ("1m30s", "90s"),
        ("1h0m0s", "1h"),
        ("1.5s", "1500ms"),
        ("250ms", "250ms"),
        ("2us", "0ms"),
        ("0", "0ms"),
        ("1d", "24h"),
        ("soon", None),
        ("10", None),
        ("", None),
    ],
)
def test_durations(value: str, text: str | None) -> None:
    assert duration_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("67108864", "64Mi"),
        (67108864, "64Mi"),
        ("64m", "64Mi"),
        ("1.5g", "1536Mi"),
        ("10MB", "10Mi"),
        ("2kib", "2Ki"),
        ("1000", "1Ki"),
        ("much", None),
        ("9" * 400, None),
    ],
)
def test_sizes_round_up_to_1_kibibyte(value: object, text: str | None) -> None:
    assert byte_text(value) == text


@pytest.mark.parametrize(
    ("value", "number"),
    [("080", 80), (0, 0), ("", None), ("-1", None), ("8\u0660", None), ("9" * 5000, None)],
)
def test_whole_numbers(value: object, number: int | None) -> None:
    assert whole_number(value) == number
