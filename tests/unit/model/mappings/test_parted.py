"""Mappings in parts: they equal plain ones, and a change copies one part of many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.model.mappings.parted import PARTS, PartedMap

KEYS = st.sampled_from([*"abcdef", "\ud800"])
CHANGES = st.lists(st.tuples(st.sets(KEYS), st.dictionaries(KEYS, st.integers())), max_size=8)


def is_as(made: PartedMap[int], plain: dict[str, int]) -> bool:
    """Return True if a mapping shows everywhere what a plain one has."""
    found = {key: made.get(key) for key in "abcdef" if key in made}
    return (
        made == plain
        and len(made) == len(plain)
        and dict(made) == dict(made.items()) == plain
        and sorted(made.values()) == sorted(plain.values())
        and found == {key: value for key, value in plain.items() if key in "abcdef"}
    )


@given(CHANGES)
def test_a_changed_mapping_is_as_a_plain_one_and_its_former_stays(
    changes: list[tuple[set[str], dict[str, int]]],
) -> None:
    made, opened, plain = PartedMap[int](), PartedMap[int](is_open=True), dict[str, int]()
    itself = opened
    for gone, added in changes:
        former, was = made, dict(plain)
        made, opened = made.changed(gone, added), opened.changed(gone, added)
        plain = {key: value for key, value in plain.items() if key not in gone} | added
        assert is_as(former, was), "a change makes a copy"
        assert is_as(made, plain)
        assert is_as(opened, plain)
        assert opened is itself, "an open mapping itself is changed"
    closed, reopened = PartedMap(opened), PartedMap(made, is_open=True)
    opened.changed(added={"a": -1})
    reopened.changed(added={"a": -1})
    assert is_as(closed, plain), "who closes a mapping goes on with it alone"
    assert is_as(made, plain)


def test_a_change_among_thousands_copies_one_part() -> None:
    many = PartedMap({f"{number:064x}": number for number in range(10_000)})
    changed = many.changed(("0" * 64,))
    assert len(changed) == 9_999
    copied = [
        len(after)
        for before, after in zip(many.parts, changed.parts, strict=True)
        if after is not before
    ]
    assert len(copied) == 1
    assert copied[0] < 4 * 10_000 / PARTS
