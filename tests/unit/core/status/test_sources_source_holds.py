"""Holds of sources that the journal has no record of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.status.sources import (
    HOLDS_MAX,
    new_holds,
    parse_holds,
    render_holds,
    without_ended,
)
from controller.model.desired.desired import Desired
from controller.model.sources import CommitInfo, SourceState, SourceStatus
from tests.unit.core.status.test_sources import KEY, NEW, STATUS, world

HELD = {"team": (NEW, "signature.missing")}


def found(
    status: SourceStatus | None, recorded: dict[str, tuple[str, str]]
) -> list[tuple[str, str]]:
    desired = world(status)
    return [(h.commit, h.reason) for h in new_holds(desired, without_ended(desired, recorded))]


def test_a_hold_is_recorded_once() -> None:
    (hold,) = new_holds(world(STATUS), {})
    assert (hold.key, hold.commit, hold.reason, hold.message, hold.file, hold.line) == (
        *(KEY, NEW, "signature.missing"),
        *("the commit isn't signed", "team.yaml", 3),
    )
    assert found(STATUS, HELD) == []


def test_another_commit_or_reason_is_another_hold() -> None:
    assert found(replace(STATUS, candidate=CommitInfo("c" * 40)), HELD) == [
        ("c" * 40, "signature.missing")
    ]
    assert found(replace(STATUS, reason="signature.unknown"), HELD) == [(NEW, "signature.unknown")]


@pytest.mark.parametrize(
    "meanwhile",
    [
        None,
        replace(STATUS, state=SourceState.FAILING),
        replace(STATUS, state=SourceState.SUSPENDED),
    ],
)
def test_a_hold_goes_on_over_an_outage(meanwhile: SourceStatus | None) -> None:
    recorded = without_ended(world(meanwhile), HELD)
    assert found(meanwhile, HELD) == []
    assert found(STATUS, recorded) == []
    assert without_ended(Desired(), HELD) == HELD


def test_a_hold_after_a_served_commit_is_a_new_one() -> None:
    ready = replace(STATUS, state=SourceState.READY, candidate=None)
    recorded = without_ended(world(ready), HELD)
    assert recorded == {}
    assert found(STATUS, recorded) == [(NEW, "signature.missing")]


def test_the_file_is_bounded_and_read_as_written() -> None:
    many = {f"s{n}": ("a" * 40, "source.empty") for n in range(HOLDS_MAX + 3)}
    assert list(parse_holds(render_holds(many))) == list(many)[3:]
    assert parse_holds(render_holds(HELD)) == HELD


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"[" * 100_000, b'{"version": 1, "holds": 1}'])
def test_another_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_holds(data)
