"""Keeping the index up to the journal while it is written, and answering from it.

The one thread of it works behind the writer and never in anybody's way: it waits a moment for more,
and while much is left to do it rests as long as it worked. What it can't do (a full disk, a damaged
journal) it says, and tries again; nothing else depends on it.
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
from controller.journal.index.archive import WRONG, IndexSnapshot
from controller.journal.index.builder import Builder, IndexLocked
from controller.journal.index.database import (
    DiskAlmostFull,
    Index,
    IndexUnusable,
    Misfit,
    is_unwritable,
)
from controller.journal.store.chain import Damage
from controller.journal.store.position import PositionLost, start_of
from controller.journal.store.reader import readable
from controller.model.errors import StateError
from controller.ports import Clock

LOG = logging.getLogger(__name__)
#: Records that are written within this time are indexed together.
GATHER_S: Final = 0.05
#: How long after a failure it is tried again.
AGAIN_S: Final = 15.0
#: Records after the index that a question reads beside it; beyond, it has to wait.
TAIL_MAX: Final = 2000
#: Records of a journal that are read for one question where no index can be used.
ALONE_MAX: Final = 10_000
#: How long a question waits for the index to be opened, at the start.
OPEN_S: Final = 2.0
CLOSE_S: Final = 5.0


class LiveIndex:
    """The index of a journal that this process writes. Implements ``ports.Archive``.

    *durable* tells the last record that is: no later one is indexed or told.
    """

    def __init__(self, folder: Path, *, durable: Callable[[], int], clock: Clock) -> None:
        self._folder = folder
        self._durable = durable
        self._clock = clock
        self._seq = 0
        self._error = "it is being made"
        self._wrong = False  # a row led elsewhere: it is to be made anew
        self._there = False  # an index that can be opened
        self._tried = threading.Event()  # to open one, or make it
        self._more = threading.Event()
        self._more.set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)
        self._thread.start()

    @property
    def durable(self) -> int:
        """The last record that can be asked for."""
        return self._durable()

    @property
    def indexed(self) -> int:
        """The last record that is indexed; those after it are read one by one."""
        return self._seq

    @property
    def error(self) -> str:
        """Why no more are indexed, or ''."""
        return self._error

    def wake(self) -> None:
        """Say that there is more to index."""
        self._more.set()

    def close(self) -> None:
        """Leave the index as it is."""
        self._closing.set()
        self._more.set()
        self._thread.join(CLOSE_S)

    # Asking

    def ask(self, question: Question) -> Page:
        """Answer a question, with every durable record.

        Also while nothing can be written: by as much as is indexed, with what was written since;
        or without an index, if the journal isn't long.

        Raises:
            StateError: the journal is damaged, can't be read, or isn't indexed yet.
        """
        self._tried.wait(OPEN_S)
        durable = self._durable()
        with readable(self._folder):
            if self._there and durable - self._seq <= TAIL_MAX:
                try:
                    with Index.open(self._folder) as index:
                        return IndexSnapshot(index, self._folder, upto=durable).ask(question)
                except (*WRONG, PositionLost, IndexUnusable) as error:
                    self._doubt(error)
            try:
                return self._without_index(question, durable)
            except (Misfit, PositionLost, sqlite3.Error) as error:
                raise self._not_yet(durable) from error

    def _doubt(self, error: Exception) -> None:
        if is_unwritable(error):
            LOG.warning("journal.index.unusable error=%s", error)
            return
        LOG.warning("journal.index.wrong error=%s: making it anew", error)
        self._there, self._wrong = False, True
        self._more.set()

    def _without_index(self, question: Question, durable: int) -> Page:
        """Answer by an index that is made for this alone, in memory."""
        if durable - start_of(self._folder).seq > ALONE_MAX:
            raise self._not_yet(durable)
        with Builder(self._folder, temporary=True) as builder:
            for _ in builder.build(upto=durable):
                pass
            return IndexSnapshot(builder.index, self._folder, upto=durable).ask(question)

    def _not_yet(self, durable: int) -> StateError:
        told = f": {self._error}" if self._error else ""
        return StateError(
            "journal.indexing",
            f"{self._seq} of {durable} records are indexed{told}",
            remedy="try again in a moment; as root, 'trimtab journal' reads the files themselves",
        )

    # The thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with Builder(self._folder) as builder:
                    if not builder.is_whole():
                        builder.rebuild()
                    self._keep(builder)
            except (
                Damage,
                IndexLocked,
                PositionLost,
                OSError,
                IndexUnusable,
                sqlite3.Error,
            ) as error:
                self._tell(error)
            except Exception as error:
                self._error = f"a bug: {error!r}"
                LOG.exception("journal.index.failed seq=%d", self._seq)
            self._tried.set()
            self._closing.wait(AGAIN_S)

    def _tell(self, error: Exception) -> None:
        told = str(error) or type(error).__name__
        if told != self._error:
            LOG.warning("journal.index.stopped error=%s", told)
        self._error = told

    def _keep(self, builder: Builder) -> None:
        while not self._closing.is_set():
            self._more.wait()
            self._closing.wait(GATHER_S)
            self._more.clear()
            if self._wrong:
                self._seq, self._error, self._wrong = 0, "it is being made anew", False
                builder.rebuild()
            self._seq = builder.index.place.seq
            self._there = True
            self._tried.set()
            try:
                self._catch_up(builder)
            except (DiskAlmostFull, sqlite3.Error) as error:
                if not is_unwritable(error):
                    raise
                # It stays open: without room, it couldn't even be opened to be asked.
                self._tell(error)
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
