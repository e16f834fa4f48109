"""Check record ids: each intent is closed once, by a later record, and has a new id.

A record of the stage ``operator`` can have the id of an earlier intent: the end of an exec has the id of
the start, and the end of a job's run the id of the create.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from controller.core.records.record import CLOSING
from controller.journal.store.chain import ChainFault, ChainWalk, Damage
from controller.journal.verify.fast_scan import CLOSES, FOLLOWS, ID_BYTES, OPENS, ROW_BYTES, STANDS
from controller.model.records import Record

#: Ids in the newer half of the window that finds reused ids; the journal is read again for others.
_WINDOW: Final = 65_536
_OPENS, _CLOSES, _FOLLOWS = ord(OPENS), ord(CLOSES), ord(FOLLOWS)
_LIVES: Final = {"intent": OPENS, "operator": FOLLOWS}


class IdLifetimes:
    """The ids and open intents of the records so far.

    Ids are nearly in order (UUIDv7). An id above all ids that left the window is new unless the
    window contains the id; this test is exact. The few other ids (after the clock was set back) are
    looked up in the journal.

    With *partial*, earlier records are missing, and can have opened the intents closed here.
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
        """Return the fault in a record's stage or id, or ''."""
        stage = record.entry.stage
        life = CLOSES if stage in CLOSING else _LIVES.get(stage, STANDS)
        return self._check(record.seq, record.entry.id, life[0])

    def check_rows(self, first: int, rows: bytes) -> tuple[int, str]:
        """Return seq and fault of the first bad row of ``fast_scan``, or 0 and ''."""
        text = rows.decode("ascii", "replace")
        ids = [text[at : at + ID_BYTES] for at in range(0, len(text), ROW_BYTES)]
        lives = rows[ID_BYTES::ROW_BYTES]
        check = self._check
        opened = [each for each, life in zip(ids, lives, strict=True) if life != _CLOSES]
        if self._are_new(opened):
            self._remember(opened)
            check = self._check_intent
        for seq, each, life in zip(range(first, first + len(ids)), ids, lives, strict=True):
            if reason := check(seq, each, life):
                return seq, reason
        return 0, ""

    def _are_new(self, ids: list[str]) -> bool:
        """Return True if all *ids* are certainly new: one fast test for a whole segment."""
        distinct = set(ids)
        return (
            not self._partial
            and len(distinct) == len(ids)
            and distinct.isdisjoint(self._new)
            and distinct.isdisjoint(self._old)
            and min(ids, default="") > self._floor
        )

    def _check(self, seq: int, identity: str, life: int) -> str:
        known = identity in self._new or identity in self._old
        if life not in {_CLOSES, _FOLLOWS}:
            if known:
                return "its id was used before"
            if identity <= self._floor:
                self._suspects[identity] = seq
        if life != _CLOSES and not known:
            self._remember((identity,))
        return self._check_intent(seq, identity, life)

    def _check_intent(self, seq: int, identity: str, life: int) -> str:
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
        """Add ids to the window; its older half is dropped once the newer half is full."""
        self._new.update(ids)
        if len(self._new) >= _WINDOW:
            self._floor = max(self._floor, max(self._old, default=""))
            self._old, self._new = self._new, set()

    def _opened_before(self, identity: str) -> bool:
        """Return True if the intent can lie before the first record; the id counts as used now."""
        if not self._partial or identity in self._new or identity in self._old:
            return False
        self._remember((identity,))
        return True

    @property
    def crowded(self) -> bool:
        """True if ``finish`` is due, to keep memory bounded."""
        return len(self._suspects) > _WINDOW

    def finish(self) -> Damage | None:
        """Look up the suspect ids in the journal; return the damage of a reused id, or None."""
        if not self._suspects:
            return None
        walk = ChainWalk(self._folder)
        last = max(self._suspects.values())
        damage: Damage | None = None
        earlier: set[str] = set()
        for record in walk:
            if record.seq > last:
                break
            identity = record.entry.id
            if identity not in self._suspects or record.entry.stage in CLOSING:
                continue
            if identity in earlier and record.entry.stage != "operator":
                damage = damage_at(walk, "its id was used before", ChainFault.LIFE)
                break
            earlier.add(identity)
        self._suspects.clear()
        return damage


def damage_at(walk: ChainWalk, reason: str, fault: ChainFault) -> Damage:
    """Return damage at the last accepted record of a walk."""
    return Damage(reason, fault, seq=walk.seq, file=walk.file, line=walk.line - 1)
