"""Hostile files through the renderer: no exception, bounded time, and the honest document stays."""

from __future__ import annotations

from tests.examples import examples
from tests.unit.core.proofs import hostile_files

INPUTS = examples(250)


def test_no_hostile_file_breaks_the_renderer() -> None:
    tally = hostile_files.run(range(INPUTS))
    print(f"{tally.inputs} hostile inputs, slowest {tally.slowest_s * 1000:.0f} ms")
    assert not tally.wrong
    # A broken file is taken as one that declares anything; the others are read whole.
    assert INPUTS // 10 < tally.blind < INPUTS
    assert tally.slowest_s < 5.0, tally.slowest
