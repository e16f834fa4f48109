"""What a peer may have recorded one by one, and how the rest is counted."""

from hypothesis import given
from hypothesis import strategies as st

from controller.core.enforcement.limits import (
    NAMES_MAX,
    OTHERS,
    Bucket,
    Limit,
    Tally,
    count_record,
    result_of,
    take,
)

ALICE, BOB, CAROL = 1001, 1002, 1003
LIMIT = Limit(per_s=50, burst=3, peers=2)


def spent(times: list[float], *, peer: int = ALICE, limit: Limit = LIMIT) -> list[bool]:
    """Return what a peer gets that spends at these instants."""
    buckets: dict[int, Bucket] = {}
    told = []
    for now in times:
        buckets, enough = take(buckets, peer, now, limit)
        told.append(enough)
    return told


def test_the_figures_are_those_of_the_design() -> None:
    assert Limit() == Limit(per_s=50, burst=500, summary_s=1, peers=64)


def test_a_peer_has_its_burst_and_then_what_flows_in() -> None:
    assert spent([0, 0, 0, 0, 0]) == [True, True, True, False, False]
    assert spent([0, 0, 0, 0.01, 0.02, 0.03]) == [True, True, True, False, True, False]
    assert spent([0, 0, 0, 0, 60, 60, 60, 60]) == [True, True, True, False, *[True] * 3, False]


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    assert spent([10, 10, 10, 5, 10, 10]) == [True, True, True, False, False, False]


@given(st.lists(st.floats(0, 0.5), max_size=200))
def test_no_peer_gets_more_than_its_burst_and_its_rate(steps: list[float]) -> None:
    times = [sum(steps[:number]) for number in range(len(steps))]
    granted = sum(spent(times))
    passed = times[-1] if times else 0
    assert granted <= LIMIT.burst + passed * LIMIT.per_s + 1e-6


def test_one_peer_s_flood_takes_nothing_from_another() -> None:
    buckets: dict[int, Bucket] = {}
    for _ in range(10):
        buckets, _ = take(buckets, ALICE, 0, LIMIT)
    buckets, enough = take(buckets, BOB, 0, LIMIT)
    assert enough
    assert buckets == {ALICE: Bucket(0, 0), BOB: Bucket(2, 0)}


def test_beyond_so_many_peers_the_others_share_and_those_at_rest_make_room() -> None:
    buckets: dict[int, Bucket] = {}
    for peer in (ALICE, BOB, CAROL, CAROL + 1):
        buckets, _ = take(buckets, peer, 0, LIMIT)
    assert buckets == {ALICE: Bucket(2, 0), BOB: Bucket(2, 0), OTHERS: Bucket(1, 0)}
    buckets, _ = take(buckets, CAROL, 60, LIMIT)
    assert buckets == {CAROL: Bucket(2, 60)}


def test_a_tally_tells_how_often_each_rule_refused_and_from_when_to_when() -> None:
    tally: Tally | None = None
    for number, rule in enumerate(["route.denied", "foreign", "route.denied"]):
        tally = count_record(tally, "refusal", rule, 1_767_268_800.0 + number)
    tally = count_record(tally, "read", "container.logs", 1_767_268_800.5)
    assert result_of(tally).members == {
        "total": 4,
        "counts": {"foreign": 1, "route.denied": 2},
        "reads": {"container.logs": 1},
        "first": "2026-01-01T12:00:00.000Z",
        "last": "2026-01-01T12:00:00.500Z",
    }


def test_names_beyond_a_bound_are_counted_together() -> None:
    tally: Tally | None = None
    for number in range(NAMES_MAX + 5):
        tally = count_record(tally, "refusal", f"rule-{number}", 0)
    assert tally is not None
    assert (len(tally.refusals), tally.refusals["other"]) == (NAMES_MAX + 1, 5)
    assert tally.total == NAMES_MAX + 5


def test_a_wall_clock_that_jumps_back_ends_no_span_before_it_began() -> None:
    tally = count_record(
        count_record(None, "refusal", "foreign", 100.0), "refusal", "foreign", 50.0
    )
    assert (tally.first, tally.last) == (100.0, 100.0)
