"""A whole segment read at the speed of hashing: what its bytes are, not what they mean.

For bytes that a signature will be held against. Of each line its hash, its link and its place in
the tree are computed from the bytes as they are; members are found where the writer puts them, and
nothing is parsed. Together with a signature that says that each byte is as the broker wrote it,
whose canonical form its writer made sure of (``core.record.prepare``). It never says that something
is wrong: whatever isn't as expected ends the reading, for one that parses (``chain.Walk``) to look.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO, Final

from controller.core.merkle import Range, leaf_hash
from controller.core.record import LINE_MAX_BYTES
from controller.journal.segments import first_seq_of, open_segment, segment_size

ID_BYTES: Final = 36
#: What a record does to the life of its id: opens it, closes it, or stands for itself.
OPENS, CLOSES, STANDS = b"o", b"c", b"s"
ROW_BYTES: Final = ID_BYTES + 1

_LIVES: Final = {b"intent": OPENS, b"outcome": CLOSES, b"recovered": CLOSES}
_HASH: Final = b'"hash":"'
_AFTER_HASH: Final = b'","id":"'
_AFTER_ID: Final = b'","prev":"'
#: In the line of each checkpoint, and in those of what the broker says of the journal itself.
CHECKPOINT_MARK: Final = b',"stage":"checkpoint",'
_OWN: Final = b'"route":"journal.'
#: Fewer bytes aren't worth other processes.
PARALLEL_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Point:
    """A line to be looked at more closely, and the tree of the segment's lines before it."""

    seq: int
    line: bytes
    before: Range


@dataclass(frozen=True, slots=True)
class Job:
    """A segment to read, from the line after a record on; *marks* are records to be told of."""

    segment: Path
    after: int
    marks: frozenset[int] = frozenset()


@dataclass(slots=True)
class Scanned:
    """What a segment's lines are, up to the first that isn't as expected.

    ``prev`` is what the first says of the record before it, ``opening`` the segment's own record;
    ``rows`` has each record's id and what it does to its life. ``points`` are checkpoints and what
    the broker says of the journal itself, ``marked`` the trees right after the records that were
    asked for, ``tree`` that of all lines.
    """

    after: int
    last: int
    tree: Range
    opening: bytes = b""
    prev: bytes = b""
    hash: bytes = b""
    rows: bytes = b""
    points: list[Point] = field(default_factory=list)
    marked: dict[int, Range] = field(default_factory=dict)


def scan(job: Job) -> Scanned:
    """Read one segment."""
    found = Scanned(job.after, job.after, Range(job.after, job.after))
    try:
        with open_segment(job.segment) as file:
            for _ in range(job.after + 1 - first_seq_of(job.segment)):
                file.readline(LINE_MAX_BYTES + 1)
            _scan(file, found, job)
    except (OSError, EOFError, ValueError, zlib.error):
        # Whoever parses will say more: this says only how far it came.
        pass
    return found


def _scan(file: BinaryIO, found: Scanned, job: Job) -> None:
    """Read lines until one isn't as expected. This is the loop that must be fast."""
    readline = file.readline
    rows: list[bytes] = []
    leaves: list[bytes] = []
    seq, last = job.after + 1, b""
    opens = first_seq_of(job.segment) == seq
    try:
        while data := readline(LINE_MAX_BYTES + 1):
            line = data[:-1]
            at = line.find(_HASH)
            own, prev = line[at + 8 : at + 72], line[at + 126 : at + 190]
            place = b',"seq":%d,"stage":"' % seq
            stage_at = line.rfind(place) + len(place)
            stage = line[stage_at : line.index(b'"', stage_at)]
            if (
                at < 0
                or stage_at < len(place)
                or line[at + 72 : at + 80] != _AFTER_HASH
                or line[at + 116 : at + 126] != _AFTER_ID
                or (prev != last and last)
                or (stage == b"segment") != (opens and not last)
                or data[-1:] != b"\n"
                or sha256(line[:at] + line[at + 74 :]).hexdigest().encode() != own
            ):
                return
            if not last:
                found.opening, found.prev = line if opens else b"", prev
            if stage == b"checkpoint" or (stage == b"operator" and _OWN in line):
                found.tree = found.tree.extended(leaves)
                leaves.clear()
                found.points.append(Point(seq, line, found.tree))
            leaves.append(leaf_hash(line))
            rows.append(line[at + 80 : at + 116] + _LIVES.get(stage, STANDS))
            found.last, last = seq, own
            if seq in job.marks:
                found.tree = found.tree.extended(leaves)
                leaves.clear()
                found.marked[seq] = found.tree
            seq += 1
    finally:
        found.hash = last
        found.rows = b"".join(rows)
        found.tree = found.tree.extended(leaves)


def scans(jobs: Sequence[Job], *, workers: int) -> Iterator[Scanned]:
    """Read segments, side by side where there is enough to read, and yield them in order.

    No more than two for each worker are held at a time.
    """
    workers = min(workers, len(jobs))
    if workers < 2 or sum(segment_size(job.segment) for job in jobs) < PARALLEL_BYTES:
        yield from map(scan, jobs)
        return
    done = 0
    try:
        for scanned in _side_by_side(jobs, workers):
            yield scanned
            done += 1
    except BrokenProcessPool:
        # One was killed, for want of memory say: alone it is slower, and as right.
        yield from map(scan, jobs[done:])


def _side_by_side(jobs: Sequence[Job], workers: int) -> Iterator[Scanned]:
    # Started anew, not forked: the caller may have threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[Scanned]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(scan, job))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
