"""The journal's only writer: one thread that commits all queued entries by one fsync."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

from controller.core.records.checkpoint import prune_entry
from controller.core.records.record import CLOSING, Prepared, prepare
from controller.journal.store.chain import pruned_inventory
from controller.journal.writer.append_log import (
    DEFAULT_LIMITS,
    Disk,
    Log,
    SegmentLimits,
    may_use_reserve,
)
from controller.journal.writer.checkpointer import Checkpointer
from controller.journal.writer.retention import RetentionLimits, RetentionThread
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import JournalUnavailable
from controller.model.inventory import Inventory
from controller.model.records import Entry, Record
from controller.ports import RESERVED, Clock, JournalHealth, NewId

#: Limits of a batch: the entries made durable by one write and one fsync.
BATCH_MAX_ENTRIES: Final = 1024
BATCH_MAX_BYTES: Final = 4 * 1024 * 1024
#: Limits of the queue. Closing records have as much again for themselves: every admitted intent
#: must be closed.
QUEUE_MAX_ENTRIES: Final = 8192
QUEUE_MAX_BYTES: Final = 32 * 1024 * 1024


class _Queued(NamedTuple):
    prepared: Prepared
    future: Future[Record]


class Writer:
    """The broker's journal. Implements ``ports.Journal``; any thread can call every method.

    While appending fails, the writer retries with each entry, and every ``limits.retry_s`` seconds
    without entries, so that ``writable`` recovers on its own. With a *checkpointer*, checkpoints are
    written with entries, and when due without entries. With *retention*, a second thread compresses
    and prunes closed segments.

    Raises:
        StateError: the folder isn't private or is locked by another writer, or the journal is damaged.
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
        checkpointer: Checkpointer | None = None,
        retention: RetentionLimits | None = None,
    ) -> None:
        self._log = Log(
            folder,
            clock=clock,
            new_id=new_id,
            reach=reach,
            disk=disk,
            limits=limits,
            checkpointer=checkpointer,
        )
        self._limits = limits
        self._retention: RetentionThread | None = None
        #: The journal's health at the last attempt to write.
        self.last_health = self._measure_health()
        self._changed = threading.Condition()
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._closing = ""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()
        self._opened = self._log.opened
        if retention is not None:

            def record_pruning(until: int, reason: str, digest: str) -> Record:
                entry = prune_entry(new_id(), until=until, reason=reason, digest=digest)
                return self.append(entry)

            self._retention = RetentionThread(
                folder, limits=retention, clock=clock, record_pruning=record_pruning
            )

    # What health shows.

    @property
    def writable(self) -> bool:
        """True if the last attempt to write succeeded."""
        return not self.error

    @property
    def error(self) -> str:
        """The error of the last attempt to write, or ''."""
        return self._closing or self._log.error

    @property
    def last_seq(self) -> int:
        """The seq of the last durable record; 0 before the first."""
        return self._log.last_seq

    @property
    def signed_at_open(self) -> int:
        """The last record that a checkpoint covered before this process wrote anything."""
        return self._log.signed_at_open

    # Using it.

    def submit(self, entry: Entry) -> Future[Record]:
        """Queue *entry*; the future gets the durable record, or JournalUnavailable.

        Never blocks. A future can be cancelled until the write of its batch begins.

        Raises:
            ValueError: *entry* can never be recorded (see ``core.records.record.prepare``).
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
        """Make *entry* durable and return its record; blocks until the fsync.

        Raises:
            JournalUnavailable: *entry* isn't in the chain. With the code ``journal.stuck``, the disk
                didn't answer in time, and *entry* can still enter the chain.
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

    def pruned_inventory(self, *, known: int) -> Inventory | None:
        """Return the inventory to continue from for a reader of the records up to *known*.

        Returns None if no record after *known* was pruned.

        Raises:
            StateError: the inventory can't be read.
        """
        return pruned_inventory(self._log.folder, known=known)

    def close(self) -> None:
        """Write the queued entries, then release the folder. New entries are refused."""
        if self._retention is not None:
            self._retention.close()
        with self._changed:
            self._closing = self._closing or "the journal is closed"
            self._changed.notify()
        self._thread.join(self._limits.deadline_s)
        if not self._thread.is_alive():
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
                    self._commit_nothing()
        except BaseException as error:
            # A bug. No caller must wait forever, and no request is forwarded without a record.
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
        """Wait for entries, and return a batch without the cancelled ones; empty after a time-out."""
        with self._changed:
            if not self._queue and not self._closing:
                is_healthy = self._log.writable and not self.last_health.reserved
                self._changed.wait(self._log.due_s if is_healthy else self._limits.retry_s)
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
        self.last_health = self._measure_health()
        if self.last_health.reserved:
            batch = self._refuse_unreserved(batch)
        try:
            records = self._log.commit([queued.prepared for queued in batch])
        except JournalUnavailable as error:
            for queued in batch:
                # One exception for each: threads must not share a traceback.
                queued.future.set_exception(
                    JournalUnavailable(error.code, error.message, remedy=error.remedy)
                )
        else:
            for queued, record in zip(batch, records, strict=True):
                queued.future.set_result(record)
            if self._retention is not None and self._log.opened != self._opened:
                self._opened = self._log.opened
                self._retention.wake()

    def _refuse_unreserved(self, batch: list[_Queued]) -> list[_Queued]:
        """Refuse the entries without a right to the disk reserve; return the others."""
        allowed: list[_Queued] = []
        for queued in batch:
            if may_use_reserve(queued.prepared.entry):
                allowed.append(queued)
                continue
            queued.future.set_exception(
                JournalUnavailable(
                    RESERVED,
                    "the disk is almost full: the rest is for the controller and operators",
                    remedy=f"free space on the file system of {self._log.folder}",
                )
            )
        return allowed

    def _commit_nothing(self) -> None:
        """Retry a failed write, and write a due checkpoint."""
        with suppress(JournalUnavailable):
            self._log.commit([])
        self.last_health = self._measure_health()

    def _measure_health(self) -> JournalHealth:
        reserved = self._log.measure_room()
        free = self._log.room.free_bytes if self._log.room is not None else 0
        doubted = self._retention is not None and self._retention.doubted
        return JournalHealth(
            self._log.signed, free_bytes=free, reserved=reserved, clock_doubted=doubted
        )
