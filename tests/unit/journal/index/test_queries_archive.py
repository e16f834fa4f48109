"""The index answers as reading everything does, whatever is asked and however it came to be."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.records.query import Filter, QueryResult, Question, subject_to_json
from controller.core.records.record import timestamp
from controller.journal.index import builder as indexing
from controller.journal.index import database
from controller.journal.index.builder import Builder
from controller.journal.index.queries import IndexSnapshot
from tests.examples import examples
from tests.memory import MEMORY
from tests.unit.journal.builders import NOON, uuid7
from tests.unit.journal.stories import (
    CHANGES,
    IDS,
    NAMES,
    OWNERS,
    READERS,
    Naive,
    make_up,
    write_entries,
)


@pytest.fixture(autouse=True, scope="module")
def short_spans() -> Iterator[None]:
    """Have even these journals fill several of the rows that sum up times."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (database, database, indexing):
            patch.setattr(module, "SPAN", 4)
        yield


def time_of(dice: random.Random) -> str:
    return timestamp(NOON + dice.choice((-4000.0, 0.0, 1.001, 61.0, 120.0, 300.0, 5000.0, 9000.0)))


def some(dice: random.Random, values: tuple[str, ...]) -> frozenset[str]:
    return frozenset(dice.sample(values, dice.randint(1, 3)))


MEMBERS: dict[str, Callable[[random.Random], object]] = {
    "since": time_of,
    "until": time_of,
    "service": lambda dice: dice.choice(("web", "default/web", "shop/db", "/web", "none", "web/")),
    "owner": lambda dice: dice.choice((*OWNERS, "none")),
    "actor": lambda dice: dice.choice(
        ("controller", "operator", "1001", "0", "00", "broker", "client:1001", "broker:")
    ),
    "verdict": lambda dice: dice.choice(("allow", "deny")),
    "stages": lambda dice: some(dice, ("intent", "outcome", "recovered", "refusal", "read")),
    "action": lambda dice: dice.choice(("create", "container.create", "STOP", "GET", "logs", "x")),
    "routes": lambda dice: some(dice, CHANGES),
    "container": lambda dice: dice.choice((*NAMES, *IDS, "a000", "a00", "zzzz")),
    "ids": lambda dice: some(dice, IDS),
    "record": lambda dice: dice.choice((uuid7(3), uuid7(5), "x", uuid7(4).replace("-", ""))),
    "after": lambda dice: dice.choice((2, 5, 30)),
    "upto": lambda dice: dice.choice((3, 9, 40, 100)),
}


def filter_of(dice: random.Random) -> Filter:
    """Return a filter with few members set: with many, nothing would be left to find."""
    names = dice.sample(sorted(MEMBERS), dice.randint(0, 3))
    members: dict[str, Any] = {name: MEMBERS[name](dice) for name in names}
    return Filter(**members)


@contextmanager
def indexed(dice: random.Random) -> Iterator[tuple[IndexSnapshot, Naive]]:
    """A journal whose index was kept by one builder after another, and not quite to its end."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as outside:
        folder = Path(outside) / "journal"
        records = write_entries(folder, make_up(dice))
        for stop in sorted(dice.sample(range(70), 2)):
            with Builder(folder) as builder:
                for _ in builder.build(upto=stop):
                    pass
                assert builder.is_whole()
        with Builder(folder) as builder:
            yield IndexSnapshot(builder.index, folder), Naive(records)


def shown(found: Iterable[QueryResult]) -> list[object]:
    return [(each.record, subject_to_json(each.about)) for each in found]


seeds = st.integers(0, 2**32 - 1).map(random.Random)


@settings(max_examples=examples(20))
@given(seeds)
def test_an_index_finds_what_reading_everything_finds(dice: random.Random) -> None:
    with indexed(dice) as (kept, naive):
        for _ in range(10):
            wanted, reader = filter_of(dice), dice.choice(READERS)
            how: dict[str, Any] = {"limit": dice.choice((0, 0, 1, 3)), "last": dice.random() < 0.5}
            got = shown(kept.find(wanted, reader=reader, **how))
            assert got == shown(naive.find(wanted, reader=reader, **how)), (wanted, reader, how)


@settings(max_examples=examples(20))
@given(seeds)
def test_what_was_there_at_a_time_is_told_the_same_by_pages(dice: random.Random) -> None:
    with indexed(dice) as (kept, naive):
        at, reader = time_of(dice), dice.choice(READERS)
        assert kept.last_at(at) == naive.last_at(at)
        whole = kept.ask(Question(reader=reader, there=at))
        assert whole.following == 0
        assert [each.record.seq for each in whole.found] == naive.there(at, reader)
        paged: list[QueryResult] = []
        after = 0
        while True:
            page = kept.ask(Question(Filter(after=after), reader=reader, limit=2, there=at))
            paged += page.found
            if not page.following:
                break
            assert page.following > after, "each page goes on"
            after = page.following
        assert tuple(paged) == whole.found
