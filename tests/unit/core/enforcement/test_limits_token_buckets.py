"""A client's share over time: a burst, a rate, a debt, and a bounded number of uids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.core.enforcement.limits import Bucket, TokenRate, left, spend, wait_s

SHARE = TokenRate(per_s=2.0, burst=10.0, peers=2)


def spent(*amounts: float, uid: int = 1, debt: float = 100.0) -> dict[int, Bucket]:
    buckets: dict[int, Bucket] = {}
    for amount in amounts:
        buckets = spend(buckets, uid, 0.0, SHARE, amount=amount, debt=debt)
    return buckets


def test_the_burst_is_spent_at_once_and_comes_back_at_the_rate() -> None:
    buckets = spent(*[1.0] * 10)
    assert (left(buckets, 1, 0.0, SHARE), wait_s(buckets, 1, 0.0, SHARE)) == (0.0, 0)
    buckets = spent(*[1.0] * 11)
    assert wait_s(buckets, 1, 0.0, SHARE) == 1
    assert wait_s(buckets, 1, 0.5, SHARE) == 0
    assert left(buckets, 1, 100.0, SHARE) == 10.0


def test_a_large_amount_is_waited_for_and_a_debt_has_a_limit() -> None:
    buckets = spent(50.0)
    assert (left(buckets, 1, 0.0, SHARE), wait_s(buckets, 1, 0.0, SHARE)) == (-40.0, 20)
    # Refused requests don't make the wait longer.
    assert wait_s(spent(*[1.0] * 99, debt=1.0), 1, 0.0, SHARE) == 1


def test_uids_beyond_the_bound_share_a_bucket() -> None:
    buckets: dict[int, Bucket] = {}
    for uid in range(50):
        buckets = spend(buckets, uid, 0.0, SHARE, amount=8.0, debt=100.0)
    assert len(buckets) == 3
    assert wait_s(buckets, 0, 0.0, SHARE) == 0
    assert wait_s(buckets, 49, 0.0, SHARE) > 0
    # Full ones are forgotten, and leave room.
    assert set(spend(buckets, 99, 1e6, SHARE)) == {99}


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 20)), max_size=40))
def test_nobody_spends_more_than_burst_rate_and_one_amount(
    steps: list[tuple[float, float]],
) -> None:
    buckets: dict[int, Bucket] = {}
    now = total = 0.0
    for passed, amount in steps:
        now += passed
        if wait_s(buckets, 1, now, SHARE) == 0:
            buckets = spend(buckets, 1, now, SHARE, amount=amount, debt=1e9)
            total += amount
    assert total <= SHARE.burst + now * SHARE.per_s + 20 + 1e-6
