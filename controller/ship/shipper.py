"""The shipper: each sink has its own thread, its own cursor in the journal, and its own pace.

A slow or unreachable sink delays no other sink, and loses no records: its cursor moves, durably,
only after a delivery. However the process ends, records without a confirmed delivery are sent
again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from controller.core.records.record import GENESIS
from controller.journal.store.segments import DurableMark
from controller.model.errors import StateError
from controller.ports import Clock
from controller.ship.destination import Rejected, Sink, Undelivered, plain
from controller.ship.fd_server import JournalFiles
from controller.ship.follower import Cursor, Diverged, Follower, Shipped
from controller.system.durable_files import write_atomic

LOG = logging.getLogger("trimtab.ship")
BATCH_RECORDS: Final = 500
BATCH_BYTES: Final = 2 * 1024 * 1024
#: Pause between two looks for new records, and between two writes of the status.
LOOK_S: Final = 0.25
TELL_S: Final = 1.0
#: Pause before the second look at a journal that seems cut or changed: its files can be moving.
SECOND_LOOK_S: Final = 1.0
RETRY_FIRST_S: Final = 1.0
RETRY_LONGEST_S: Final = 60.0
STOP_S: Final = 8.0
#: A longer delivery is reported as hung, although it has not failed yet.
HUNG_S: Final = 60.0
#: How long earlier cursors of a sink are kept: at least the longest ``Undelivered.doubtful_s``.
REMEMBERED_S: Final = 30.0


@dataclass(slots=True)
class SinkStatus:
    """The status of a sink. Field names are members of ``status.json``."""

    name: str
    seq: int = 0  # the last delivered record
    lag_records: int = 0
    lag_seconds: float = 0.0  # age of the oldest undelivered record
    delivered: int = 0  # since the start
    missing: int = 0  # pruned before delivery
    rejected: int = 0  # permanently rejected by the receiver, since the start
    error: str = ""  # of the last delivery


@dataclass(frozen=True, slots=True)
class ShipperPaths:
    """The files of the shipper."""

    folder: Path  # of cursors and status
    metrics: Path | None = None  # for Prometheus' textfile collector

    @property
    def status(self) -> Path:
        """The file with the last status."""
        return self.folder / "status.json"

    def cursor(self, name: str) -> Path:
        """Return the file with a sink's cursor."""
        return self.folder / f"{name}.cursor"


def load_cursor(path: Path) -> Cursor:
    """Return a saved cursor; the journal's beginning if there is none.

    Raises:
        StateError: the file is unreadable or malformed.
    """
    try:
        return _parse_cursor(json.loads(path.read_text()))
    except FileNotFoundError:
        return Cursor()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError(
            "state.damaged",
            f"{path} can't be read: {error}",
            remedy="restore it; without the file everything is shipped again",
        ) from error


def _parse_cursor(members: Any) -> Cursor:
    seq, digest = members["seq"], members["hash"]
    if type(seq) is int and seq >= 0 and isinstance(digest, str) and len(digest) == len(GENESIS):
        return Cursor(seq, digest)
    raise ValueError("it names no record")


@dataclass(slots=True)
class _SinkWorker:
    """Delivers the journal to a sink, in a thread."""

    sink: Sink
    follower: Follower
    status: SinkStatus
    paths: ShipperPaths
    clock: Clock
    stop: threading.Event
    #: Earlier cursors, each with the monotonic time of its delivery.
    recent: deque[tuple[float, Cursor]] = field(default_factory=deque)
    failures: int = 0  # in a row
    doubted: bool = False  # the last look found a diverged journal
    oldest: float | None = None  # time of the oldest undelivered record
    began: float | None = None  # start of the running delivery

    def run(self) -> None:
        """Ship until ``stop`` is set.

        Raises:
            Diverged: the journal differs from the shipped one, at two looks in a row.
            StateError: the process that opens the journal's files is gone.
        """
        self._remember()
        while not self.stop.is_set():
            try:
                wait_s = self._step()
            except Undelivered as error:
                wait_s = self._failed(error)
            except Diverged as error:
                wait_s = self._doubt(error)
            except OSError as error:
                wait_s = self._failed(Undelivered(f"the journal: {error.strerror or error}"))
            if wait_s:
                self.stop.wait(wait_s)

    def _step(self) -> float:
        """Deliver the new records; return the seconds to wait for more."""
        mark = self.follower.mark()
        if mark is None:
            return LOOK_S
        status = self.status
        batch = self.follower.batch(mark, records=BATCH_RECORDS, size=BATCH_BYTES)
        if self.follower.missing != status.missing:
            status.missing = self.follower.missing
            LOG.error("records.missing name=%s count=%d", status.name, status.missing)
        if not batch:
            self.doubted = False
            return LOOK_S
        self.oldest = datetime.fromisoformat(batch[0].record.time).timestamp()
        self._deliver(batch)
        self._save(batch[-1].cursor)
        self.oldest = None
        status.error, self.failures, self.doubted = "", 0, False
        status.delivered += len(batch)
        self._remember()
        return 0.0

    def _deliver(self, batch: Sequence[Shipped]) -> None:
        self.began = self.clock.monotonic()
        try:
            self.sink.deliver(batch)
        except Rejected as error:
            name, count, why = self.status.name, error.count, plain(str(error))
            self.status.rejected += count
            LOG.error("records.rejected name=%s count=%d why=%s", name, count, why)  # noqa: TRY400
        finally:
            self.began = None

    def current_status(self, mark: DurableMark | None) -> SinkStatus:
        """Return the status now, even while a delivery hangs. Called by another thread.

        *mark* is the journal's; None if unreadable, and the lag in records is then the last known.
        """
        status, oldest, began = self.status, self.oldest, self.began
        if mark is not None:
            status.lag_records = max(0, mark.seq - status.seq)
        status.lag_seconds = 0.0 if oldest is None else max(0.0, self.clock.now() - oldest)
        current = replace(status)
        if began is not None and self.clock.monotonic() - began > HUNG_S:
            current.error = current.error or f"a delivery takes longer than {HUNG_S:.0f} s"
        return current

    def _save(self, cursor: Cursor) -> None:
        """Save the cursor, for this process and the next."""
        path = self.paths.cursor(self.status.name)
        write_atomic(path, f"{json.dumps(asdict(cursor))}\n".encode(), mode=None)
        self.status.seq = cursor.seq

    def _remember(self) -> None:
        now = self.clock.monotonic()
        self.recent.append((now, self.follower.cursor))
        while len(self.recent) > 1 and now - self.recent[1][0] > REMEMBERED_S:
            self.recent.popleft()

    def _doubt(self, error: Diverged) -> float:
        """Rewind to the last delivery for a second look; return the seconds to wait before."""
        if self.doubted:
            raise error
        self.doubted = True
        self.follower.rewind(self.recent[-1][1])
        return SECOND_LOOK_S

    def _failed(self, error: Undelivered) -> float:
        """Rewind to the last certain delivery; return the seconds to wait."""
        now = self.clock.monotonic()
        while len(self.recent) > 1 and now - self.recent[-1][0] < error.doubtful_s:
            self.recent.pop()
        back = self.recent[-1][1]
        self.follower.rewind(back)
        if back.seq < self.status.seq:
            with suppress(OSError):  # the follower is rewound in any case
                self._save(back)
        text = plain(str(error))  # a receiver's words can be in it
        if text != self.status.error:
            LOG.warning("sink.failed name=%s error=%s", self.status.name, text)
        self.status.error = text
        self.failures += 1
        return min(RETRY_LONGEST_S, RETRY_FIRST_S * 2.0 ** min(self.failures - 1, 10))


class Shipper:
    """Ships the journal to all sinks."""

    def __init__(
        self, sinks: Mapping[str, Sink], files: JournalFiles, paths: ShipperPaths, *, clock: Clock
    ) -> None:
        """Load the cursors of the sinks; raises StateError if a cursor can't be read."""
        self._paths = paths
        self._clock = clock
        self._stop = threading.Event()
        self._fatal: StateError | None = None
        self._watcher = Follower(files, Cursor())
        self._workers = [
            self._worker(name, sink, files, load_cursor(paths.cursor(name)))
            for name, sink in sinks.items()
        ]

    def _worker(self, name: str, sink: Sink, files: JournalFiles, cursor: Cursor) -> _SinkWorker:
        status = SinkStatus(name, seq=cursor.seq)
        follower = Follower(files, cursor)
        return _SinkWorker(sink, follower, status, self._paths, self._clock, self._stop)

    def stop(self) -> None:
        """Request the end of ``run``; safe in a signal handler."""
        # Not in the thread of `run`: the lock of an Event isn't reentrant, so that a signal during
        # `wait` would block the handler for ever.
        threading.Thread(target=self._stop.set, daemon=True).start()

    def run(self) -> None:
        """Ship until ``stop``; running deliveries have ``STOP_S`` to end.

        Raises:
            StateError: the journal diverged, or its files can't be opened any more.
        """
        threads = [
            threading.Thread(
                target=self._drive, args=(worker,), name=worker.status.name, daemon=True
            )
            for worker in self._workers
        ]
        for thread in threads:
            thread.start()
        self._write_status()
        while not self._stop.wait(TELL_S):
            self._write_status()
        deadline = self._clock.monotonic() + STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))
        self._write_status()
        if self._fatal is not None:
            raise self._fatal

    def _drive(self, worker: _SinkWorker) -> None:
        try:
            worker.run()
        except StateError as error:
            worker.status.error = str(error)
            self._fatal = self._fatal or error
            LOG.error("ship.ended name=%s error=%s", worker.status.name, error)  # noqa: TRY400
            self._stop.set()
        except Exception as error:
            LOG.exception("shipping to %s failed", worker.status.name)
            worker.status.error = f"a bug: {error!r}"
            self._fatal = self._fatal or StateError("ship.failed", f"a bug: {error!r}")
            self._stop.set()
        finally:
            worker.sink.close()
            worker.follower.close()

    def _write_status(self) -> None:
        """Write status and metrics; a failed write is logged, and shipping goes on."""
        mark = None
        with suppress(OSError, StateError):  # a worker reports a lasting error
            mark = self._watcher.mark()
        statuses = [worker.current_status(mark) for worker in self._workers]
        members = {"at": self._clock.now(), "sinks": [asdict(each) for each in statuses]}
        try:
            write_atomic(self._paths.status, f"{json.dumps(members)}\n".encode(), mode=None)
            if (path := self._paths.metrics) is not None:
                # The shipper's user can lack the right to read (and sync) Prometheus' folder.
                text = metrics(statuses).encode()
                write_atomic(path, text, mode=None, folder_sync_required=False)
        except OSError as error:
            LOG.warning("status.unwritable error=%s", error)


_METRICS: Final = (
    ("lag_records", "gauge", "Records that aren't delivered yet."),
    ("lag_seconds", "gauge", "Age of the oldest record that isn't delivered."),
    ("delivered_total", "counter", "Records delivered since the start."),
    ("missing_total", "counter", "Records that were pruned before they were delivered."),
    ("rejected_total", "counter", "Records that the receiver refused for good, since the start."),
    ("up", "gauge", "1 while the last delivery succeeded, and none hangs."),
)


def metrics(statuses: Sequence[SinkStatus]) -> str:
    """Return the metrics in Prometheus' text format, for its textfile collector."""
    values: dict[str, Callable[[SinkStatus], float]] = {
        "lag_records": lambda each: each.lag_records,
        "lag_seconds": lambda each: round(each.lag_seconds, 3),
        "delivered_total": lambda each: each.delivered,
        "missing_total": lambda each: each.missing,
        "rejected_total": lambda each: each.rejected,
        "up": lambda each: int(not each.error),
    }
    lines = []
    for name, kind, about in _METRICS:
        lines += [f"# HELP trimtab_ship_{name} {about}", f"# TYPE trimtab_ship_{name} {kind}"]
        lines += [f'trimtab_ship_{name}{{sink="{s.name}"}} {values[name](s)}' for s in statuses]
    return "\n".join(lines) + "\n"
