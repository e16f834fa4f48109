"""A whole segment read at the speed of hashing: what its bytes are, not what they mean.

For bytes that a signature will be held against. Of each line its hash, its link and its place in
the tree are computed from the bytes as they are; members are found by where the writer puts them,
and nothing is parsed. That says that these are the bytes that were hashed, linked and signed, whose
canonical form the writer made sure of (``core.record.prepare``). It never says that something is
wrong: whatever isn't as expected ends the reading, for somebody who parses (``chain.Walk``) to look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.core.merkle import Range, leaf_hash
from controller.core.record import LINE_MAX_BYTES
from controller.journal.segments import first_seq_of, read_lines

_HASH: Final = b'"hash":"'
_ID: Final = b'","id":"'
_PREV: Final = b'","prev":"'
_STAGE: Final = b',"stage":"'
_KEY: Final = b'"route":"journal.key"'
ID_BYTES: Final = 36
#: Closing an intent, opening one, and everything else.
CLOSES, OPENS, STANDS = b"c", b"o", b"s"
_LIVES: Final = {b"outcome": CLOSES, b"recovered": CLOSES, b"intent": OPENS}
ROW_BYTES: Final = ID_BYTES + 1


@dataclass(frozen=True, slots=True)
class Point:
    """A line that is looked at more closely, and the tree of the segment's lines before it."""

    seq: int
    line: bytes
    before: Range


@dataclass(slots=True)
class Scanned:
    """What a segment's lines are, up to the first that isn't as expected.

    ``prev`` is what the first says of the record before it, ``hash`` the last one's. ``rows`` has a
    record's id and life (``ROW_BYTES``) for each. ``points`` are checkpoints and keys, ``marked`` the
    tree right after a record that was asked for.
    """

    first: int
    opening: bytes = b""
    last: int = 0
    prev: str = ""
    hash: str = ""
    rows: bytes = b""
    points: list[Point] = field(default_factory=list)
    marked: dict[int, Range] = field(default_factory=dict)
    tree: Range = Range()
    whole: bool = False  # to the end of its last line


def scan(segment: Path, marks: frozenset[int] = frozenset()) -> Scanned:
    """Read a segment.

    Raises:
        OSError: it can't be read.
    """
    first = first_seq_of(segment)
    found = Scanned(first, last=first - 1, tree=Range(first - 1, first - 1))
    ...
    return found
