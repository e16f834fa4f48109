"""The time of Releases: each has its bound, and those of one reading have one together."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from controller.core.charts.releases import RenderLimitError
from controller.process import chart_worker
from controller.process.chart_worker import RenderClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderClock]:
    for name, seconds in (("RELEASE_S", 0.04), ("READING_S", 0.06), ("SHORTENED_S", 0.01)):
        monkeypatch.setattr(chart_worker, name, seconds)
    before = signal.getsignal(signal.SIGPROF)
    yield RenderClock()
    signal.signal(signal.SIGPROF, before)


def overdue(clock: RenderClock) -> tuple[str, bool]:
    """Return the limit at which a Release without end is stopped, and whether it is shortened."""
    with pytest.raises(RenderLimitError) as stopped, clock.limit():
        while True:
            pass
    return str(stopped.value), stopped.value.is_shortened


def test_releases_without_end_leave_the_others_of_a_reading_little_time(clock: RenderClock) -> None:
    full, little = ("0.04 s of processor time", False), ("0.01 s of processor time", True)
    assert [overdue(clock) for _ in range(3)] == [full, full, little]
    clock.begin()
    assert overdue(clock) == full


def test_a_release_in_time_is_not_stopped_later(clock: RenderClock) -> None:
    with clock.limit():
        pass
    assert signal.getitimer(signal.ITIMER_PROF) == signal.getitimer(signal.ITIMER_VIRTUAL)
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0
