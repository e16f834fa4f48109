"""Read the journal: the records in order, each checked against the record before.

Positions in the segments: read on from a position, and read the line at a position.

A position is the start of the next record's line, with the seq and hash that the next record must
continue. A reader that stores a position (the index, a follower) reads on from there without
reading earlier records.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from controller.core.records.record import GENESIS, LINE_MAX_BYTES, BadLine, parse
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
    UNPACK_ERRORS,
    BadSegment,
    first_seq_of,
    list_segments,
    name_of,
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
