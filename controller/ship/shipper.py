"""The shipper: each sink with its own thread, its own place in the journal, and its own pace.

A sink that is slow or away delays itself alone, and loses nothing: its cursor is where it was, and
it is moved, durably, only after a delivery. Whatever ends the process, what may not have been
delivered is sent again.
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
from controller.ship.fd_server import JournalFiles
from controller.ship.follower import Cursor, Diverged, Follower, Shipped
from controller.ship.formats import plain
from controller.ship.sink import Rejected, Sink, Undelivered
from controller.system.atomic_file import write_atomic

LOG = logging.getLogger("trimtab.ship")
BATCH_RECORDS: Final = 500
BATCH_BYTES: Final = 2 * 1024 * 1024
#: How often it is looked for new records, and what is told is told.
LOOK_S: Final = 0.25
TELL_S: Final = 1.0
#: Before a journal that seems cut or changed is looked at again: its files may just be moving.
SECOND_LOOK_S: Final = 1.0
RETRY_FIRST_S: Final = 1.0
RETRY_LONGEST_S: Final = 60.0
STOP_S: Final = 8.0
#: A delivery that takes longer isn't counted on any more, though nothing says yet that it failed.
HUNG_S: Final = 60.0
#: How long it is remembered where a sink was: at least as long as any delivery is doubtful.
REMEMBERED_S: Final = 30.0


@dataclass(slots=True)
class SinkStatus:
    """How a sink is doing, as the status has it."""

    name: str
    seq: int = 0
    lag_records: int = 0
    lag_seconds: float = 0.0
    delivered: int = 0  # since the start
    missing: int = 0  # pruned before they were delivered
    rejected: int = 0  # delivered since the start, and refused by the receiver for good
    error: str = ""


@dataclass(frozen=True, slots=True)
class ShipperPaths:
    """Where the shipper keeps its own: ``folder`` has cursors and status. ``metrics`` is Prometheus'."""

    folder: Path
    metrics: Path | None = None

    @property
    def status(self) -> Path:
        """The last status."""
        return self.folder / "status.json"

    def cursor(self, name: str) -> Path:
        """A sink's place in the journal."""
        return self.folder / f"{name}.cursor"


def load_cursor(path: Path) -> Cursor:
    """Return a saved cursor; the beginning where there is none.

    Raises:
        StateError: the file can't be read as one.
    """
    try:
        return _cursor_of(json.loads(path.read_text()))
    except FileNotFoundError:
        return Cursor()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError(
            "state.damaged",
            f"{path} can't be read: {error}",
            remedy="restore it; without the file everything is shipped again",
        ) from error


def _cursor_of(told: Any) -> Cursor:
    seq, digest = told["seq"], told["hash"]
    if type(seq) is int and seq >= 0 and isinstance(digest, str) and len(digest) == len(GENESIS):
        return Cursor(seq, digest)
    raise ValueError("it names no record")


@dataclass(slots=True)
class _Lane:
    """One sink on its way."""

    sink: Sink
    follower: Follower
    standing: SinkStatus
    places: ShipperPaths
    clock: Clock
    stop: threading.Event
    known: deque[tuple[float, Cursor]] = field(default_factory=deque)  # where it was, and when
    failures: int = 0
    doubted: bool = False  # the last look found another journal
    oldest: float | None = None  # when the first record was written that isn't delivered
    began: float | None = None  # since when a delivery is under way

    def run(self) -> None:
        """Ship until told to stop.

        Raises:
            Diverged: the journal isn't what it was, seen twice.
            StateError: nobody opens its files any more.
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
        """Deliver what is there; return how long to wait for more."""
        mark = self.follower.mark()
        if mark is None:
            return LOOK_S
        standing = self.standing
        batch = self.follower.batch(mark, records=BATCH_RECORDS, size=BATCH_BYTES)
        if self.follower.missing != standing.missing:
            standing.missing = self.follower.missing
            LOG.error("records.missing name=%s count=%d", standing.name, standing.missing)
        if not batch:
            self.doubted = False
            return LOOK_S
        self.oldest = datetime.fromisoformat(batch[0].record.time).timestamp()
        self._deliver(batch)
        self._settle(batch[-1].cursor)
        self.oldest = None
        standing.error, self.failures, self.doubted = "", 0, False
        standing.delivered += len(batch)
        self._remember()
        return 0.0

    def _deliver(self, batch: Sequence[Shipped]) -> None:
        self.began = self.clock.monotonic()
        try:
            self.sink.deliver(batch)
        except Rejected as error:
            name, count, why = self.standing.name, error.count, plain(str(error))
            self.standing.rejected += count
            LOG.error("records.rejected name=%s count=%d why=%s", name, count, why)  # noqa: TRY400
        finally:
            self.began = None

    def told(self, mark: DurableMark | None) -> SinkStatus:
        """Return how it is doing now, also while a delivery hangs; for another thread.

        The *mark* is the journal's, None where it can't be read: then it is as far behind as before.
        """
        standing, oldest, began = self.standing, self.oldest, self.began
        if mark is not None:
            standing.lag_records = max(0, mark.seq - standing.seq)
        standing.lag_seconds = 0.0 if oldest is None else max(0.0, self.clock.now() - oldest)
        told = replace(standing)
        if began is not None and self.clock.monotonic() - began > HUNG_S:
            told.error = told.error or f"a delivery takes longer than {HUNG_S:.0f} s"
        return told

    def _settle(self, cursor: Cursor) -> None:
        """Make it the place to go on from, also for the next process."""
        path = self.places.cursor(self.standing.name)
        write_atomic(path, f"{json.dumps(asdict(cursor))}\n".encode(), mode=None)
        self.standing.seq = cursor.seq

    def _remember(self) -> None:
        now = self.clock.monotonic()
        self.known.append((now, self.follower.cursor))
        while len(self.known) > 1 and now - self.known[1][0] > REMEMBERED_S:
            self.known.popleft()

    def _doubt(self, error: Diverged) -> float:
        """Go back to what was delivered, for a second look; return how long to wait for it."""
        if self.doubted:
            raise error
        self.doubted = True
        self.follower.rewind(self.known[-1][1])
        return SECOND_LOOK_S

    def _failed(self, error: Undelivered) -> float:
        """Go back to where it is certain; return how long to wait."""
        now = self.clock.monotonic()
        while len(self.known) > 1 and now - self.known[-1][0] < error.doubtful_s:
            self.known.pop()
        back = self.known[-1][1]
        self.follower.rewind(back)
        if back.seq < self.standing.seq:
            with suppress(OSError):  # this process goes on from there all the same
                self._settle(back)
        told = plain(str(error))  # a receiver may have worded it
        if told != self.standing.error:
            LOG.warning("sink.failed name=%s error=%s", self.standing.name, told)
        self.standing.error = told
        self.failures += 1
        return min(RETRY_LONGEST_S, RETRY_FIRST_S * 2.0 ** min(self.failures - 1, 10))


class Shipper:
    """Ships to all sinks until it is told to stop."""

    def __init__(
        self, sinks: Mapping[str, Sink], files: JournalFiles, places: ShipperPaths, *, clock: Clock
    ) -> None:
        """Take the sinks by name; raises StateError where a cursor can't be read."""
        self._places = places
        self._clock = clock
        self._stop = threading.Event()
        self._fatal: StateError | None = None
        self._watcher = Follower(files, Cursor())
        self._lanes = [
            self._lane(name, sink, files, load_cursor(places.cursor(name)))
            for name, sink in sinks.items()
        ]

    def _lane(self, name: str, sink: Sink, files: JournalFiles, cursor: Cursor) -> _Lane:
        standing = SinkStatus(name, seq=cursor.seq)
        follower = Follower(files, cursor)
        return _Lane(sink, follower, standing, self._places, self._clock, self._stop)

    def stop(self) -> None:
        """Ask it to stop; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Ship until ``stop``; deliveries under way have some seconds to end.

        Raises:
            StateError: the journal isn't what it was, or its files can't be opened any more.
        """
        threads = [
            threading.Thread(target=self._drive, args=(lane,), name=lane.standing.name, daemon=True)
            for lane in self._lanes
        ]
        for thread in threads:
            thread.start()
        self._tell()
        while not self._stop.wait(TELL_S):
            self._tell()
        deadline = self._clock.monotonic() + STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))
        self._tell()
        if self._fatal is not None:
            raise self._fatal

    def _drive(self, lane: _Lane) -> None:
        try:
            lane.run()
        except StateError as error:
            lane.standing.error = str(error)
            self._fatal = self._fatal or error
            LOG.error("ship.ended name=%s error=%s", lane.standing.name, error)  # noqa: TRY400
            self._stop.set()
        except Exception as error:
            LOG.exception("shipping to %s failed", lane.standing.name)
            lane.standing.error = f"a bug: {error!r}"
            self._fatal = self._fatal or StateError("ship.failed", f"a bug: {error!r}")
            self._stop.set()
        finally:
            lane.sink.close()
            lane.follower.close()

    def _tell(self) -> None:
        """Write status and metrics; what can't be written is logged, and shipping goes on."""
        mark = None
        with suppress(OSError, StateError):  # a lane says so, if it stays like that
            mark = self._watcher.mark()
        standings = [lane.told(mark) for lane in self._lanes]  # both tell the same
        told = {"at": self._clock.now(), "sinks": [asdict(each) for each in standings]}
        try:
            write_atomic(self._places.status, f"{json.dumps(told)}\n".encode(), mode=None)
            if (path := self._places.metrics) is not None:
                # Prometheus' folder can be one that this user only writes to.
                text = metrics(standings).encode()
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


def metrics(standings: Sequence[SinkStatus]) -> str:
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
        lines += [f'trimtab_ship_{name}{{sink="{s.name}"}} {values[name](s)}' for s in standings]
    return "\n".join(lines) + "\n"
