"""Queries of a journal's folder: by the index, plus the records after the index.

A process with write access to the state folder brings the index up to date before a query. A
process without, or with distrust of the index, builds a temporary index.

Records are always in the order of their seqs, and nearly in the order of their times. After a clock
was set back or forward for a while, the cut is made where the fewest records are on the wrong side.
A clock that was wrong for a moment, by any amount, thus doesn't affect the answers for other times.

The index of the journal of this process: brought up to date in the background, and queried.

A single thread indexes new records without delaying the writer: the thread gathers records for a
moment, and under load rests for as long as it worked. A failure (a full disk, a damaged journal)
is reported in ``error`` and retried; no other part depends on the index.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Self

from controller.core.records import query
from controller.core.records.query import EVERYTHING, Page, Question, Reader, chronicle, may_read
from controller.journal.index import database
from controller.journal.index.builder import Builder, Containers, IndexLocked, Intents
from controller.journal.index.database import Index, IndexUnusable, Misfit
from controller.journal.store.chain import Damage
from controller.journal.store.reader import PositionLost, readable, records_after, start_of
from controller.journal.store.segments import list_segments, read_mark
from controller.model.errors import StateError
from controller.model.records import RESTRICTED
from controller.ports import Clock

#: Records after the index that a query reads one by one; beyond, a temporary index is built.
TAIL_MAX: Final = 20_000
#: Errors that show a wrong index: rows of other records, no rows, malformed text.
WRONG: Final = (Misfit, sqlite3.Error, UnicodeDecodeError)


class IndexSnapshot:
    """An index and the records after the index, at one moment. Not thread-safe."""

    def __init__(self, index: Index, folder: Path, *, upto: int | None = None) -> None:
        self._index = index
        self._intents, self._lives = Intents(index.database), Containers(index.database)
        memory = query.RecordContext(self._intents, self._lives)
        placed = records_after(folder, index.place, upto=upto)
        self._tail = [query.QueryResult(each.record, memory.learn(each.record)) for each in placed]

    def find(
        self,
        wanted: query.Filter,
        *,
        reader: Reader = EVERYTHING,
        limit: int = 0,
        last: bool = True,
    ) -> Iterator[query.QueryResult]:
        """Yield the matching records visible to *reader*, in order.

        With a *limit*, yield the last matches, or the first ones if *last* is False.

        Raises:
            Misfit: the index is wrong.
        """
        tail = deque(
            (each for each in self._tail if query.fits(*each, wanted) and may_read(reader, *each)),
            maxlen=limit if limit and last else None,
        )
        if limit and last and len(tail) == limit:
            yield from tail
            return
        left = limit - len(tail) if limit and last else limit
        count = 0
        for result in self._index.find(wanted, reader, limit=left, last=last):
            count += 1
            yield result
        yield from list(tail)[: limit - count if limit and not last else None]

    def ask(self, question: Question) -> Page:
        """Answer a question; raises as ``find``."""
        if question.there:
            return self._containers_at(question)
        found = tuple(
            self.find(
                question.wanted, reader=question.reader, limit=question.limit, last=question.last
            )
        )
        full = question.limit and len(found) == question.limit
        return Page(found, found[-1].record.seq if full and not question.last else 0)

    def _containers_at(self, question: Question) -> Page:
        """Answer which containers existed at a time, and their records."""
        seq = self.last_at(question.there)
        found: list[query.QueryResult] = []
        following = 0
        for life in self.lives(seq, since=question.wanted.after):
            if not _is_wanted(life, question):
                continue
            if question.limit and len(found) >= question.limit:
                return Page(tuple(found), following)
            find = partial(self.find, reader=question.reader)
            found += chronicle(find, life.about.id, upto=seq)
            following = life.since
        return Page(tuple(found))

    def last_at(self, at: str) -> int:
        """Return the seq of the last record at a time, or 0."""
        runs = list(self._index.runs(at))
        runs += ((record.seq, 1 if record.time <= at else -1) for record, _ in self._tail)
        return last_at(runs)

    def lives(self, seq: int, *, since: int = 0) -> list[query.ContainerLife]:
        """Return the containers that existed right after record *seq*, the oldest first."""
        existing = {life.about.id: life for life in self._index.lives(since=since, seq=seq)}
        for identifier, life in self._lives.changed():
            existing.pop(identifier, None)
            if since < life.since <= seq and (not life.gone or life.gone > seq):
                existing[identifier] = life
        return sorted(existing.values(), key=lambda life: life.since)


def _is_wanted(life: query.ContainerLife, question: Question) -> bool:
    about, wanted, reader = life.about, question.wanted, question.reader
    if reader.role in RESTRICTED and not reader.is_of(about.owner):
        return False
    return query.concerns(about, wanted)


class FolderArchive:
    """Queries of a readable journal folder. Not thread-safe; close after use.

    With *scan*, the stored index is not used: every record is checked and indexed temporarily.

    Raises:
        StateError: the journal is missing, damaged or unreadable.
    """

    def __init__(self, folder: Path, *, scan: bool = False) -> None:
        self._folder = folder
        self._builder: Builder | None = None
        self._index: Index | None = None
        try:
            with readable(folder):
                list_segments(folder)  # fails before an index of a missing folder is made
                self._snapshot = self._open_temporary() if scan else self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> IndexSnapshot:
        """Open the stored index, and update it unless another process holds the index lock."""
        with suppress(IndexUnusable, PositionLost, sqlite3.Error):
            try:
                self._builder = Builder(self._folder)
            except (IndexLocked, OSError):
                return self._open_locked()
            return self._build(self._builder)
        return self._open_temporary()

    def _open_locked(self) -> IndexSnapshot:
        self._index = Index.open(self._folder)
        mark = read_mark(self._folder)
        if mark is not None and mark.seq - self._index.place.seq > TAIL_MAX:
            raise IndexUnusable("it is far behind")
        return IndexSnapshot(self._index, self._folder)

    def _open_temporary(self) -> IndexSnapshot:
        self.close()
        self._builder = Builder(self._folder, temporary=True)
        return self._build(self._builder)

    def _build(self, builder: Builder) -> IndexSnapshot:
        with suppress(Damage):  # the snapshot reads on from there and raises it again
            for _ in builder.build():
                pass
        return IndexSnapshot(builder.index, self._folder)

    def find(
        self, wanted: query.Filter, *, limit: int = 0, last: bool = True
    ) -> Iterator[query.QueryResult]:
        """Yield the matching records, in order; with a *limit*, the last or the first ones.

        Raises:
            StateError: the journal can't be read.
        """
        if limit:
            yield from self.ask(Question(wanted, limit=limit, last=last)).found
            return
        try:
            for result in self._snapshot.find(wanted):
                yield result
                wanted = replace(wanted, after=result.record.seq)
        except WRONG:
            self._replace_index()
            yield from self._snapshot.find(wanted)

    def ask(self, question: Question) -> Page:
        """Answer a question; raises as ``find``."""
        try:
            return self._snapshot.ask(question)
        except WRONG:
            self._replace_index()
            return self._snapshot.ask(question)

    def _replace_index(self) -> None:
        """Rebuild the wrong index, or build a temporary one if another process holds the lock."""
        with readable(self._folder):
            if self._builder is not None:
                with suppress(IndexUnusable, sqlite3.Error):
                    self._builder.rebuild()
                    self._snapshot = self._build(self._builder)
                    return
            self._snapshot = self._open_temporary()

    def close(self) -> None:
        """Close the index."""
        for each in (self._builder, self._index):
            if each is not None:
                each.close()
        self._builder = self._index = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def last_at(runs: Iterable[tuple[int, int]]) -> int:
    """Return the seq of the last record at a time, or 0.

    *runs* are consecutive groups of records: the seq of the last record, and the number of records,
    negative if the records are later than that time.
    """
    best, most, balance = 0, 0, 0
    for seq, count in runs:
        balance += count
        if balance > most:
            best, most = seq, balance
    return best


LOG = logging.getLogger(__name__)
#: Records written within this time are indexed in one transaction.
GATHER_S: Final = 0.25
#: Pause between retries after a failure.
AGAIN_S: Final = 15.0
#: Records after the index that a query reads one by one; beyond, the query has to wait.
LIVE_TAIL_MAX: Final = 2000
#: Longest journal, in records, that is read for one query if no index can be used.
ALONE_MAX: Final = 10_000
#: How long a query waits at the start for the index to be opened.
OPEN_S: Final = 2.0
CLOSE_S: Final = 5.0


class LiveIndex:
    """The index of the journal of this process. Implements ``ports.Archive``.

    *durable* returns the last durable record: later records are neither indexed nor returned.
    """

    def __init__(self, folder: Path, *, durable: Callable[[], int], clock: Clock) -> None:
        self._folder = folder
        self._durable = durable
        self._clock = clock
        self._seq = 0
        self._error = "it is being made"
        self._wrong = False  # a row didn't match its record: the index must be rebuilt
        self._usable = False  # the index can be opened
        self._tried = threading.Event()  # the index was opened or made, or that failed
        self._more = threading.Event()
        self._more.set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)
        self._thread.start()

    @property
    def durable(self) -> int:
        """The last record that queries can return."""
        return self._durable()

    @property
    def indexed(self) -> int:
        """The last indexed record; later records are read one by one."""
        return self._seq

    @property
    def error(self) -> str:
        """Why indexing has stopped, or ''."""
        return self._error

    def wake(self) -> None:
        """Announce new records to index."""
        self._more.set()

    def close(self) -> None:
        """Stop the thread; the index stays as it is."""
        self._closing.set()
        self._more.set()
        self._thread.join(CLOSE_S)

    # Queries

    def ask(self, question: Question) -> Page:
        """Answer a question from every durable record.

        Answers even while the index can't be written: from the indexed records and the later ones,
        or without an index if the journal is short.

        Raises:
            StateError: the journal is damaged, unreadable, or not indexed yet.
        """
        self._tried.wait(OPEN_S)
        durable = self._durable()
        with readable(self._folder):
            if self._usable and durable - self._seq <= LIVE_TAIL_MAX:
                try:
                    with database.Index.open(self._folder) as index:
                        return IndexSnapshot(index, self._folder, upto=durable).ask(question)
                except (*WRONG, PositionLost, database.IndexUnusable) as error:
                    self._note_wrong(error)
            try:
                return self._without_index(question, durable)
            except (database.Misfit, PositionLost, sqlite3.Error) as error:
                raise self._not_yet(durable) from error

    def _note_wrong(self, error: Exception) -> None:
        if database.is_unwritable(error):
            LOG.warning("journal.index.unusable error=%s", error)
            return
        LOG.warning("journal.index.wrong error=%s: rebuilding it", error)
        self._usable, self._wrong = False, True
        self._more.set()

    def _without_index(self, question: Question, durable: int) -> Page:
        """Answer from a temporary index."""
        if durable - start_of(self._folder).seq > ALONE_MAX:
            raise self._not_yet(durable)
        with Builder(self._folder, temporary=True) as builder:
            for _ in builder.build(upto=durable):
                pass
            return IndexSnapshot(builder.index, self._folder, upto=durable).ask(question)

    def _not_yet(self, durable: int) -> StateError:
        reason = f": {self._error}" if self._error else ""
        return StateError(
            "journal.indexing",
            f"{self._seq} of {durable} records are indexed{reason}",
            remedy="try again in a moment; as root, 'trimtab journal' reads the files themselves",
        )

    # The thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with Builder(self._folder) as builder:
                    if not builder.is_whole():
                        builder.rebuild()
                    self._index_until_closed(builder)
            except (
                Damage,
                IndexLocked,
                PositionLost,
                OSError,
                database.IndexUnusable,
                sqlite3.Error,
            ) as error:
                self._set_error(error)
            except Exception as error:
                self._error = f"a bug: {error!r}"
                LOG.exception("journal.index.failed seq=%d", self._seq)
            self._tried.set()
            self._closing.wait(AGAIN_S)

    def _set_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self._error:
            LOG.warning("journal.index.stopped error=%s", text)
        self._error = text

    def _index_until_closed(self, builder: Builder) -> None:
        while not self._closing.is_set():
            self._more.wait()
            self._closing.wait(GATHER_S)
            self._more.clear()
            if self._wrong:
                self._seq, self._error, self._wrong = 0, "it is being rebuilt", False
                builder.rebuild()
            self._seq = builder.index.place.seq
            self._usable = True
            self._tried.set()
            try:
                self._catch_up(builder)
            except (database.DiskAlmostFull, sqlite3.Error) as error:
                if not database.is_unwritable(error):
                    raise
                # Keep the index open: on a full disk it couldn't be opened again, even for queries.
                self._set_error(error)
                builder.resume()
                self._more.set()
                self._closing.wait(AGAIN_S)
            else:
                self._error = ""
            finally:
                with suppress(sqlite3.Error):
                    self._seq = builder.index.place.seq

    def _catch_up(self, builder: Builder) -> None:
        started = self._clock.monotonic()
        for seq in builder.build(upto=self._durable()):
            self._seq = seq
            if self._closing.wait(self._clock.monotonic() - started):
                return
            started = self._clock.monotonic()
