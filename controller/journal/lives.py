"""The lives of ids: an intent is closed once, by a record after it, and no id is used again."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Final

from controller.core.record import CLOSING
from controller.journal.chain import Damage, Fault, Walk
from controller.journal.scan import CLOSES, ID_BYTES, OPENS, ROW_BYTES, STANDS
from controller.model.entries import Record

#: How many ids are kept to tell two equal ones; beyond, the journal is looked at again.
_WINDOW: Final = 65_536
_OPENS, _CLOSES = ord(OPENS), ord(CLOSES)


class Lives:
    """What the records so far opened and closed.

    Ids are nearly in order (UUIDv7). One above all that left the window is new unless the window
    has it, which is exact; the few others (the clock was set back) are looked up in the journal.
    *partial*: records before the first aren't there, which may have opened what is closed here.
    """

    def __init__(self, folder: Path, *, partial: bool = False) -> None:
        self._folder = folder
        self._partial = partial
        self.open: dict[str, int] = {}
        self._window: set[str] = set()
        self._order: deque[str] = deque()
        self._floor = ""
        self._suspects: dict[str, int] = {}

    def check(self, record: Record) -> str:
        """Return what is wrong with a record's stage or id, or ''."""
        stage = record.entry.stage
        life = CLOSES if stage in CLOSING else OPENS if stage == "intent" else STANDS
        return self._check(record.seq, record.entry.id, life[0])

    def check_rows(self, first: int, rows: bytes) -> tuple[int, str]:
        """Return the seq of the first bad one of ``scan``'s rows, and why; 0 and '' if none is."""
        text = rows.decode("ascii", "replace")
        check = self._check
        for number, at in enumerate(range(0, len(rows), ROW_BYTES)):
            if reason := check(first + number, text[at : at + ID_BYTES], rows[at + ID_BYTES]):
                return first + number, reason
        return 0, ""

    def _check(self, seq: int, identity: str, life: int) -> str:
        if life == _CLOSES:
            if self.open.pop(identity, None) is None and not self._opened_before(identity):
                return "it closes no open intent of its id"
            return ""
        if identity in self._window:
            return "its id was used before"
        if life == _OPENS:
            self.open[identity] = seq
        if identity <= self._floor:
            self._suspects[identity] = seq
        self._window.add(identity)
        self._order.append(identity)
        if len(self._order) > _WINDOW:
            left = self._order.popleft()
            self._window.remove(left)
            self._floor = max(self._floor, left)
        return ""

    def _opened_before(self, identity: str) -> bool:
        """Tell whether an intent may lie before the first record; it is closed now."""
        if not self._partial or identity in self._window:
            return False
        self._window.add(identity)
        self._order.append(identity)
        return True

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
                found = damage_at(walk, "its id was used before", Fault.LIFE)
                break
            seen.add(identity)
        self._suspects.clear()
        return found


def damage_at(walk: Walk, reason: str, fault: Fault) -> Damage:
    """Return damage at the record that a walk accepted last."""
    return Damage(reason, fault, seq=walk.seq, file=walk.file, line=walk.line - 1)
