"""How far a container is, from look to look."""

import math
from dataclasses import replace

import pytest

from controller.core.drift.availability import (
    Availability,
    AvailabilityWord,
    GoodSince,
    at_first_sight,
    availability_of,
    update_good_since,
)
from controller.core.engine_api.translate import timestamp_seconds
from tests.worlds import container, service

STARTED = "2026-01-01T00:00:00Z"
WALL = timestamp_seconds(STARTED) or 0.0
SPEC = service().spec  # minHealthy 10s


def after(*looks, first=True):
    """What is known after looks at (instant, container), the first of which is *first*."""
    known: dict[str, GoodSince] = {}
    for number, (now, seen) in enumerate(looks):
        unseen_s = 0.0 if number or not first else math.inf
        known = update_good_since(known, [seen], now=now, wall=WALL + now, unseen_s=unseen_s)
    return known


def word(now, *looks, first=True, spec=SPEC):
    """The readiness at *now* of the container that the last look showed."""
    seen = looks[-1][1]
    return availability_of(seen, spec, after(*looks, first=first).get(seen.id), now=now)


def test_who_is_up_for_long_enough_is_available():
    up = container()
    assert word(9.9, (0, up)) == Availability(AvailabilityWord.SETTLING, "must be up for 10s", 10.0)
    assert word(10, (0, up)) == Availability(AvailabilityWord.AVAILABLE)


def test_at_the_first_look_of_all_the_engine_is_believed():
    assert word(12, (12, container())).word is AvailabilityWord.AVAILABLE
    assert word(12, (12, container()), first=False).until == 22


def test_what_was_not_there_before_is_up_for_no_longer_than_nobody_looked():
    known = update_good_since({}, [container()], now=400.0, wall=WALL + 400, unseen_s=7.0)
    assert availability_of(container(), SPEC, known["id:web.1-bbbbbbbb"], now=400.0).until == 403


def test_a_clock_that_jumped_makes_nobody_available():
    known = update_good_since({}, [container()], now=1.0, wall=WALL + 1, unseen_s=math.inf)
    known = update_good_since(known, [container()], now=2.0, wall=WALL + 5000, unseen_s=1)
    assert availability_of(container(), SPEC, known["id:web.1-bbbbbbbb"], now=2.0).until == 10


def test_each_run_begins_anew():
    again = container(started_at="2026-01-01T00:00:20Z")
    assert word(25, (12, container()), (25, again)).until == 35


def test_a_check_must_pass_for_as_long():
    starting, healthy = container(health="starting"), container(health="healthy")
    assert word(30, (30, starting)) == Availability(AvailabilityWord.SETTLING, "isn't healthy yet")
    assert word(30, (0, starting), (25, healthy)) == Availability(
        AvailabilityWord.SETTLING, "must be healthy for 10s", 35.0
    )
    assert word(35, (0, starting), (25, healthy)).word is AvailabilityWord.AVAILABLE
    ill = container(health="unhealthy")
    assert word(40, (0, healthy), (40, ill)) == Availability(
        AvailabilityWord.UNHEALTHY, "is unhealthy"
    )
    assert word(41, (0, healthy), (40, ill), (41, healthy)).until == 51


@pytest.mark.parametrize("state", ["created", "exited", "paused", "restarting", "dead"])
def test_what_does_not_run_is_down(state):
    down = container(state=state)
    assert word(50, (0, down)) == Availability(AvailabilityWord.DOWN, f"is {state}")
    assert at_first_sight(down).word is AvailabilityWord.DOWN


def test_without_a_pause_up_is_enough():
    spec = service(rollout={"minHealthy": "0s"}).spec
    assert word(0, (0, container()), spec=spec).word is AvailabilityWord.AVAILABLE
    assert word(0, (0, container(health="starting")), spec=spec).word is AvailabilityWord.SETTLING


def test_what_is_gone_is_forgotten():
    other = replace(container(), id="other")
    assert set(after((0, container()), (1, other))) == {"other"}


@pytest.mark.parametrize(
    ("health", "found"),
    [
        ("", AvailabilityWord.AVAILABLE),
        ("healthy", AvailabilityWord.AVAILABLE),
        ("starting", AvailabilityWord.SETTLING),
        ("unhealthy", AvailabilityWord.UNHEALTHY),
    ],
)
def test_at_first_sight_whoever_is_good_is_available(health, found):
    assert at_first_sight(container(health=health)).word is found


def test_less_memory_begins_the_time_again_and_more_does_not():
    much, little = {"memory": 512 << 20}, {"memory": 64 << 20}
    lowered = ((0, container(admitted=much)), (50, container(admitted=little)))
    assert word(51, *lowered) == Availability(AvailabilityWord.SETTLING, "must be up for 10s", 60.0)
    raised = ((0, container(admitted=little)), (50, container(admitted=much)))
    assert word(51, *raised).word is AvailabilityWord.AVAILABLE
