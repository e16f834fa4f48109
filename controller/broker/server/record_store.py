"""The broker's books: the journal, and the inventory that is folded from it.

A record is folded before anybody learns that it is written, in the journal's order. An outcome may
be believed before, while it is on its way: what it says has happened. Nothing is recorded on the
strength of that before it is durable (``sure``), and it is taken back if it can't be written
(docs/decisions/0025).

The snapshot (``broker/inventory.json``) only saves reading the whole journal at the next start; it
is written whole or not at all, and the journal is always right where the two differ.
"""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from controller.broker.gate.state import GateState
from controller.core.encoding.canonical_json import canonical
from controller.core.records import inventory as inventories
from controller.core.records import inventory_json
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import JournalUnavailable
from controller.model.inventory import Inventory
from controller.model.records import Entry, Record
from controller.ports import RESERVED, Archive, QueuedJournal
from controller.system.atomic_file import write_atomic

LOG = logging.getLogger(__name__)
#: The writer gives up by itself; this is for a disk that never answers.
WRITE_S = 30.0
SETTLE_S = 1.0
_FORMAT = 1


class RecordStore:
    """Writes entries and keeps ``state.inventory`` what the journal says. One event loop's."""

    def __init__(
        self,
        journal: QueuedJournal,
        state: GateState,
        snapshot: Path,
        *,
        archive: Archive | None = None,
        reach: Reach = pass_by,
    ) -> None:
        self.journal = journal
        self._archive = archive
        self._state = state
        self._snapshot = snapshot
        self._reach = reach
        self._saved_seq = -1
        self._beneath = state.inventory  # what the records say, while more than that is believed
        self._believed: dict[str, tuple[Entry, asyncio.Future[Record | None]]] = {}
        self.doubts = 0  # how often what was believed was taken back
        self._unfolded = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def load(self) -> None:
        """Bring the inventory up to the journal's last record. Blocks; called before serving."""
        inventory = read_snapshot(self._snapshot)
        self._saved_seq = inventory.seq
        if inventory.seq > self.journal.last_seq:
            LOG.warning(
                "inventory.ahead seq=%d journal=%d: rebuilding it from the journal",
                inventory.seq,
                self.journal.last_seq,
            )
            inventory = Inventory()
        inventory = self.journal.foundation(known=inventory.seq) or inventory
        for record in self.journal.records(after=inventory.seq):
            inventory = inventories.fold(inventory, record)
        self._state.inventory = inventory

    async def write(self, entry: Entry, *, believed: bool = False) -> Record | None:
        """Make *entry* durable and fold it; None when it isn't durable.

        The record is folded also when the caller is gone meanwhile. What is *believed*, an outcome,
        is in the inventory before this waits for anything.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Record | None] = loop.create_future()

        def written(future: Future[Record]) -> None:  # in the journal's thread, in its order
            loop.call_soon_threadsafe(self._written, entry.id, future, answer)

        try:
            queued = self.journal.submit(entry)
        except ValueError as error:  # too long, say: it will never be recorded
            LOG.error("journal.unfit id=%s error=%s", entry.id, error)  # noqa: TRY400 - the reason is enough
            self.doubts += believed
            return None
        self._unfolded += 1
        self._idle.clear()
        if believed:
            self._beneath = self._durable
            self._believed[entry.id] = (entry, answer)
            self._state.inventory = _ahead(self._state.inventory, entry)
        queued.add_done_callback(written)
        try:
            async with asyncio.timeout(WRITE_S):
                return await answer
        except TimeoutError:
            queued.cancel()
            self._state.health.journal_error = f"the disk took longer than {WRITE_S:g} s"
            return None

    def _written(
        self, identifier: str, future: Future[Record], answer: asyncio.Future[Record | None]
    ) -> None:
        self._unfolded -= 1
        if not self._unfolded:
            self._idle.set()
        durable, record = self._durable, None
        believed = self._believed.get(identifier, (None, None))[1] is answer
        if believed:
            del self._believed[identifier]
        try:
            record = future.result()
        except (JournalUnavailable, CancelledError) as error:
            # What may not use the last of the disk is refused, and the journal is well.
            if getattr(error, "code", "") != RESERVED:
                self._state.health.journal_error = str(error) or "the journal is closed"
                LOG.error("journal.unavailable error=%s", error)  # noqa: TRY400 - the reason is enough
            self.doubts += believed
        else:
            self._state.health.journal_error = ""
            durable = inventories.fold(durable, record)
            if self._archive is not None:
                self._archive.wake()
        self._beneath = self._state.inventory = durable
        for entry, _ in self._believed.values():
            self._state.inventory = _ahead(self._state.inventory, entry)
        self._state.health.journal = self.journal.vitals
        if not answer.done():
            answer.set_result(record)

    @property
    def _durable(self) -> Inventory:
        """What the records say."""
        return self._beneath if self._believed else self._state.inventory

    async def sure(self, doubts: int) -> bool:
        """Wait until what is believed now is durable; tell whether all has been since *doubts*."""
        if self._believed:
            answers = [answer for _, answer in self._believed.values()]
            _, late = await asyncio.wait(answers, timeout=WRITE_S)
            if late:
                return False
        return self.doubts == doubts

    def look_up(self) -> None:
        """Take note of how the journal is: it mends itself also while nothing is written."""
        self._state.health.journal = self.journal.vitals
        if not self._unfolded:
            self._state.health.journal_error = self.journal.error
        if self._archive is not None:
            self._state.health.indexed = self._archive.indexed
            self._state.health.index_error = self._archive.error

    async def settled(self) -> None:
        """Wait until all that was submitted is folded, also what nobody waits for any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._idle.wait()

    def save(self) -> None:
        """Write the snapshot, unless it is up to date. A failure costs time at the next start."""
        inventory = self._durable
        if inventory.seq == self._saved_seq:
            return
        self._reach("inventory.write.before")
        try:
            write_snapshot(self._snapshot, inventory)
        except OSError as error:
            LOG.warning("inventory.unsaved error=%s", error)
            return
        self._reach("inventory.write.after")
        self._saved_seq = inventory.seq


def _ahead(inventory: Inventory, entry: Entry) -> Inventory:
    """Return the inventory as it will be after an outcome; it is as of the same record."""
    record = Record(inventory.seq + 1, inventory.time, entry, "", "")
    return replace(inventories.fold(inventory, record), seq=inventory.seq)


def read_snapshot(path: Path) -> Inventory:
    """Return the saved inventory, or an empty one where there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
        if value.get("format") == _FORMAT:
            return inventory_json.from_json(value["inventory"])
    except FileNotFoundError:
        return Inventory()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        LOG.warning("inventory.unreadable error=%s: rebuilding it from the journal", error)
    return Inventory()


def write_snapshot(path: Path, inventory: Inventory) -> None:
    """Replace the saved inventory durably.

    Raises:
        OSError: the inventory is not written.
    """
    value = {"format": _FORMAT, "inventory": inventory_json.to_json(inventory)}
    write_atomic(path, canonical(value))
