"""What the journal's tests share: a clock, ids, entries, and disks that count or fail."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from controller.core.encoding.json_values import canonical
from controller.core.records.checkpoint import origin_of
from controller.core.transparency import PublicKey
from controller.journal.store.segments import list_segments
from controller.journal.writer.append_log import Disk, Log, SegmentLimits
from controller.journal.writer.checkpointer import (
    Checkpointer,
    CheckpointInterval,
    KeyFiles,
    SigningKeys,
    ends_of,
    read_published_keys,
)
from controller.journal.writer.writer_thread import Writer
from controller.model.records import Entry, Record, Stage
from controller.ports import NewId

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


class FixedClock:
    """A clock that tests set."""

    def __init__(self, now: float = NOON) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def uuid7(number: int) -> str:
    """The number-th id: UUIDv7s that sort like their numbers."""
    return f"{number // 4096:08x}-{number % 4096:04x}-7000-8000-000000000000"


class Ids:
    """Counts ids up, apart from those that tests choose themselves."""

    def __init__(self, start: int = 1_000_000) -> None:
        self._last = start
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self._last += 1
            return uuid7(self._last)


def entry(number: int, stage: Stage = "refusal", **parts: dict[str, object]) -> Entry:
    """An entry whose id is the number-th."""
    if not parts:
        parts = {"request": {"object": f"web.{number}"}}
    return Entry(uuid7(number), stage, **parts)


class CountingDisk(Disk):
    """Counts the calls."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def write(self, file: int, data: bytes) -> None:
        self.calls["write"] += 1
        super().write(file, data)

    def fsync(self, file: int) -> None:
        self.calls["fsync"] += 1
        super().fsync(file)


class FailingDisk(Disk):
    """Raises for the calls that are named in ``failing``: call -> errno.

    ``written``: how many bytes of a failing write still get there.
    """

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        self.written = 0

    def _may_fail(self, call: str) -> None:
        if call in self.failing:
            raise OSError(self.failing[call], os.strerror(self.failing[call]))

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
        self._may_fail("open")
        return super().open(path, flags, mode)

    def write(self, file: int, data: bytes) -> None:
        if "write" in self.failing:
            super().write(file, data[: self.written])
        self._may_fail("write")
        super().write(file, data)

    def overwrite(self, file: int, data: bytes) -> None:
        self._may_fail("overwrite")
        super().overwrite(file, data)

    def fsync(self, file: int) -> None:
        self._may_fail("fsync")
        super().fsync(file)

    def truncate(self, file: int, size: int) -> None:
        self._may_fail("truncate")
        super().truncate(file, size)

    def ends_with(self, file: int, size: int, line: bytes) -> bool:
        if "reread" in self.failing:
            return False
        return super().ends_with(file, size, line)


class HeldDisk(CountingDisk):
    """Its fsync waits while it is held, so that tests decide what is queued meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.released.set()
        self.waiting = threading.Event()

    def fsync(self, file: int) -> None:
        if not self.released.is_set():
            self.waiting.set()
            assert self.released.wait(30), "nobody released the disk"
        super().fsync(file)


def open_log(
    folder: Path,
    *,
    clock: FixedClock | None = None,
    disk: Disk | None = None,
    limits: SegmentLimits | None = None,
    every: CheckpointInterval | None = None,
) -> Log:
    """Open a journal; with *every*, one that is signed."""
    # Ids must not repeat between openings of one folder.
    start = 1_000_000 + sum(path.stat().st_size for path in list_segments_or_none(folder))
    clock, new_id = clock or FixedClock(), Ids(start)
    return Log(
        folder,
        clock=clock,
        new_id=new_id,
        disk=disk,
        limits=limits or SegmentLimits(),
        checkpointer=checkpointer_of(folder, clock, new_id, every) if every is not None else None,
    )


ORIGIN = origin_of("5109a1b2c3d4e5f6")


def key_files(folder: Path) -> KeyFiles:
    return KeyFiles(
        secret=folder.with_name("journal.key"),
        public=folder.with_name("journal.pub"),
        checkpoint=folder.with_name("journal.checkpoint"),
    )


def checkpointer_of(
    folder: Path, clock: FixedClock, new_id: NewId, every: CheckpointInterval
) -> Checkpointer:
    keys = SigningKeys(key_files(folder), name=ORIGIN, new_seed=lambda: os.urandom(32))
    return Checkpointer(keys, origin=ORIGIN, clock=clock, new_id=new_id, every=every)


def open_writer(
    folder: Path,
    *,
    disk: Disk | None = None,
    limits: SegmentLimits | None = None,
    clock: FixedClock | None = None,
    every: CheckpointInterval | None = None,
) -> Writer:
    start = 1_000_000 + sum(path.stat().st_size for path in list_segments_or_none(folder))
    clock, new_id = clock or FixedClock(), Ids(start)
    return Writer(
        folder,
        clock=clock,
        new_id=new_id,
        disk=disk,
        limits=limits or SegmentLimits(retry_s=0.01),
        checkpointer=checkpointer_of(folder, clock, new_id, every) if every is not None else None,
    )


def list_segments_or_none(folder: Path) -> Sequence[Path]:
    return list_segments(folder) if folder.is_dir() else ()


def write_journal(folder: Path, segments: Sequence[int]) -> list[Record]:
    """A journal whose segments hold so many records each, besides their segment records.

    Odd records are intents, even ones close the one before.
    """
    clock = FixedClock()
    log = open_log(folder, clock=clock, limits=SegmentLimits(max_segment_age_s=1.0))
    number = 0
    written = []
    for count in segments:
        for _ in range(count):
            written.append(log.append(intent_or_outcome(number)))
            number += 1
        clock.time += 1.0
    log.close()
    return written


def intent_or_outcome(number: int) -> Entry:
    if number % 2 == 0:
        request: dict[str, object] = {"object": f"web.{number // 2}", "route": "container.start"}
        return entry(number // 2, "intent", request=request)
    return entry(number // 2, "outcome", result={"status": 204, "durationMs": 12})


def newer(line: bytes, *, stage: str = "") -> bytes:
    """Return the line of a record after that of *line*, as a newer version could write it."""
    members = json.loads(line)
    members |= {"later": {"x": 1}, "prev": members.pop("hash"), "seq": members["seq"] + 1}
    members["stage"] = stage or members["stage"]
    members["id"] = uuid7(9_000 + members["seq"])
    own = hashlib.sha256(canonical(members)).hexdigest()
    return canonical({**members, "hash": own})


def edit(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change a file's lines, each with its newline."""
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def read_public_keys(path: Path) -> dict[PublicKey, int | None]:
    """The published keys, each with the last record that it signed, None for one without an end."""
    return ends_of(read_published_keys(path))
