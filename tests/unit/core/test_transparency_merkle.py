"""Trees are those of RFC 6962, however they are grown: checked by vectors and by pymerkle."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.transparency import Range, leaf_hash, tree_of
from tests.others import pymerkle_root

#: Leaves and roots of the reference implementation of Certificate Transparency.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree(lines: list[bytes], *, begin: int = 0) -> Range:
    return Range(begin, begin).extend(map(leaf_hash, lines))


def test_roots_are_those_of_certificate_transparency() -> None:
    assert Range().root == hashlib.sha256(b"").digest()
    assert [tree(LEAVES[:size]).root.hex() for size in range(1, 9)] == ROOTS


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70))
def test_roots_are_those_of_another_implementation(lines: list[bytes]) -> None:
    assert tree(lines).root == pymerkle_root(lines)


@given(st.integers(0, 130), st.integers(0, 130), st.integers(0, 130))
def test_ranges_that_are_hashed_apart_join_to_the_same_tree(a: int, b: int, c: int) -> None:
    lines = [str(number).encode() for number in range(a + b + c)]
    parts = (tree(lines[:a]), tree(lines[a : a + b], begin=a), tree(lines[a + b :], begin=a + b))
    whole = tree(lines)
    assert parts[0].join(parts[1]).join(parts[2]) == whole
    assert parts[0].join(parts[1].join(parts[2])) == whole
    assert len(whole.hashes) == whole.end.bit_count()
    assert tree_of(whole.end, whole.hashes) == whole


def test_of_a_trees_beginnings_those_that_end_with_a_subtree_are_told() -> None:
    for size in (0, 1, 12, 13, 64, 77):
        lines = [str(number).encode() for number in range(size)]
        told = list(tree(lines).beginnings())
        assert told == [tree(lines[: each.end]) for each in told]
        assert len(told) == size.bit_count() + 1
    assert [each.end for each in told] == [0, 64, 72, 76, 77]


@pytest.mark.parametrize("hashes", [(), (bytes(32),) * 3, (bytes(32), bytes(31))])
def test_what_cant_be_a_trees_hashes_is_refused(hashes: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="not the hashes of a tree of 6 leaves"):
        tree_of(6, hashes)
