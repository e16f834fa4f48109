"""Merkle trees of RFC 6962 (section 2.1), grown from left to right in little memory.

A leaf is a line of the journal. A tree is stored as the hashes of its largest perfect subtrees: as
many as the tree's size has binary ones. These hashes suffice to append leaves, to join a range that
was hashed separately, and to compute the root.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

HASH_BYTES = 32


def leaf_hash(line: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\0" + line).digest()


@dataclass(frozen=True, slots=True)
class Range:
    """The leaves ``begin <= index < end`` of a tree, as hashes of perfect subtrees, left to right.

    ``begin`` and ``end`` determine these subtrees: each is the largest subtree that is aligned to
    its own size and lies within the range.
    """

    begin: int = 0
    end: int = 0
    hashes: tuple[bytes, ...] = ()

    def extend(self, leaves: Iterable[bytes]) -> Range:
        """Return the range with the hashes of further leaves at its right."""
        added = list(leaves)
        if len(added) > 1:
            return self.join(_range_of(self.end, added))
        return self._append((1,) * len(added), added)

    def join(self, right: Range) -> Range:
        """Return both ranges joined; *right* begins at the end of the left range."""
        assert right.begin == self.end, f"{right.begin} doesn't follow {self.end}"
        return self._append(_spans(right.begin, right.end), right.hashes)

    def _append(self, spans: Iterable[int], hashes: Iterable[bytes]) -> Range:
        """Append perfect subtrees at the right; *spans* are their numbers of leaves."""
        begin, end = self.begin, self.end
        stack = list(self.hashes)
        for leaves, node in zip(spans, hashes, strict=True):
            span = leaves
            end += span
            top = node
            # A subtree of twice the size ends here if it is aligned and begins within the range.
            while not end % (2 * span) and end - 2 * span >= begin:
                span *= 2
                top = _node(stack.pop(), top)
            stack.append(top)
        return Range(begin, end, tuple(stack))

    @property
    def root(self) -> bytes:
        """The root of the tree; the range must begin at the first leaf."""
        assert self.begin == 0, "a root is of a whole tree"
        if not self.hashes:
            return hashlib.sha256(b"").digest()
        *left, root = self.hashes
        for node in reversed(left):
            root = _node(node, root)
        return root

    def beginnings(self) -> Iterator[Range]:
        """Yield this tree, and the smaller trees whose hashes are among its own."""
        assert self.begin == 0, "a beginning is of a whole tree"
        end = 0
        for count, span in enumerate(_spans(0, self.end)):
            yield Range(0, end, self.hashes[:count])
            end += span
        yield self


def tree_of(size: int, hashes: tuple[bytes, ...]) -> Range:
    """Return the tree of *size* leaves from its stored hashes.

    Raises:
        ValueError: the hashes do not fit the size.
    """
    if len(hashes) != size.bit_count() or any(len(each) != HASH_BYTES for each in hashes):
        raise ValueError(f"not the hashes of a tree of {size} leaves")
    return Range(0, size, hashes)


def _range_of(begin: int, leaves: list[bytes]) -> Range:
    """Return a range of leaves, hashed level by level, which is faster than leaf by leaf."""
    left: list[bytes] = []
    right: list[bytes] = []
    at, span, level = begin, 1, leaves
    while level:
        # A node without a partner in the range, at either end, is a subtree of the result.
        if at % (2 * span):
            left.append(level[0])
            level = level[1:]
            at += span
        if len(level) % 2:
            right.append(level[-1])
        level = list(map(_node, level[::2], level[1::2]))
        span *= 2
    return Range(begin, begin + len(leaves), (*left, *reversed(right)))


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _spans(begin: int, end: int) -> Iterator[int]:
    while begin < end:
        largest = 1 << ((end - begin).bit_length() - 1)
        span = min(begin & -begin, largest) if begin else largest
        yield span
        begin += span
