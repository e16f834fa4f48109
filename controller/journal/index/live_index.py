"""The index of the journal of this process: brought up to date in the background, and queried.

A single thread indexes new records without delaying the writer: the thread gathers records for a
moment, and under load rests for as long as it worked. A failure (a full disk, a damaged journal)
is reported in ``error`` and retried; no other part depends on the index.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from controller.core.records.views import Page, Question
from controller.journal.index import database
from controller.journal.index.archive import WRONG, IndexSnapshot
from controller.journal.index.builder import Builder, IndexLocked
from controller.journal.store.chain import Damage
from controller.journal.store.position import PositionLost, start_of
from controller.journal.store.reader import readable
from controller.model.errors import StateError
from controller.ports import Clock

LOG = logging.getLogger(__name__)
#: Records written within this time are indexed in one transaction.
GATHER_S: Final = 0.25
#: Pause between retries after a failure.
AGAIN_S: Final = 15.0
#: Records after the index that a query reads one by one; beyond, the query has to wait.
TAIL_MAX: Final = 2000
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
            if self._usable and durable - self._seq <= TAIL_MAX:
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
