"""Places in the segments: going on from one, and reading the line at one.

A place is where the next record's line begins, with what it must continue. Who keeps a place (the
index, somebody who follows) reads on from there without reading what is before.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self

from controller.core.records.record import GENESIS, LINE_MAX_BYTES, BadLine, parse
from controller.journal.store.chain import Damage
from controller.journal.store.pruned_base import BASE_NAME, BadBase, read_base
from controller.journal.store.segments import first_seq_of, list_segments, name_of, open_segment
from controller.model.records import Record

#: Segments that are held open while lines are looked up.
_OPEN_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Position:
    """Right after record ``seq`` of that ``hash``: an offset in the segment of that first seq.

    ``segment`` is 0 before the first line that is there.
    """

    seq: int = 0
    hash: str = GENESIS
    segment: int = 0
    offset: int = 0


def start_of(folder: Path) -> Position:
    """Return the place before the first record that is there.

    Raises:
        Damage: what was pruned isn't told as the writer tells it.
        OSError: the folder can't be read.
    """
    try:
        base = read_base(folder)
    except BadBase as error:
        raise Damage(str(error), seq=1, file=BASE_NAME, line=1) from error
    return Position() if base is None else Position(base.record.seq, base.record.hash)


class PositionedRecord(NamedTuple):
    """A record, where its line is, and the place right after it."""

    record: Record
    segment: int
    offset: int
    length: int  # without the newline
    after: Position


class PositionLost(Exception):
    """A place isn't (any more) in the journal: it was another journal, or that part is gone."""


def records_after(
    folder: Path, place: Position, *, upto: int | None = None
) -> Iterator[PositionedRecord]:
    """Yield the records that follow *place*, each checked to continue the one before it.

    A last line that isn't finished ends the reading quietly: its writer may be at work.

    Raises:
        Moved: the place's segment isn't there, and it doesn't end where another begins.
        Damage: a record doesn't continue the one before it, or can't be read.
        OSError: the folder can't be read.
    """
    if upto is not None and place.seq >= upto:
        return
    segments = {first_seq_of(path): path for path in list_segments(folder)}
    begun = place.segment
    for first in sorted(segments):
        if first < begun or (first <= place.seq and first != begun):
            continue  # before the place, or pruned
        if first != begun:
            if first != place.seq + 1:
                raise PositionLost(f"record {place.seq + 1} isn't in the segments")
            place = Position(place.seq, place.hash, first, 0)
        for placed in _of_segment(segments[first], place):
            place = placed.after
            yield placed
            if upto is not None and place.seq >= upto:
                return
    if begun and begun not in segments and place.segment == begun:
        raise PositionLost(f"the segment of record {place.seq} is gone")


def _of_segment(path: Path, place: Position) -> Iterator[PositionedRecord]:
    try:
        with open_segment(path) as file:
            file.seek(place.offset)
            while data := file.readline(LINE_MAX_BYTES + 2):
                if not data.endswith(b"\n"):
                    return
                record = _continuing(place, data[:-1], path.name)
                after = Position(record.seq, record.hash, place.segment, place.offset + len(data))
                yield PositionedRecord(record, place.segment, place.offset, len(data) - 1, after)
                place = after
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damage(place, f"{path.name} is damaged: {error}", path.name) from error


def _continuing(place: Position, line: bytes, file: str) -> Record:
    try:
        record = parse(line)
    except BadLine as error:
        raise _damage(place, str(error), file) from None
    if record.seq != place.seq + 1:
        raise _damage(place, f"it is record {record.seq}", file)
    if record.prev != place.hash:
        raise _damage(place, "it doesn't continue the record before it (prev)", file)
    return record


def _damage(place: Position, reason: str, file: str) -> Damage:
    line = place.seq - place.segment + 2  # one record a line
    return Damage(reason, seq=place.seq + 1, file=file, line=line, offset=place.offset)


class RecordReader:
    """Looks up single records by where they are. Not safe for threads; close it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[int, BinaryIO] = {}

    def record(self, segment: int, offset: int, length: int) -> Record:
        """Return the record whose line is there.

        Raises:
            BadLine: there is no record's line, or its hash isn't that of its content.
            OSError: the segment is gone, or can't be read.
        """
        file = self._file(segment)
        try:
            file.seek(offset)
            return parse(file.read(length))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BadLine(f"it can't be unpacked: {error}") from error

    def _file(self, segment: int) -> BinaryIO:
        file = self._open.get(segment)
        if file is None:
            if len(self._open) >= _OPEN_MAX:
                self._open.pop(next(iter(self._open))).close()
            file = self._open[segment] = open_segment(self._folder / name_of(segment))
        return file

    def close(self) -> None:
        """Close the segments."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
