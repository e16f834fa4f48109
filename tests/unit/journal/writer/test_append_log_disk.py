"""Who may use the last of the disk."""

from __future__ import annotations

import pytest

from controller.journal.writer.append_log import is_scarce, may_use_reserve
from controller.model.records import Entry, Stage

MIB = 1024 * 1024
ALL = "intent outcome recovered refusal violation summary read operator policy checkpoint segment"


@pytest.mark.parametrize(
    ("role", "stages"),
    [
        ("broker", ALL),
        ("controller", "intent outcome recovered violation operator policy checkpoint segment"),
        ("operator", "intent outcome recovered violation operator policy checkpoint segment"),
        ("client", "outcome recovered"),
        ("other", "outcome recovered"),
    ],
)
def test_ends_are_always_recorded_and_of_clients_nothing_else(role: str, stages: str) -> None:
    kinds: tuple[Stage, ...] = (
        "intent", "outcome", "recovered", "refusal", "violation", "summary", "read", "operator",
        "policy", "checkpoint", "segment",
    )  # fmt: skip
    kept = [kind for kind in kinds if may_use_reserve(Entry("", kind, actor={"role": role}))]
    assert " ".join(kept) == stages


@pytest.mark.parametrize(
    ("free", "size", "scarce"),
    [
        (64 * MIB, 10_240 * MIB, False),
        (64 * MIB - 1, 10_240 * MIB, True),
        (1 * MIB, 8 * MIB, False),
        (1 * MIB - 1, 8 * MIB, True),
        (0, 0, False),
    ],
)
def test_of_a_small_file_system_a_part_is_reserved(free: int, size: int, *, scarce: bool) -> None:
    assert is_scarce(free_bytes=free, size_bytes=size) is scarce
