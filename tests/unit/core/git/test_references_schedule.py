"""The delays between fetches."""

from __future__ import annotations

import pytest

from controller.core.git.references import JITTER, RETRY_LONGEST_S, next_delay_s


@pytest.mark.parametrize(
    ("interval_s", "failures", "expected"),
    [
        (60, 0, 60),
        (60, 1, 10),
        (60, 2, 20),
        (60, 5, 160),
        (60, 6, 300),
        (60, 99, 300),
        (3600, 1, 10),
        (3600, 9, 2560),
        (3600, 10, 3600),
    ],
)
def test_a_failing_source_is_tried_again_soon_then_seldom(
    interval_s: float, failures: int, expected: float
) -> None:
    middle = 0.5 if failures else 0.0
    delay = next_delay_s(interval_s=interval_s, failures=failures, random=middle)
    assert delay == pytest.approx(expected)


def test_a_healthy_source_never_waits_longer_than_its_interval() -> None:
    delays = [next_delay_s(interval_s=60, failures=0, random=n / 10) for n in range(10)]
    assert max(delays) == 60
    assert min(delays) >= 54


@pytest.mark.parametrize("random", [0.0, 0.5, 0.99])
def test_a_server_that_is_down_for_an_hour_is_asked_seldom_and_found_soon(random: float) -> None:
    instants, now = [], 0.0
    while now < 3600:
        instants.append(now)
        now += next_delay_s(interval_s=60, failures=len(instants), random=random)
    assert len(instants) <= 20
    assert now - instants[-1] <= RETRY_LONGEST_S * (1 + JITTER)
