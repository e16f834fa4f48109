"""The journal's only writer: one thread that commits all that is queued by one fsync."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from controller.core.records.record import CLOSING, Prepared, prepare
from controller.core.transparency.checkpoint import prune_entry
from controller.journal.store.pruned_base import foundation
from controller.journal.writer.append_log import DEFAULT_LIMITS, Log, SegmentLimits
from controller.journal.writer.checkpointer import Checkpointer
from controller.journal.writer.disk import Disk
from controller.journal.writer.disk_reserve import may_use_reserve
from controller.journal.writer.retention import RetentionLimits
from controller.journal.writer.retention_thread import RetentionThread
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import JournalUnavailable
from controller.model.inventory import Inventory
from controller.model.records import Entry, Record
from controller.ports import RESERVED, Clock, JournalHealth, NewId

#: A batch is what one write and one fsync make durable.
BATCH_MAX_ENTRIES: Final = 1024
BATCH_MAX_BYTES: Final = 4 * 1024 * 1024
#: Beyond these the queue is full. Closing records have as much again for themselves: an intent
#: that was admitted is always to be closed.
QUEUE_MAX_ENTRIES: Final = 8192
QUEUE_MAX_BYTES: Final = 32 * 1024 * 1024


class _Queued(NamedTuple):
    prepared: Prepared
    future: Future[Record]


class Writer:
    """The broker's journal. Implements ``ports.Journal``; every method may be called by any thread.

    While appending fails, the writer tries again with each entry, and without any every
    ``limits.retry_s`` seconds, so that ``writable`` comes back by itself. Checkpoints of the
    *notary* come with entries, and in time without any. With *keep*, closed segments are compressed
    and pruned beside.

    Raises:
        StateError: the folder isn't private, is held by another writer, or the journal is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        new_id: NewId,
        reach: Reach = pass_by,
        disk: Disk | None = None,
        limits: SegmentLimits = DEFAULT_LIMITS,
        notary: Checkpointer | None = None,
        keep: RetentionLimits | None = None,
    ) -> None:
        self._log = Log(
            folder,
            clock=clock,
            new_id=new_id,
            reach=reach,
            disk=disk,
            limits=limits,
            notary=notary,
        )
        self._limits = limits
        self._upkeep: RetentionThread | None = None
        #: How the journal was when something was last written, or tried.
        self.vitals = self._vitals()
        self._changed = threading.Condition()
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._closing = ""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()
        self._opened = self._log.opened
        if keep is not None:

            def tell(until: int, reason: str) -> Record:
                return self.append(prune_entry(new_id(), until=until, reason=reason))

            self._upkeep = RetentionThread(folder, keep=keep, clock=clock, tell=tell)

    # What health shows.

    @property
    def writable(self) -> bool:
        """Tell whether the last attempt to write succeeded."""
        return not self.error

    @property
    def error(self) -> str:
        """Why the last attempt failed, or ''."""
        return self._closing or self._log.error

    @property
    def last_seq(self) -> int:
        """The last durable record's seq; 0 before the first."""
        return self._log.last_seq

    # Using it.

    def submit(self, entry: Entry) -> Future[Record]:
        """Queue *entry*; the future has its record once that is durable, else JournalUnavailable.

        Never blocks. A future can be cancelled until its batch is being written.

        Raises:
            ValueError: *entry* can't be recorded, ever (``core.records.record.prepare`` says why).
        """
        prepared = prepare(entry)
        future: Future[Record] = Future()
        share = 2 if entry.stage in CLOSING else 1
        with self._changed:
            if self._closing:
                future.set_exception(JournalUnavailable("journal.closed", self._closing))
            elif (
                len(self._queue) >= share * QUEUE_MAX_ENTRIES
                or self._queued_bytes + prepared.size > share * QUEUE_MAX_BYTES
            ):
                future.set_exception(
                    JournalUnavailable(
                        "journal.busy",
                        f"{len(self._queue)} entries wait to be written",
                        remedy="the disk is too slow for so many requests: send fewer at once",
                    )
                )
            else:
                self._queue.append(_Queued(prepared, future))
                self._queued_bytes += prepared.size
                self._changed.notify()
        return future

    def append(self, entry: Entry) -> Record:
        """Make *entry* durable and return its record; blocks until fsynced.

        Raises:
            JournalUnavailable: it isn't in the chain; or, with the code ``journal.stuck``, the
                disk didn't answer in time, and it may still get there.
            ValueError: as ``submit``.
        """
        future = self.submit(entry)
        try:
            return future.result(timeout=self._limits.deadline_s)
        except TimeoutError:
            code = "journal.busy" if future.cancel() else "journal.stuck"
            raise JournalUnavailable(
                code, f"the disk took longer than {self._limits.deadline_s:g} s"
            ) from None
        except CancelledError:
            raise JournalUnavailable("journal.closed", self._closing) from None

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Yield the durable records with ``seq`` above *after*, in order.

        Raises:
            StateError: a record is damaged, or *after* is beyond the end.
        """
        return self._log.records(after=after)

    def foundation(self, *, known: int) -> Inventory | None:
        """Return what to go on from for somebody who knows the records up to *known*.

        None where all that follow are there: nothing of them was pruned.

        Raises:
            StateError: it can't be read.
        """
        return foundation(self._log.folder, known=known)

    def close(self) -> None:
        """Write what is queued, then give back the folder. Nothing is accepted from here on."""
        if self._upkeep is not None:
            self._upkeep.close()
        with self._changed:
            self._closing = self._closing or "the journal is closed"
            self._changed.notify()
        self._thread.join(self._limits.deadline_s)
        if not self._thread.is_alive():
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # The thread.

    def _run(self) -> None:
        batch: list[_Queued] = []
        try:
            while True:
                batch = self._take()
                if batch:
                    self._commit(batch)
                elif self._closing and not self._queue:
                    return
                else:
                    self._look_after()
        except BaseException as error:
            # A bug of ours. Nobody may wait for ever, and nothing may be forwarded unrecorded.
            with self._changed:
                self._closing = f"the journal's writer failed: {error!r}"
                batch += self._queue
                self._queue.clear()
            for queued in batch:
                if not queued.future.done():
                    failure = JournalUnavailable("journal.failed", self._closing)
                    queued.future.set_exception(failure)
            raise

    def _take(self) -> list[_Queued]:
        """Wait for entries; return a batch of those that weren't cancelled, or none: look around."""
        with self._changed:
            if not self._queue and not self._closing:
                fine = self._log.writable and not self.vitals.reserved
                self._changed.wait(self._log.due_s if fine else self._limits.retry_s)
            batch: list[_Queued] = []
            size = 0
            while self._queue and len(batch) < BATCH_MAX_ENTRIES:
                size += self._queue[0].prepared.size
                if batch and size > BATCH_MAX_BYTES:
                    break
                queued = self._queue.popleft()
                self._queued_bytes -= queued.prepared.size
                if queued.future.set_running_or_notify_cancel():
                    batch.append(queued)
            return batch

    def _commit(self, batch: list[_Queued]) -> None:
        self.vitals = self._vitals()
        if self.vitals.reserved:
            batch = self._of_the_reserve(batch)
        try:
            records = self._log.commit([queued.prepared for queued in batch])
        except JournalUnavailable as error:
            for queued in batch:
                # An exception of its own for each: a traceback isn't shared between threads.
                queued.future.set_exception(
                    JournalUnavailable(error.code, error.message, remedy=error.remedy)
                )
        else:
            for queued, record in zip(batch, records, strict=True):
                queued.future.set_result(record)
            if self._upkeep is not None and self._log.opened != self._opened:
                self._opened = self._log.opened
                self._upkeep.wake()

    def _of_the_reserve(self, batch: list[_Queued]) -> list[_Queued]:
        """Refuse what may not use the last of the disk; return the rest."""
        kept: list[_Queued] = []
        for queued in batch:
            if may_use_reserve(queued.prepared.entry):
                kept.append(queued)
                continue
            queued.future.set_exception(
                JournalUnavailable(
                    RESERVED,
                    "the disk is almost full: the rest is for the controller and operators",
                    remedy=f"free space on the file system of {self._log.folder}",
                )
            )
        return kept

    def _look_after(self) -> None:
        """Try again where writing failed, and sign what is due."""
        with suppress(JournalUnavailable):
            self._log.commit([])
        self.vitals = self._vitals()

    def _vitals(self) -> JournalHealth:
        reserved = self._log.look_at_room()
        free = self._log.room.free_bytes if self._log.room is not None else 0
        doubted = self._upkeep is not None and self._upkeep.doubted
        return JournalHealth(
            self._log.signed, free_bytes=free, reserved=reserved, clock_doubted=doubted
        )
