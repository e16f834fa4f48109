"""Read the journal: the records in order, each checked against the record before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from controller.core.records.record import BadLine
from controller.journal.store.chain import ChainWalk, Damage
from controller.journal.store.position import PositionLost
from controller.journal.store.segments import BadSegment, first_seq_of, list_segments, read_lines
from controller.model.errors import StateError
from controller.model.records import Record

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
