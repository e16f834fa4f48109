"""Scan whole segments at the speed of hashing, without parsing.

The scan is for signed records. Hash, link and tree leaf of each line are computed from the raw
bytes; members are found at the places where the writer puts them. Together with a good signature,
the scan proves that each byte is as the broker wrote it, in canonical form
(``core.records.record.prepare``). The scan never reports a fault: an unexpected byte ends the scan,
and ``chain.ChainWalk`` parses the rest and names the fault. A newer version's stage ends the scan. Its member can
pass, if the line has the known members at their places: the signature covers the member too.

Check record ids: each intent is closed once, by a later record, and has a new id.

A record of the stage ``operator`` can have the id of an earlier intent: the end of an exec has the id of
the start, and the end of a job's run the id of the create.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from threading import active_count
from typing import BinaryIO, Final, get_args

from controller.core.records.record import CLOSING, LINE_MAX_BYTES
from controller.core.transparency import Range, leaf_hash
from controller.journal.store.chain import ChainFault, ChainWalk, Damage
from controller.journal.store.segments import first_seq_of, open_segment, segment_size
from controller.journal.verify.checks import ClockCheck
from controller.model.records import Record, Stage

ID_BYTES: Final = 36
#: The effect of a record on its id: opens an intent, closes one, stands alone, or can follow one.
OPENS, CLOSES, STANDS, FOLLOWS = b"o", b"c", b"s", b"f"
ROW_BYTES: Final = ID_BYTES + 1

_LIVES: Final = {
    **{stage.encode(): STANDS for stage in get_args(Stage)},
    b"intent": OPENS,
    b"outcome": CLOSES,
    b"recovered": CLOSES,
    b"operator": FOLLOWS,
}
_HASH: Final = b'"hash":"'
_AFTER_HASH: Final = b'","id":"'
_AFTER_ID: Final = b'","prev":"'
#: Substrings of the lines of checkpoints, and of the broker's records about the journal.
CHECKPOINT_MARK: Final = b',"stage":"checkpoint",'
_OWN: Final = b'"route":"journal.'
_OWN_STAGES: Final = frozenset({b"operator", b"read"})
#: The place of the time after the stage, in ``"stage":"intent","time":"2026-01-01T12:00:00.000Z"``.
_TIME_AT: Final = len(b'","time":"')
_TIME_END: Final = _TIME_AT + len(b"2026-01-01T12:00:00.000Z")
#: Fewer bytes are scanned without worker processes.
PARALLEL_BYTES: Final = 32 * 1024 * 1024
#: Limits of one segment's scan, far above the segments of the writer: records, and bytes of the
#: lines in ``points``.
RECORDS_MAX: Final = 1024 * 1024
POINTS_MAX_BYTES: Final = 16 * 1024 * 1024
#: Leaves hashed into the tree at a time.
_LEAVES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class ScanPoint:
    """A line to be parsed by the caller."""

    seq: int
    line: bytes
    before: Range  # the tree of the scanned lines before


@dataclass(frozen=True, slots=True)
class ScanJob:
    """A segment to scan."""

    segment: Path
    after: int  # the scan begins after this record
    marks: frozenset[int] = frozenset()  # records whose trees are returned


@dataclass(slots=True)
class Scanned:
    """The result of scanning a segment, up to the first unexpected line."""

    after: int
    last: int  # the last scanned record
    tree: Range  # of all scanned lines
    ended: bool = False  # the segment has no further line
    opening: bytes = b""  # the line of the segment record
    prev: bytes = b""  # the hash before, as claimed by the first line
    hash: bytes = b""  # of the last scanned record
    rows: bytes = b""  # id and effect of each record, ``ROW_BYTES`` long
    points: list[ScanPoint] = field(default_factory=list)  # checkpoints, and records on the journal
    marked: dict[int, Range] = field(default_factory=dict)  # the trees right after marked records
    clock: ClockCheck = field(default_factory=ClockCheck)  # of the scanned lines


def scan(job: ScanJob) -> Scanned:
    """Scan one segment."""
    scanned = Scanned(job.after, job.after, Range(job.after, job.after))
    try:
        with open_segment(job.segment) as file:
            for _ in range(job.after + 1 - first_seq_of(job.segment)):
                file.readline(LINE_MAX_BYTES + 1)
            _scan(file, scanned, job)
    except (OSError, EOFError, ValueError, zlib.error):
        # The caller parses from here on, and reports the fault.
        pass
    return scanned


def _scan(file: BinaryIO, scanned: Scanned, job: ScanJob) -> None:
    """Read lines up to the first unexpected line. This loop must be fast."""
    readline = file.readline
    rows = bytearray()
    leaves: list[bytes] = []
    point_bytes = 0
    first, link = job.after + 1, b""
    clock, time = scanned.clock, b""
    opens = first_seq_of(job.segment) == first

    def tree() -> Range:
        scanned.tree = scanned.tree.extend(leaves)
        leaves.clear()
        return scanned.tree

    try:
        for seq in range(first, first + RECORDS_MAX):
            data = readline(LINE_MAX_BYTES + 1)
            line = data[:-1]
            head, _, rest = line.partition(_HASH)
            own = rest[:64]
            place = b',"seq":%d,"stage":"' % seq
            stage_at = rest.rfind(place) + len(place)
            stage_end = rest.find(b'"', stage_at)
            stage = rest[stage_at:stage_end]
            if (
                stage_at < len(place)
                or rest[64:72] != _AFTER_HASH
                or rest[108:118] != _AFTER_ID
                or (rest[118:182] != link and link)
                or (stage == b"segment") != (opens and not link)
                or stage not in _LIVES  # a newer version's
                or data[-1:] != b"\n"
                or point_bytes > POINTS_MAX_BYTES
                or sha256(head + rest[66:]).hexdigest().encode() != own
            ):
                scanned.ended = not data
                return
            if not link:
                scanned.opening, scanned.prev = line if opens else b"", rest[118:182]
            if stage == b"checkpoint" or (stage in _OWN_STAGES and _OWN in line):
                scanned.points.append(ScanPoint(seq, line, tree()))
                point_bytes += len(line)
            before, time = time, rest[stage_end + _TIME_AT : stage_end + _TIME_END]
            # A later time of the same year is no jump. The first time is always observed.
            if time < before or time[:4] != before[:4]:
                clock.last = before.decode("latin-1")
                clock.observe(seq, time.decode("latin-1"))
            leaves.append(leaf_hash(line))
            rows += rest[72:108] + _LIVES[stage]
            scanned.last, link = seq, own
            if seq in job.marks:
                scanned.marked[seq] = tree()
            elif len(leaves) == _LEAVES_MAX:
                tree()
    finally:
        scanned.hash = link
        clock.last = time.decode("latin-1")
        scanned.rows = bytes(rows)
        tree()


def scans(jobs: Sequence[ScanJob], *, workers: int) -> Iterator[Scanned]:
    """Scan segments, in parallel if there is enough to read, and yield the results in order.

    At most one result for each worker is in memory, besides the yielded result.
    """
    workers = min(workers, len(jobs))
    done = 0
    if workers > 1 and sum(segment_size(job.segment) for job in jobs) >= PARALLEL_BYTES:
        try:
            for scanned in _scan_in_parallel(jobs, workers):
                yield scanned
                done += 1
        except (EOFError, OSError):
            # A worker was killed, by the OOM killer perhaps: scan the rest in this process.
            pass
    yield from map(scan, jobs[done:])


def _scan_in_parallel(jobs: Sequence[ScanJob], workers: int) -> Iterator[Scanned]:
    """Give each worker every n-th segment; a worker waits until its result is received."""
    # With threads, a forked process can deadlock on their locks; "spawn" costs 0.25 s.
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
    """Scan segments for the parent process, until the parent ends."""
    signal(SIGINT, SIG_IGN)  # the terminal signals every process; the parent kills this one
    for reader in readers:
        reader.close()  # otherwise no broken pipe would reveal the parent's death
    with suppress(BrokenPipeError):
        for job in jobs:
            writer.send(scan(job))


#: Ids in the newer half of the window that finds reused ids; the journal is read again for others.
_WINDOW: Final = 65_536
_OPENS, _CLOSES, _FOLLOWS = ord(OPENS), ord(CLOSES), ord(FOLLOWS)


class IdLifetimes:
    """The ids and open intents of the records so far.

    Ids are nearly in order (UUIDv7). An id above all ids that left the window is new unless the
    window contains the id; this test is exact. The few other ids (after the clock was set back) are
    looked up in the journal.

    With *partial*, earlier records are missing, and can have opened the intents closed here.
    """

    def __init__(self, folder: Path, *, partial: bool = False) -> None:
        self._folder = folder
        self._partial = partial
        self.open: dict[str, int] = {}
        self._new: set[str] = set()
        self._old: set[str] = set()
        self._floor = ""
        self._suspects: dict[str, int] = {}

    def check(self, record: Record) -> str:
        """Return the fault in a record's stage or id, or ''."""
        # A stage that only a newer version knows can follow an intent.
        life = _LIVES.get(record.entry.stage.encode(), FOLLOWS)
        return self._check(record.seq, record.entry.id, life[0])

    def check_rows(self, first: int, rows: bytes) -> tuple[int, str]:
        """Return seq and fault of the first bad row of ``fast_scan``, or 0 and ''."""
        text = rows.decode("ascii", "replace")
        ids = [text[at : at + ID_BYTES] for at in range(0, len(text), ROW_BYTES)]
        lives = rows[ID_BYTES::ROW_BYTES]
        check = self._check
        opened = [each for each, life in zip(ids, lives, strict=True) if life != _CLOSES]
        if self._are_new(opened):
            self._remember(opened)
            check = self._check_intent
        for seq, each, life in zip(range(first, first + len(ids)), ids, lives, strict=True):
            if reason := check(seq, each, life):
                return seq, reason
        return 0, ""

    def _are_new(self, ids: list[str]) -> bool:
        """Return True if all *ids* are certainly new: one fast test for a whole segment."""
        distinct = set(ids)
        return (
            not self._partial
            and len(distinct) == len(ids)
            and distinct.isdisjoint(self._new)
            and distinct.isdisjoint(self._old)
            and min(ids, default="") > self._floor
        )

    def _check(self, seq: int, identity: str, life: int) -> str:
        known = identity in self._new or identity in self._old
        if life not in {_CLOSES, _FOLLOWS}:
            if known:
                return "its id was used before"
            if identity <= self._floor:
                self._suspects[identity] = seq
        if life != _CLOSES and not known:
            self._remember((identity,))
        return self._check_intent(seq, identity, life)

    def _check_intent(self, seq: int, identity: str, life: int) -> str:
        if life == _OPENS:
            self.open[identity] = seq
        elif (
            life == _CLOSES
            and self.open.pop(identity, None) is None
            and not self._opened_before(identity)
        ):
            return "it closes no open intent of its id"
        return ""

    def _remember(self, ids: Collection[str]) -> None:
        """Add ids to the window; its older half is dropped once the newer half is full."""
        self._new.update(ids)
        if len(self._new) >= _WINDOW:
            self._floor = max(self._floor, max(self._old, default=""))
            self._old, self._new = self._new, set()

    def _opened_before(self, identity: str) -> bool:
        """Return True if the intent can lie before the first record; the id counts as used now."""
        if not self._partial or identity in self._new or identity in self._old:
            return False
        self._remember((identity,))
        return True

    @property
    def crowded(self) -> bool:
        """True if ``finish`` is due, to keep memory bounded."""
        return len(self._suspects) > _WINDOW

    def finish(self) -> Damage | None:
        """Look up the suspect ids in the journal; return the damage of a reused id, or None."""
        if not self._suspects:
            return None
        walk = ChainWalk(self._folder)
        last = max(self._suspects.values())
        damage: Damage | None = None
        earlier: set[str] = set()
        for record in walk:
            if record.seq > last:
                break
            identity = record.entry.id
            if identity not in self._suspects or record.entry.stage in CLOSING:
                continue
            if identity in earlier and record.entry.stage != "operator":
                damage = damage_at(walk, "its id was used before", ChainFault.LIFE)
                break
            earlier.add(identity)
        self._suspects.clear()
        return damage


def damage_at(walk: ChainWalk, reason: str, fault: ChainFault) -> Damage:
    """Return damage at the last accepted record of a walk."""
    return Damage(reason, fault, seq=walk.seq, file=walk.file, line=walk.line - 1)
