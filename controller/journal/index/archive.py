"""Asking the journal by its index, with what was written since: always all of it.

Whoever may write beside the segments keeps the index up to date by asking; who may not, or
doesn't trust it, makes one for itself alone.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Self

from controller.core.records.query import (
    ContainerLife,
    Filter,
    QueryResult,
    RecordContext,
    concerns,
    fits,
)
from controller.core.records.views import Page, Question, chronicle
from controller.core.records.visibility import EVERYTHING, Reader, may_read
from controller.journal.index.builder import Builder, Containers, IndexLocked, Intents
from controller.journal.index.database import Index, IndexUnusable, Misfit
from controller.journal.index.time_cut import last_at
from controller.journal.store.chain import Damage
from controller.journal.store.position import PositionLost, records_after
from controller.journal.store.reader import readable
from controller.journal.store.segments import list_segments, read_mark
from controller.model.records import Role

#: Records after the index that are read beside it; beyond, an index is made for one question.
TAIL_MAX: Final = 20_000
#: What asking a wrong index ends in: rows that lead elsewhere, no rows, no text.
WRONG: Final = (Misfit, sqlite3.Error, UnicodeDecodeError)


class IndexSnapshot:
    """An index and the records after it, as of one moment. For one thread."""

    def __init__(self, index: Index, folder: Path, *, upto: int | None = None) -> None:
        self._index = index
        self._intents, self._lives = Intents(index.database), Containers(index.database)
        memory = RecordContext(self._intents, self._lives)
        placed = records_after(folder, index.place, upto=upto)
        self._tail = [QueryResult(each.record, memory.learn(each.record)) for each in placed]

    def find(
        self,
        wanted: Filter,
        *,
        reader: Reader = EVERYTHING,
        limit: int = 0,
        last: bool = True,
    ) -> Iterator[QueryResult]:
        """Yield the records that are wanted and that *reader* may know, in order.

        With a *limit* only so many: the last, or else the first.

        Raises:
            Misfit: the index is wrong.
        """
        tail = deque(
            (found for found in self._tail if fits(*found, wanted) and may_read(reader, *found)),
            maxlen=limit if limit and last else None,
        )
        if limit and last and len(tail) == limit:
            yield from tail
            return
        left = limit - len(tail) if limit and last else limit
        count = 0
        for found in self._index.find(wanted, reader, limit=left, last=last):
            count += 1
            yield found
        yield from list(tail)[: limit - count if limit and not last else None]

    def ask(self, question: Question) -> Page:
        """Answer a question; raises as ``find``."""
        if question.there:
            return self._there(question)
        found = tuple(
            self.find(
                question.wanted, reader=question.reader, limit=question.limit, last=question.last
            )
        )
        full = question.limit and len(found) == question.limit
        return Page(found, found[-1].record.seq if full and not question.last else 0)

    def _there(self, question: Question) -> Page:
        """Answer what containers were at a time."""
        seq = self.last_at(question.there)
        found: list[QueryResult] = []
        told = 0
        for life in self.lives(seq, since=question.wanted.after):
            if not _is_wanted(life, question):
                continue
            if question.limit and len(found) >= question.limit:
                return Page(tuple(found), told)
            find = partial(self.find, reader=question.reader)
            found += chronicle(find, life.about.id, upto=seq)
            told = life.since
        return Page(tuple(found))

    def last_at(self, at: str) -> int:
        """Return the seq of the last record at a time; 0 for none."""
        runs = list(self._index.runs(at))
        runs += ((record.seq, 1 if record.time <= at else -1) for record, _ in self._tail)
        return last_at(runs)

    def lives(self, seq: int, *, since: int = 0) -> list[ContainerLife]:
        """Return the containers that were there right after record *seq*, the oldest first."""
        kept = {life.about.id: life for life in self._index.lives(since=since, seq=seq)}
        for identifier, life in self._lives.changed():
            kept.pop(identifier, None)
            if since < life.since <= seq and (not life.gone or life.gone > seq):
                kept[identifier] = life
        return sorted(kept.values(), key=lambda life: life.since)


def _is_wanted(life: ContainerLife, question: Question) -> bool:
    about, wanted, reader = life.about, question.wanted, question.reader
    if reader.role is Role.CLIENT and (not reader.owner or about.owner != reader.owner):
        return False
    return concerns(about, wanted)


class FolderArchive:
    """Asks the journal of a folder that can be read. For one thread; close it.

    With *scan* no index is believed: one is made for this alone, of every record, checked.

    Raises:
        StateError: there is no journal, it is damaged, or it can't be read.
    """

    def __init__(self, folder: Path, *, scan: bool = False) -> None:
        self._folder = folder
        self._builder: Builder | None = None
        self._index: Index | None = None
        try:
            with readable(folder):
                list_segments(folder)  # what isn't there, or can't be read, gets no index
                self._asked = self._for_this_alone() if scan else self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> IndexSnapshot:
        """Use the index beside the segments, made up to date if nobody else does that."""
        with suppress(IndexUnusable, PositionLost, sqlite3.Error):
            try:
                self._builder = Builder(self._folder)
            except (IndexLocked, OSError):
                return self._kept_by_another()
            return self._built(self._builder)
        return self._for_this_alone()

    def _kept_by_another(self) -> IndexSnapshot:
        self._index = Index.open(self._folder)
        mark = read_mark(self._folder)
        if mark is not None and mark.seq - self._index.place.seq > TAIL_MAX:
            raise IndexUnusable("it is far behind")
        return IndexSnapshot(self._index, self._folder)

    def _for_this_alone(self) -> IndexSnapshot:
        self.close()
        self._builder = Builder(self._folder, temporary=True)
        return self._built(self._builder)

    def _built(self, builder: Builder) -> IndexSnapshot:
        with suppress(Damage):  # raised again by reading on from there
            for _ in builder.build():
                pass
        return IndexSnapshot(builder.index, self._folder)

    def find(self, wanted: Filter, *, limit: int = 0, last: bool = True) -> Iterator[QueryResult]:
        """Yield the records that are wanted, in order; with a *limit* the last so many, or first.

        Raises:
            StateError: the journal can't be read.
        """
        if limit:
            yield from self.ask(Question(wanted, limit=limit, last=last)).found
            return
        try:
            for found in self._asked.find(wanted):
                yield found
                wanted = replace(wanted, after=found.record.seq)
        except WRONG:
            self._distrust()
            yield from self._asked.find(wanted)

    def ask(self, question: Question) -> Page:
        """Answer a question; raises as ``find``."""
        try:
            return self._asked.ask(question)
        except WRONG:
            self._distrust()
            return self._asked.ask(question)

    def _distrust(self) -> None:
        """Make the index anew, or one for this alone where another keeps it."""
        with readable(self._folder):
            if self._builder is not None:
                with suppress(IndexUnusable, sqlite3.Error):
                    self._builder.rebuild()
                    self._asked = self._built(self._builder)
                    return
            self._asked = self._for_this_alone()

    def close(self) -> None:
        """Close it."""
        for each in (self._builder, self._index):
            if each is not None:
                each.close()
        self._builder = self._index = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
