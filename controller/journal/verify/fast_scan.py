"""A whole segment read at the speed of hashing: what its bytes are, not what they mean.

For bytes that a signature will be held against. Of each line its hash, its link and its place in
the tree are computed from the bytes as they are; members are found where the writer puts them, and
nothing is parsed. Together with a signature that says that each byte is as the broker wrote it,
whose canonical form its writer made sure of (``core.records.record.prepare``). It never says that something
is wrong: whatever isn't as expected ends the reading, for one that parses (``chain.Walk``) to look.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from threading import active_count
from typing import BinaryIO, Final

from controller.core.records.record import LINE_MAX_BYTES
from controller.core.transparency.merkle import Range, leaf_hash
from controller.journal.store.segments import first_seq_of, open_segment, segment_size

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
#: What is read of one segment, and kept of lines to be looked at: the writer leaves a segment long
#: before. Leaves are hashed into the tree, so many at a time.
RECORDS_MAX: Final = 1024 * 1024
POINTS_MAX_BYTES: Final = 16 * 1024 * 1024
_LEAVES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class ScanPoint:
    """A line to be looked at more closely, and the tree of the segment's lines before it."""

    seq: int
    line: bytes
    before: Range


@dataclass(frozen=True, slots=True)
class ScanJob:
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
    asked for, ``tree`` that of all lines. ``ended`` tells that nothing follows them in the segment.
    """

    after: int
    last: int
    tree: Range
    ended: bool = False
    opening: bytes = b""
    prev: bytes = b""
    hash: bytes = b""
    rows: bytes = b""
    points: list[ScanPoint] = field(default_factory=list)
    marked: dict[int, Range] = field(default_factory=dict)


def scan(job: ScanJob) -> Scanned:
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


def _scan(file: BinaryIO, found: Scanned, job: ScanJob) -> None:
    """Read lines until one isn't as expected. This is the loop that must be fast."""
    readline = file.readline
    rows = bytearray()
    leaves: list[bytes] = []
    kept = 0
    first, link = job.after + 1, b""
    opens = first_seq_of(job.segment) == first

    def tree() -> Range:
        found.tree = found.tree.extended(leaves)
        leaves.clear()
        return found.tree

    try:
        for seq in range(first, first + RECORDS_MAX):
            data = readline(LINE_MAX_BYTES + 1)
            line = data[:-1]
            head, _, rest = line.partition(_HASH)
            own = rest[:64]
            place = b',"seq":%d,"stage":"' % seq
            stage_at = rest.rfind(place) + len(place)
            stage = rest[stage_at : rest.find(b'"', stage_at)]
            if (
                stage_at < len(place)
                or rest[64:72] != _AFTER_HASH
                or rest[108:118] != _AFTER_ID
                or (rest[118:182] != link and link)
                or (stage == b"segment") != (opens and not link)
                or data[-1:] != b"\n"
                or kept > POINTS_MAX_BYTES
                or sha256(head + rest[66:]).hexdigest().encode() != own
            ):
                found.ended = not data
                return
            if not link:
                found.opening, found.prev = line if opens else b"", rest[118:182]
            if stage == b"checkpoint" or (stage == b"operator" and _OWN in line):
                found.points.append(ScanPoint(seq, line, tree()))
                kept += len(line)
            leaves.append(leaf_hash(line))
            rows += rest[72:108] + _LIVES.get(stage, STANDS)
            found.last, link = seq, own
            if seq in job.marks:
                found.marked[seq] = tree()
            elif len(leaves) == _LEAVES_MAX:
                tree()
    finally:
        found.hash = link
        found.rows = bytes(rows)
        tree()


def scans(jobs: Sequence[ScanJob], *, workers: int) -> Iterator[Scanned]:
    """Read segments, side by side where there is enough to read, and yield them in order.

    No more than one for each worker is held at a time, besides the one that was yielded.
    """
    workers = min(workers, len(jobs))
    done = 0
    if workers > 1 and sum(segment_size(job.segment) for job in jobs) >= PARALLEL_BYTES:
        try:
            for scanned in _side_by_side(jobs, workers):
                yield scanned
                done += 1
        except (EOFError, OSError):
            # One was killed, for want of memory say: alone it is slower, and as right.
            pass
    yield from map(scan, jobs[done:])


def _side_by_side(jobs: Sequence[ScanJob], workers: int) -> Iterator[Scanned]:
    """Let each worker read every so many-th segment, and wait with it until it is taken."""
    # A thread may hold what a fork would wait for in vain; starting anew costs a quarter of a second.
    context = get_context("fork") if active_count() == 1 else get_context("spawn")
    readers: list[Connection] = []
    helpers: list[BaseProcess] = []
    try:
        for number in range(workers):
            reader, writer = context.Pipe(duplex=False)
            readers.append(reader)
            with writer:
                arguments = (jobs[number::workers], writer, readers)
                helper = context.Process(target=_serve, args=arguments, daemon=True)
                helper.start()
                helpers.append(helper)
        for number in range(len(jobs)):
            yield readers[number % workers].recv()
    finally:
        for reader in readers:
            reader.close()
        for each in helpers:
            each.kill()
            each.join()


def _serve(jobs: Sequence[ScanJob], writer: Connection, readers: Sequence[Connection]) -> None:
    """Read segments for another process, as long as that takes them."""
    signal(SIGINT, SIG_IGN)  # the terminal sends it to all; the other one ends this
    for reader in readers:
        reader.close()  # or no broken pipe would tell that the other one was killed
    with suppress(BrokenPipeError):
        for job in jobs:
            writer.send(scan(job))
