"""What the writer finds at the journal's end when it opens: whole, torn, or damaged.

Torn is what a crash leaves: bytes after the last whole record that were never acknowledged, or a
last line that was cut short. That is moved aside and recorded, never deleted. Anything else is
damage: the writer refuses to open, since going on would bury it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from controller.core.records.record import BadLine, parse
from controller.journal.store.chain import ChainWalk, Damage
from controller.journal.store.segments import (
    COMPRESSED,
    first_seq_of,
    list_segments,
    open_regular,
    read_lines,
)
from controller.model.errors import StateError
from controller.model.records import Record


@dataclass(frozen=True, slots=True)
class TornTail:
    """Bytes to move aside from ``offset`` of the last segment to its end.

    ``durable`` tells that the mark vouched for the record that was there: it was acknowledged, and
    is lost. With no bytes, the line is gone to its last byte, and the piece beside is empty.
    """

    offset: int
    size: int
    reason: str
    durable: bool


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the chain: its last record, its last segment, and what is wrong with that."""

    seq: int
    hash: str
    segment: Path | None
    holder: int  # first seq of the segment that holds the last record; 0 before the first
    size: int  # of the last segment's whole records
    opened_at: float  # by the segment record's time; 0 where the segment has none
    torn: TornTail | None
    #: Pieces that a start moved aside before it was killed, so that no record names them yet.
    aside: tuple[str, ...]


def find_tail(folder: Path) -> Tail:
    """Look at the last segment, and at how it continues the one before.

    Raises:
        StateError: damage that isn't a torn tail; it names the first bad record and its file.
        OSError: the folder can't be read.
    """
    segments = list_segments(folder)
    segment = segments[-1] if segments else None
    walk = ChainWalk(folder, after=first_seq_of(segment) - 1 if segment else 0)
    opening: Record | None = None
    torn: TornTail | None = None
    try:
        for record in walk:
            opening = opening or record
    except Damage as damage:
        torn = _judge(folder, walk, damage)
    if walk.unfinished:
        torn = _judge(folder, walk, walk.damage("its line is cut short"))
    # A last segment without a whole record continues the one before, if there is one.
    size = walk.offset if segment is not None and walk.file == segment.name else 0
    holding = [path for path in segments if path != segment or size]
    return Tail(
        seq=walk.seq,
        hash=walk.hash,
        segment=segment,
        holder=first_seq_of(holding[-1]) if holding else walk.before(0),
        size=size,
        opened_at=datetime.fromisoformat(opening.time).timestamp() if opening else 0.0,
        torn=torn,
        aside=_unnamed_pieces((*holding[-1:], *segments[-1:])),
    )


def check_reaches(folder: Path, tail: Tail, *, published: int) -> None:
    """See that all is there that the published checkpoint is of: so many records were durable.

    That last record itself isn't counted: one durable record that a bad sector took is told, and
    the journal goes on (``_judge``).

    Raises:
        StateError: some are gone, whatever the mark says; or the folder was set back.
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
    """Return the names of what was moved aside from a segment, which may be compressed since."""
    name = segment.name.removesuffix(COMPRESSED)
    return tuple(sorted(path.name for path in segment.parent.glob(f"{name}.torn-*")))


def _unnamed_pieces(segments: tuple[Path, ...]) -> tuple[str, ...]:
    """Return the pieces of *segments*, the last ones, that no record names.

    A repair always opens a segment, so what isn't named there isn't named at all.
    """
    named = [name for segment in segments for name in _named_pieces(segment)]
    pieces = [name for segment in segments for name in pieces_of(segment)]
    return tuple(sorted({name for name in pieces if name not in named}))


def _named_pieces(segment: Path) -> list[object]:
    line = next(read_lines(segment), None)
    try:
        opening = parse(line.data) if line else None
    except BadLine:
        opening = None
    match opening.entry.result.get("repair") if opening else None:
        case {"files": [*names]}:
            return names
        case _:
            return []


def _judge(folder: Path, walk: ChainWalk, damage: Damage) -> TornTail:
    """Tell a torn tail from damage."""
    segment = walk.segments[-1] if walk.segments else None
    mark = walk.mark
    if (
        segment is not None
        and segment.suffix != COMPRESSED  # it was whole when it was compressed
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
    """Tell whether at most one line, finished or not, follows *offset*."""
    with open_regular(segment) as file:
        file.seek(offset)
        while block := file.read(1024 * 1024):
            end = block.find(b"\n")
            if end >= 0:
                return end == len(block) - 1 and not file.read(1)
    return True


def _is_one_write(segment: Path, damage: Damage) -> bool:
    """Tell whether all that is left from the damage on may be of one write, which a crash tore.

    Nothing is written before what was written before it is durable. The records of a write have one
    time, and a checkpoint is the last of them: what has another time, or follows a checkpoint, came
    after the bad record was durable, however far the mark lags behind. A checkpoint at the very end
    proves nothing, neither here nor by its signature: it may be of the write that was torn.
    """
    time, ended = "", False
    for line in read_lines(segment, skip=damage.line - 1):
        try:
            record = parse(line.data)
        except BadLine:
            continue
        if record.seq < damage.seq:  # of a file that was there before: a block that wasn't written
            continue
        if ended or (time and record.time != time):
            return False
        time, ended = record.time, record.entry.stage == "checkpoint"
    return True
