"""Read the journal: the records in order, each checked against the record before, and the state of its end.

Positions in the segments: read on from a position, and read the line at a position.

A position is the start of the next record's line, with the seq and hash that the next record must
continue. A reader that stores a position (the index, a follower) reads on from there without
reading earlier records.

A crash leaves a torn tail: bytes after the last whole record that were never acknowledged, or a
last line cut short. The writer moves a torn tail aside and records the repair; nothing is deleted.
Any other fault is damage: the writer refuses to open, since new records would bury the damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from controller.core.records.parts import ResultPart
from controller.core.records.record import GENESIS, LINE_MAX_BYTES, BadLine, parse, parse_or_none
from controller.journal.store.chain import (
    BASE_NAME,
    BadBase,
    ChainFault,
    ChainWalk,
    Damage,
    fault_of,
    newer_journal,
    read_base,
)
from controller.journal.store.segments import (
    COMPRESSED,
    UNPACK_ERRORS,
    BadSegment,
    first_seq_of,
    list_segments,
    name_of,
    open_regular,
    open_segment,
    read_lines,
)
from controller.model.errors import StateError
from controller.model.records import Record

#: Segments kept open between lookups.
_OPEN_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Position:
    """The place right after a record."""

    #: The record before the position; 0 before the first.
    seq: int = 0
    hash: str = GENESIS
    #: First seq of the segment that contains the position; 0 before the first existing line.
    segment: int = 0
    #: In bytes, within the uncompressed segment.
    offset: int = 0


def start_of(folder: Path) -> Position:
    """Return the position before the first existing record.

    Raises:
        Damage: the base of pruned segments is not in the form in which the writer leaves it.
        OSError: the folder can't be read.
    """
    try:
        base = read_base(folder)
    except BadBase as error:
        raise Damage(str(error), seq=1, file=BASE_NAME, line=1) from error
    return Position() if base is None else Position(base.record.seq, base.record.hash)


class PositionedRecord(NamedTuple):
    """A record, the place of its line, and the position right after the record."""

    record: Record
    segment: int  # first seq of the segment
    offset: int
    length: int  # without the newline
    after: Position


class PositionLost(Exception):
    """A position is not in the journal: it belongs to another journal, or its segment is gone."""


def records_after(
    folder: Path, place: Position, *, upto: int | None = None
) -> Iterator[PositionedRecord]:
    """Yield the records after *place*; each is checked to continue the record before.

    An unfinished last line ends the reading without an error: a writer can be at work.

    Raises:
        PositionLost: the segment of *place* is gone, and no other segment begins at *place*.
        Damage: a record can't be read, or doesn't continue the record before.
        OSError: the folder can't be read.
    """
    if upto is not None and place.seq >= upto:
        return
    segments = {first_seq_of(path): path for path in list_segments(folder)}
    begun = place.segment
    for first in sorted(segments):
        if first < begun or (first <= place.seq and first != begun):
            continue  # before the position, or pruned
        if first != begun:
            if first != place.seq + 1:
                raise PositionLost(f"record {place.seq + 1} isn't in the segments")
            place = Position(place.seq, place.hash, first, 0)
        for placed in _read_segment(segments[first], place):
            place = placed.after
            yield placed
            if upto is not None and place.seq >= upto:
                return
    if begun and begun not in segments and place.segment == begun:
        raise PositionLost(f"the segment of record {place.seq} is gone")


def _read_segment(path: Path, place: Position) -> Iterator[PositionedRecord]:
    try:
        with open_segment(path) as file:
            file.seek(place.offset)
            while data := file.readline(LINE_MAX_BYTES + 2):
                if not data.endswith(b"\n"):
                    return
                record = _parse_next(place, data[:-1], path.name)
                after = Position(record.seq, record.hash, place.segment, place.offset + len(data))
                yield PositionedRecord(record, place.segment, place.offset, len(data) - 1, after)
                place = after
    except UNPACK_ERRORS as error:
        raise _damage(place, f"{path.name} is damaged: {error}", path.name) from error


def _parse_next(place: Position, line: bytes, file: str) -> Record:
    try:
        record = parse(line)
    except BadLine as error:
        raise _damage(place, str(error), file, fault_of(error)) from None
    if record.seq != place.seq + 1:
        raise _damage(place, f"it is record {record.seq}", file)
    if record.prev != place.hash:
        raise _damage(place, "it doesn't continue the record before it (prev)", file)
    return record


def _damage(
    place: Position, reason: str, file: str, fault: ChainFault = ChainFault.CHANGED
) -> Damage:
    line = place.seq - place.segment + 2  # one record a line
    return Damage(reason, fault, seq=place.seq + 1, file=file, line=line, offset=place.offset)


class RecordReader:
    """Reads single records by the place of their lines. Not thread-safe; close after use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[int, BinaryIO] = {}

    def record(self, segment: int, offset: int, length: int) -> Record:
        """Return the record whose line begins at *offset*.

        Raises:
            BadLine: the bytes are no record's line, or the hash differs from that of the content.
            OSError: the segment is gone, or can't be read.
        """
        file = self._file(segment)
        try:
            file.seek(offset)
            return parse(file.read(length))
        except UNPACK_ERRORS as error:
            raise BadLine(f"it can't be unpacked: {error}") from error

    def _file(self, segment: int) -> BinaryIO:
        file = self._open.get(segment)
        if file is None:
            if len(self._open) >= _OPEN_MAX:
                self._open.pop(next(iter(self._open))).close()
            file = self._open[segment] = open_segment(self._folder / name_of(segment))
        return file

    def close(self) -> None:
        """Close the open segments."""
        for file in self._open.values():
            file.close()
        self._open.clear()


_STATE_REMEDY: Final = "name the state folder with --state"


def records(folder: Path, *, after: int = 0, upto: int | None = None) -> Iterator[Record]:
    """Yield the records with ``after < seq <= upto`` in order, each checked against its predecessor.

    An unfinished last line ends the reading without an error: a writer can be at work.

    Raises:
        StateError: a record is damaged or missing, or the folder can't be read.
    """
    if upto is not None and after == upto:
        return
    with readable(folder):
        walk = ChainWalk(folder, after=after)
        for record in walk:
            yield record
            if record.seq == upto:
                return


def last_seq(folder: Path) -> int:
    """Return the seq of the last whole line, or 0; earlier lines are not checked.

    Raises:
        StateError: the folder can't be read, or the last line is damaged.
    """
    with readable(folder):
        for segment in reversed(list_segments(folder)):
            first = first_seq_of(segment)
            if count := sum(line.whole for line in read_lines(segment)):
                return first + count - 1
    return 0


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn errors of reading a journal into a StateError with a remedy."""
    try:
        yield
    except Damage as damage:
        if damage.fault is ChainFault.NEWER:
            raise newer_journal(folder, damage) from damage
        raise _damaged(folder, f"damaged at {damage}") from damage
    except (BadLine, BadSegment, PositionLost) as error:
        raise _damaged(folder, f"damaged: {error}") from error
    except PermissionError as error:
        raise StateError(
            "journal.unreadable",
            f"the journal can't be read: {error.filename}: {error.strerror}",
            remedy="only the broker's user may read it: ask as root, with sudo",
        ) from error
    except FileNotFoundError as error:
        raise missing(folder) from error
    except OSError as error:
        raise StateError(
            "journal.unreadable",
            f"the journal in {folder} can't be read: {error}",
            remedy="look at the kernel's log for the disk under it",
        ) from error


def _damaged(folder: Path, how: str) -> StateError:
    return StateError(
        "journal.damaged",
        f"the journal in {folder} is {how}",
        remedy=f"'trimtab journal verify {folder}' says more",
    )


def missing(folder: Path) -> StateError:
    """Return the error for a folder without a journal."""
    return StateError("journal.missing", f"no journal in {folder}", remedy=_STATE_REMEDY)


@dataclass(frozen=True, slots=True)
class TornTail:
    """Bytes to move aside: from ``offset`` of the last segment to its end."""

    offset: int
    #: 0 if the line is gone to its last byte; the file with the moved bytes is then empty.
    size: int
    reason: str
    #: The mark covers the torn record: an acknowledged record is lost.
    durable: bool


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the chain: the last record, the last segment, and the torn tail if there is one."""

    seq: int  # of the last record
    hash: str  # of the last record
    time: str  # of the last record; '' if the last segment has none
    segment: Path | None  # the last segment
    holder: int  # first seq of the segment with the last record; 0 before the first
    size: int  # of the last segment's whole records, in bytes
    opened_at: float  # time of the segment record; 0 if the segment has none
    torn: TornTail | None
    #: Pieces that a killed process moved aside: no record names these files yet.
    aside: tuple[str, ...]


def find_tail(folder: Path) -> Tail:
    """Check the last segment, and its link to the segment before.

    Raises:
        StateError: damage other than a torn tail; the message names the first bad record and its file.
        OSError: the folder can't be read.
    """
    segments = list_segments(folder)
    segment = segments[-1] if segments else None
    walk = ChainWalk(folder, after=first_seq_of(segment) - 1 if segment else 0)
    opening: Record | None = None
    torn: TornTail | None = None
    time = ""
    try:
        for record in walk:
            opening = opening or record
            time = record.time
    except Damage as damage:
        torn = _torn_or_raise(folder, walk, damage)
    if walk.unfinished:
        torn = _torn_or_raise(folder, walk, walk.damage("its line is cut short"))
    # A last segment without a whole record still has the segment before as its holder.
    size = walk.offset if segment is not None and walk.file == segment.name else 0
    holding = [path for path in segments if path != segment or size]
    return Tail(
        seq=walk.seq,
        hash=walk.hash,
        time=time,
        segment=segment,
        holder=first_seq_of(holding[-1]) if holding else walk.before(0),
        size=size,
        opened_at=datetime.fromisoformat(opening.time).timestamp() if opening else 0.0,
        torn=torn,
        aside=_unnamed_pieces((*holding[-1:], *segments[-1:])),
    )


def check_reaches(folder: Path, tail: Tail, *, published: int) -> None:
    """Check that the journal still has the *published* records of the published checkpoint.

    The checkpoint's own record is not counted: the loss of one durable record to a bad sector is
    recorded, and the journal continues (``_torn_or_raise``).

    Raises:
        StateError: records are missing, whatever the mark says; or the folder was set back.
    """
    if tail.seq >= published:
        return
    raise StateError(
        "journal.damaged",
        f"the journal in {folder} is damaged: it holds together up to record {tail.seq}, and "
        f"journal.checkpoint is of {published} records, which were durable",
        remedy=(
            "keep a copy of the folder, find out who changed it ('trimtab journal verify' says more), "
            "then restore it from a backup that has them; to go on from an older one, or to begin a "
            "new journal, move journal.checkpoint out of the state folder too: whoever has a copy of "
            "it will see that they are gone"
        ),
    )


def pieces_of(segment: Path) -> tuple[str, ...]:
    """Return the files with torn bytes of a segment; the segment can be compressed by now."""
    name = segment.name.removesuffix(COMPRESSED)
    return tuple(sorted(path.name for path in segment.parent.glob(f"{name}.torn-*")))


def _unnamed_pieces(segments: tuple[Path, ...]) -> tuple[str, ...]:
    """Return the files with torn bytes of *segments*, the last ones, that no record names.

    A repair always opens a segment, so only the first record of a segment can name such a file.
    """
    openings = [opening for segment in segments if (opening := opening_of(segment))]
    named = [name for each in openings for name in ResultPart.read(each.entry.result).repair.files]
    pieces = [name for segment in segments for name in pieces_of(segment)]
    return tuple(sorted({name for name in pieces if name not in named}))


def final_checkpoint(segment: Path, seq: int) -> bytes | None:
    """Return the line of record *seq* if that record is a checkpoint at the segment's end."""
    line = b""
    for each in read_lines(segment):
        line = each.data
    record = parse_or_none(line)
    if record is not None and (record.entry.stage, record.seq) == ("checkpoint", seq):
        return line
    return None


def opening_of(segment: Path) -> Record | None:
    """Return the first record of a segment, or None if the segment has none."""
    line = next(read_lines(segment), None)
    return parse_or_none(line.data) if line else None


def _torn_or_raise(folder: Path, walk: ChainWalk, damage: Damage) -> TornTail:
    """Return the torn tail that explains *damage*.

    Raises:
        StateError: no crash of the writer leaves such damage, or a newer version wrote the record.
    """
    if damage.fault is ChainFault.NEWER:
        raise newer_journal(folder, damage) from damage
    segment = walk.segments[-1] if walk.segments else None
    mark = walk.mark
    if (
        segment is not None
        and segment.suffix != COMPRESSED  # only whole segments are compressed
        and damage.file == segment.name
        and walk.seq >= first_seq_of(segment) - 1
    ):
        size = segment.stat().st_size - damage.offset
        durable = mark is not None and damage.seq <= mark.seq
        only_one = mark is None or damage.seq >= mark.seq
        if durable:
            fits = only_one and damage.unreadable and _is_one_line(segment, damage.offset)
        else:
            fits = _is_one_line(segment, damage.offset) or (
                mark is not None and _is_one_write(segment, damage)
            )
        if fits:
            return TornTail(damage.offset, size, damage.reason, durable=durable)
    raise StateError(
        "journal.damaged",
        f"the journal in {folder} is damaged at {damage}",
        remedy=(
            f"keep a copy of the folder, find out who changed it ('trimtab journal verify {folder}'"
            " says more), then restore it from a backup, or move it away to begin a new journal, "
            "and journal.checkpoint with it"
        ),
    ) from damage


def _is_one_line(segment: Path, offset: int) -> bool:
    """Return True if at most one line, finished or not, follows *offset*."""
    with open_regular(segment) as file:
        file.seek(offset)
        while block := file.read(1024 * 1024):
            end = block.find(b"\n")
            if end >= 0:
                return end == len(block) - 1 and not file.read(1)
    return True


def _is_one_write(segment: Path, damage: Damage) -> bool:
    """Return True if everything from the damage on can belong to one write, torn by a crash.

    A write begins only after the write before is durable. The records of a write share one time,
    and a checkpoint is the last of them. A record with another time, or after a checkpoint, thus
    proves that the bad record was durable, however far the mark lags behind. A checkpoint at the
    very end proves nothing, not even by its signature: the torn write can contain the checkpoint.
    """
    time, ended = "", False
    for line in read_lines(segment, skip=damage.line - 1):
        record = parse_or_none(line.data)
        if (
            record is None or record.seq < damage.seq
        ):  # an unwritten block shows an older file's content
            continue
        if ended or (time and record.time != time):
            return False
        time, ended = record.time, record.entry.stage == "checkpoint"
    return True
