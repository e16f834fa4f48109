"""A few hundred hostile repositories, always the same ones, and proof that the fuzz can fail."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from controller.core.git import commit_objects
from tests.hostile import drawn, fuzz
from tests.hostile.worlds import World

SEED, INPUTS, GIT_EVERY = 1, 250, 10
#: Inputs that show both planted faults, each more than once.
ENOUGH = 60


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with fuzz.scratch_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    return World(folder / "world")


def run(world: World, folder: Path, *, inputs: int, git_every: int = 10**6) -> fuzz.Tally:
    return fuzz.run(world, folder, seed=SEED, numbers=range(1, inputs + 1), git_every=git_every)


def run_all() -> fuzz.Tally:
    with fuzz.scratch_folder() as folder:
        return run(World(folder / "world"), folder, inputs=INPUTS, git_every=GIT_EVERY)


def test_hostile_repositories_change_nothing_but_their_own_export() -> None:
    # A process of its own: the peak of memory of this one is that of all tests before.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        tally = alone.submit(run_all).result()
    assert tally.failures == []
    assert tally.parsed.total() == INPUTS
    assert tally.fetched.total() == INPUTS // GIT_EVERY
    # Good ones among them: a fuzz that refuses everything proves nothing.
    assert tally.parsed["exported"] > INPUTS / 10
    assert tally.fetched["Ready"] > 0
    assert len(tally.parsed) > 6


def test_a_missing_check_of_modes_is_found(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tuple(
        rule for rule in commit_objects._ENTRY_RULES if rule != commit_objects._refuse_kind
    )
    monkeypatch.setattr(commit_objects, "_ENTRY_RULES", kept)
    tally = run(world, folder, inputs=ENOUGH)
    assert tally.failures
    number, why = tally.failures[0]
    assert "AssertionError" in why
    assert f"--seed {SEED} --input {number}: " in "\n".join(fuzz.report(tally, seed=SEED))


def test_a_missing_check_of_signatures_is_found(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_objects, "_without_header", lambda raw, name: raw)
    tally = run(world, folder, inputs=ENOUGH)
    assert any("covers itself" in why for _, why in tally.failures)


def test_a_commit_that_is_served_unverified_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = next(it for it in (drawn.draw(SEED, n, world.good) for n in range(100)) if it.is_plain)
    it.verify, it.is_plain = "head", False
    assert world.fetch(it) == "Held source.unsigned"
    monkeypatch.setattr(World, "_verify", lambda *_: None)
    with pytest.raises(AssertionError, match="without a good signature"):
        world.fetch(it)


def test_an_input_is_the_same_each_time(world: World) -> None:
    for number in range(50):
        one, other = (drawn.draw(7, number, world.good) for _ in range(2))
        assert list(one.objects) == list(other.objects)
        assert (one.references, one.damage, one.ref) == (other.references, other.damage, other.ref)
    assert drawn.draw(7, 0, world.good).commit != drawn.draw(8, 0, world.good).commit
