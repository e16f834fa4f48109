"""Reading the journal: the records in order, and the check that nobody changed them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.core.record import CLOSING
from controller.journal.chain import Damage, Walk
from controller.journal.segments import first_seq_of, list_segments, read_lines
from controller.model.entries import Record
from controller.model.errors import StateError

#: How many ids ``verify`` keeps to tell two equal ones; beyond, it looks again.
_WINDOW: Final = 65_536
_WHERE: Final = "name the state folder with --state"


def records(folder: Path, *, after: int = 0, upto: int | None = None) -> Iterator[Record]:
    """Yield the records with ``after < seq <= upto`` in order, each checked against the one before.

    A last line that isn't finished ends the reading quietly: its writer may be at work.

    Raises:
        StateError: a record is damaged or missing, or the folder can't be read.
    """
    if upto is not None and after == upto:
        return
    with _readable(folder):
        walk = Walk(folder, after=after)
        for record in walk:
            yield record
            if record.seq == upto:
                return


def last_seq(folder: Path) -> int:
    """Return the seq of the last whole line, without checking what is before it; 0 if none.

    Raises:
        StateError: the folder can't be read, or the last line is damaged.
    """
    with _readable(folder):
        for segment in reversed(list_segments(folder)):
            first = first_seq_of(segment)
            if count := sum(line.whole for line in read_lines(segment)):
                return first + count - 1
    return 0


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except Damage as damage:
        raise StateError(
            "journal.damaged",
            f"the journal in {folder} is damaged at {damage}",
            remedy=f"'trimtab journal verify {folder}' says more",
        ) from damage
    except PermissionError as error:
        raise StateError(
            "journal.unreadable",
            f"the journal can't be read: {error.filename}: {error.strerror}",
            remedy="only the broker's user may read it: ask as root, with sudo",
        ) from error
    except FileNotFoundError as error:
        raise StateError("journal.missing", f"no journal in {folder}", remedy=_WHERE) from error
    except OSError as error:
        raise StateError(
            "journal.unreadable",
            f"the journal in {folder} can't be read: {error}",
            remedy="look at the kernel's log for the disk under it",
        ) from error


@dataclass(frozen=True, slots=True)
class Repair:
    """What the writer once recorded: a torn tail moved aside, or a time when it couldn't write."""

    seq: int  # of the segment record that says so
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``verify`` found. ``records`` hold together; ``first_bad`` is the first that doesn't.

    ``file`` and ``line`` say where that record belongs. ``open_intents`` are id and seq of those
    without a closing record so far. ``unfinished_bytes`` follow the last record: a line that a
    writer is about to finish, or that the next start moves aside.
    """

    records: int
    segments: int
    last_hash: str
    open_intents: tuple[tuple[str, int], ...] = ()
    repairs: tuple[Repair, ...] = ()
    unfinished_bytes: int = 0
    first_bad: int | None = None
    file: str = ""
    line: int = 0
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether every record is as it was written, and none is missing."""
        return self.first_bad is None


def verify(folder: Path) -> Verification:
    """Check every record: canonical, hashed, linked, gapless, each intent closed at most once.

    Memory is bounded by the open intents, not by the journal. A journal that is being written may
    be verified. A tail cut off together with the mark doesn't show (see ``segments``).

    Raises:
        StateError: there is no journal, or it can't be read.
    """
    with _readable(folder):
        walk = Walk(folder)
        if not walk.segments and walk.mark is None:
            raise StateError("journal.missing", f"no journal in {folder}", remedy=_WHERE)
        stages = _Stages(folder)
        repairs: list[Repair] = []
        damage: Damage | None = None
        try:
            for record in walk:
                if reason := stages.check(record):
                    damage = _at(walk, record, reason)
                elif stages.crowded:
                    damage = stages.finish()
                if damage is not None:
                    break
                if record.entry.stage == "segment":
                    repairs += _repairs(record)
            else:
                damage = stages.finish()
        except Damage as error:
            damage = error
        good = damage.seq - 1 if damage else walk.seq
        return Verification(
            records=good,
            segments=len(walk.segments),
            last_hash=walk.hash,
            open_intents=tuple(stages.open.items()),
            repairs=tuple(repairs),
            unfinished_bytes=walk.unfinished,
            first_bad=damage.seq if damage else None,
            file=damage.file if damage else "",
            line=damage.line if damage else 0,
            reason=damage.reason if damage else "",
        )


def _at(walk: Walk, record: Record, reason: str) -> Damage:
    """Return damage at the record that the walk accepted last."""
    return Damage(
        reason, seq=record.seq, file=walk.file, line=walk.line - 1, offset=0, unreadable=False
    )


def _repairs(record: Record) -> Iterator[Repair]:
    match record.entry.result.get("repair"):
        case {"bytes": size, "reason": reason, "durable": durable}:
            lost = ", and an acknowledged record was lost" if durable else ""
            yield Repair(record.seq, f"{size} torn bytes were moved aside: {reason}{lost}")
        case _:
            pass
    match record.entry.result.get("outage"):
        case {"since": since, "error": error, "refused": refused}:
            yield Repair(
                record.seq,
                f"not writable from {since} to {record.time}: {error}; {refused} entries refused",
            )
        case _:
            pass


class _Stages:
    """The life of ids: an intent is closed once, by a record after it; no id opens twice.

    Ids are nearly in order (UUIDv7). One above all that left the window is new unless the window
    has it, which is exact; the few others (the clock was set back) are looked up in the journal.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.open: dict[str, int] = {}
        self._window: set[str] = set()
        self._order: deque[str] = deque()
        self._floor = ""
        self._suspects: dict[str, int] = {}

    def check(self, record: Record) -> str:
        """Return what is wrong with a record's stage or id, or ''."""
        identity = record.entry.id
        if record.entry.stage in CLOSING:
            if self.open.pop(identity, None) is None:
                return f"{record.entry.stage} without an open intent of its id"
            return ""
        if identity in self._window:
            return "its id was used before"
        if record.entry.stage == "intent":
            self.open[identity] = record.seq
        if identity <= self._floor:
            self._suspects[identity] = record.seq
        self._window.add(identity)
        self._order.append(identity)
        if len(self._order) > _WINDOW:
            left = self._order.popleft()
            self._window.remove(left)
            self._floor = max(self._floor, left)
        return ""

    @property
    def crowded(self) -> bool:
        """Tell whether ``finish`` is due, to keep memory bounded."""
        return len(self._suspects) > _WINDOW

    def finish(self) -> Damage | None:
        """Look for the suspects among all records before them."""
        if not self._suspects:
            return None
        walk = Walk(self._folder)
        last = max(self._suspects.values())
        found: Damage | None = None
        seen: set[str] = set()
        for record in walk:
            if record.seq > last:
                break
            identity = record.entry.id
            if identity not in self._suspects or record.entry.stage in CLOSING:
                continue
            if identity in seen:
                found = _at(walk, record, "its id was used before")
                break
            seen.add(identity)
        self._suspects.clear()
        return found
