"""Users by their names."""

from __future__ import annotations

import pytest

from controller.cli.output.times import with_names


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("suspended by uid:0 since 12:00", "suspended by root since 12:00"),
        (".state belongs to uid 0", ".state belongs to root (uid 0)"),
        ("by uid:3999999999", "by uid:3999999999"),
        ("a fluid:0 mixture", "a fluid:0 mixture"),
    ],
)
def test_a_number_of_a_user_becomes_their_name(text: str, named: str) -> None:
    assert with_names(text) == named
