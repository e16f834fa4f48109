"""A share of the fuzz, and proof that it can fail."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

import pytest

from controller.core.encoding import json_values
from controller.core.engine_api.field_tables import HOST_CONFIG
from controller.model.mutations import Mutation
from tests.gate import fuzz, meanings, predictions, spelling
from tests.gate.meanings import MAKERS, SLOTS, Stage

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine
    from tests.gate.fixtures import World

#: Of all routes together, and at least of each. ``make fuzz KIND=gate`` draws as many as asked for.
ADMITTED, EACH = 160, 2
STAGE = Stage("fz0-", "a" * 64, dict.fromkeys(("start", "stop", "restart", "kill", "pause", "unpause"), "b" * 64), ("left", "right"), "/tmp/policy-x", "alice-store", 2)  # fmt: skip
#: What can't be tried a thousand times at random: each is made once, by its own tests.
#: Files are stored by the broker: the engine hears nothing of them.
ELSEWHERE = {
    *(Mutation.EXEC_CREATE, Mutation.EXEC_START, Mutation.IMAGE_REMOVE, Mutation.IMAGE_TAG),
    Mutation.FILES_DELIVER,
    Mutation.CONTAINER_ADOPT,
    Mutation.IMAGE_BUILD,
}


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    with fuzz.opened(engine) as made:
        yield made


@pytest.mark.needs_root
@pytest.mark.timeout(400)
def test_admitted_requests_match_the_prediction_and_wrong_ones_are_never_forwarded(
    world: World,
) -> None:
    seed = Random().randrange(2**32)
    tally = fuzz.run(
        world, seed=seed, numbers=itertools.count(), enough=fuzz.enough_of(ADMITTED, None)
    )
    print("\n".join(fuzz.report(tally, seed=seed, took_s=0)))
    assert tally.failures == []
    assert all(tally.admitted[route] >= EACH for route in MAKERS), tally.admitted
    assert tally.refused.total() > ADMITTED * meanings.WRONG_SHARE / 2


@pytest.mark.needs_root
def test_a_model_that_predicts_something_else_is_told_with_the_input_that_shows_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "PIDS", 255)
    first = SLOTS.index(Mutation.CONTAINER_CREATE)
    numbers = range(first, first + 30 * len(SLOTS), len(SLOTS))
    tally = fuzz.run(world, seed=1, numbers=iter(numbers), workers=1)
    told = [(number, why) for number, why in tally.failures if number >= 0]
    assert told
    assert all(".HostConfig.PidsLimit is 256, not 255" in why for _, why in told)
    assert f"--seed 1 --input {told[0][0]}: " in "\n".join(fuzz.report(tally, seed=1, took_s=0))


def test_every_mutation_of_the_engine_is_drawn() -> None:
    assert set(MAKERS) | ELSEWHERE == set(Mutation)
    assert set(SLOTS) == set(MAKERS)


def test_an_input_is_the_same_each_time() -> None:
    for number in range(200):
        assert meanings.draw(7, number, STAGE) == meanings.draw(7, number, STAGE)
    assert meanings.draw(7, 0, STAGE) != meanings.draw(8, 0, STAGE)


def test_a_spelling_means_what_was_meant() -> None:
    """By two readers: a lenient one keeps the last of two keys, the strict one takes no two."""
    for number in range(1000):
        dice = Random(number)
        host = meanings._host(dice, STAGE)
        body = {"Image": "x", "Labels": {"\u212a": "\U0001f433\n\\/"}, "HostConfig": host}
        text = spelling.spelled(body, dice)
        assert json.loads(text) == json_values.parse_strict(text.encode()) == body


def test_what_says_nothing_is_read_as_nothing() -> None:
    for number in range(300):
        found = spelling.with_zeroes({}, HOST_CONFIG, Random(number))
        assert not any(found.values())


@pytest.mark.parametrize("what", list(spelling.MISSPELLINGS))
def test_a_misspelling_differs_from_every_spelling(what: str) -> None:
    """Strict JSON or the closed tables refuse it; the fuzz shows that the gate does."""
    for number in range(100):
        body = {"Image": "ghcr.io/a/b", "StopSignal": "SIGTERM", "Tty": True}
        text = spelling.MISSPELLINGS[what](dict(body), Random(number))
        try:
            read: object = json_values.parse_strict(text.encode("utf-8", "surrogatepass"))
        except json_values.InvalidJson:
            continue
        assert read != body
