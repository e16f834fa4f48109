"""The lives of ids: an intent is closed once, by a record after it, and no id is used again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from controller.core.records.record import CLOSING
from controller.journal.store.chain import ChainFault, ChainWalk, Damage
from controller.journal.verify.fast_scan import CLOSES, ID_BYTES, OPENS, ROW_BYTES, STANDS
from controller.model.records import Record

#: At least so many ids are kept to tell two equal ones, and less than twice as many; beyond, the
#: journal is looked at again.
_WINDOW: Final = 65_536
_OPENS, _CLOSES = ord(OPENS), ord(CLOSES)


class IdLifetimes:
    """What the records so far opened and closed.

    Ids are nearly in order (UUIDv7). One above all that left the window is new unless the window
    has it, which is exact; the few others (the clock was set back) are looked up in the journal.
    *partial*: records before the first aren't there, which may have opened what is closed here.
    """

    def __init__(self, folder: Path, *, partial: bool = False) -> None:
        self._folder = folder
        self._partial = partial
        self.open: dict[str, int] = {}
        self._new: set[str] = set()
        self._old: set[str] = set()
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
        ids = [text[at : at + ID_BYTES] for at in range(0, len(text), ROW_BYTES)]
        lives = rows[ID_BYTES::ROW_BYTES]
        check = self._check
        fresh = [each for each, life in zip(ids, lives, strict=True) if life != _CLOSES]
        if self._are_new(fresh):
            self._remember(fresh)
            check = self._live
        for seq, each, life in zip(range(first, first + len(ids)), ids, lives, strict=True):
            if reason := check(seq, each, life):
                return seq, reason
        return 0, ""

    def _are_new(self, ids: list[str]) -> bool:
        """Tell whether none of them needs a closer look: all at once, which is fast."""
        distinct = set(ids)
        return (
            not self._partial
            and len(distinct) == len(ids)
            and distinct.isdisjoint(self._new)
            and distinct.isdisjoint(self._old)
            and min(ids, default="") > self._floor
        )

    def _check(self, seq: int, identity: str, life: int) -> str:
        if life != _CLOSES:
            if identity in self._new or identity in self._old:
                return "its id was used before"
            if identity <= self._floor:
                self._suspects[identity] = seq
            self._remember((identity,))
        return self._live(seq, identity, life)

    def _live(self, seq: int, identity: str, life: int) -> str:
        if life == _OPENS:
            self.open[identity] = seq
        elif (
            life == _CLOSES
            and self.open.pop(identity, None) is None
            and not self._opened_before(identity)
        ):
            return "it closes no open intent of its id"
        return ""

    def _remember(self, ids: Collection[str]) -> None:
        """Take ids into the window; the older half of it leaves when the newer one is full."""
        self._new.update(ids)
        if len(self._new) >= _WINDOW:
            self._floor = max(self._floor, max(self._old, default=""))
            self._old, self._new = self._new, set()

    def _opened_before(self, identity: str) -> bool:
        """Tell whether an intent may lie before the first record; it is closed now."""
        if not self._partial or identity in self._new or identity in self._old:
            return False
        self._remember((identity,))
        return True

    @property
    def crowded(self) -> bool:
        """Tell whether ``finish`` is due, to keep memory bounded."""
        return len(self._suspects) > _WINDOW

    def finish(self) -> Damage | None:
        """Look for the suspects among all records before them."""
        if not self._suspects:
            return None
        walk = ChainWalk(self._folder)
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
                found = damage_at(walk, "its id was used before", ChainFault.LIFE)
                break
            seen.add(identity)
        self._suspects.clear()
        return found


def damage_at(walk: ChainWalk, reason: str, fault: ChainFault) -> Damage:
    """Return damage at the record that a walk accepted last."""
    return Damage(reason, fault, seq=walk.seq, file=walk.file, line=walk.line - 1)
