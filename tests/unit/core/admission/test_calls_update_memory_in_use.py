"""Memory that a container uses isn't taken from it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.admission.calls import judge_memory_in_use, memory_in_use

MIB = 1 << 20


@pytest.mark.parametrize(
    ("stats", "in_use"),
    [
        ({}, None),
        ({"memory_stats": {}}, None),
        ({"memory_stats": {"usage": 0}}, None),
        ({"memory_stats": {"usage": 100, "stats": {"inactive_file": 30}}}, 70),
        ({"memory_stats": {"usage": 100, "stats": {"total_inactive_file": 30}}}, 70),
        ({"memory_stats": {"usage": 100, "stats": {"inactive_file": 200}}}, 100),
    ],
)
def test_files_that_the_kernel_can_drop_are_not_in_use(stats: Any, in_use: int | None) -> None:
    assert memory_in_use(stats) == in_use


@pytest.mark.parametrize(
    ("limit", "in_use", "refused"),
    [
        (110 * MIB, 100 * MIB, False),
        (110 * MIB - 1, 100 * MIB, True),
        (6 * MIB, None, False),
    ],
)
def test_a_tenth_of_room_is_left(limit: int, in_use: int | None, refused: bool) -> None:
    findings = list(judge_memory_in_use(limit, in_use))
    assert [each.rule for each in findings] == (["resources.in-use"] if refused else [])
