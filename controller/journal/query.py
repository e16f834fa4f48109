"""Questions to the journal's files. Each reads from the start: an index may answer faster later."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from controller.core.record import CLOSING
from controller.core.search import Filter, Found, search
from controller.journal.reader import last_seq, records
from controller.model.entries import Record

EVERYTHING: Final = Filter()
#: How much more than the last records is read, to learn what those are about.
_LEARNING: Final = 500


def find(folder: Path, wanted: Filter = EVERYTHING, *, limit: int = 0) -> Iterator[Found]:
    """Yield the records that are wanted with what they are about, in order.

    With a *limit*, only the last so many.

    Raises:
        StateError: the journal is damaged, or can't be read.
    """
    after = 0
    if limit and wanted.empty:
        after = max(0, last_seq(folder) - limit - _LEARNING)
    found = search(records(folder, after=after), wanted)
    yield from deque(found, maxlen=limit) if limit else found


def query(folder: Path, wanted: Filter = EVERYTHING, *, limit: int = 0) -> Iterator[Record]:
    """Yield the records that are wanted, in order; with a *limit*, only the last so many.

    Raises:
        StateError: the journal is damaged, or can't be read.
    """
    return (found.record for found in find(folder, wanted, limit=limit))


def story(folder: Path, identity: str) -> tuple[Record, ...]:
    """Return the records of one id: an intent and what closed it, or a single one, or none.

    *identity* is a record's id, or its seq in digits.

    Raises:
        StateError: the journal is damaged, or can't be read.
    """
    if not (identity.isascii() and identity.isdigit()):
        return _all_of(records(folder), identity)
    seq = int(identity)
    if not 1 <= seq <= last_seq(folder):
        return ()
    one = next(records(folder, after=seq - 1))
    if one.entry.stage in CLOSING:
        # Its intent lies before it.
        return _all_of(records(folder, upto=seq), one.entry.id)
    return _all_of(records(folder, after=seq - 1), one.entry.id)


def _all_of(every: Iterable[Record], identity: str) -> tuple[Record, ...]:
    """Return the records of that id; reads no further than the second."""
    found: list[Record] = []
    for record in every:
        if record.entry.id == identity:
            found.append(record)
            if len(found) == 2 or record.entry.stage not in (*CLOSING, "intent"):
                break
    return tuple(found)
