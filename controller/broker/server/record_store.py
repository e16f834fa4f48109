"""The record store: the journal, and the inventory folded from the journal.

Records are folded in the journal's order, each before the caller learns that the record is
durable. An outcome can be folded optimistically, while its write is under way: the mutation has
happened already. No intent is written on that basis before the outcome is durable
(``is_durable_since``), and a failed write rolls the inventory back (docs/decisions/0025).

The snapshot (``broker/inventory.json``) only spares the next start a read of the whole journal. It
is replaced atomically. Where snapshot and journal differ, the journal is right.
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
#: Timeout of a write. The writer reports errors itself; this covers a disk that never answers.
WRITE_S = 30.0
#: Timeout for the open writes at the end.
SETTLE_S = 1.0
_FORMAT = 1


class RecordStore:
    """Writes entries and keeps ``state.inventory`` up to date. Belongs to one event loop."""

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
        #: The inventory of durable records alone, while some entries are optimistic.
        self._confirmed = state.inventory
        #: The outcomes folded before they are durable, by id.
        self._optimistic: dict[str, tuple[Entry, asyncio.Future[Record | None]]] = {}
        #: How often an optimistic outcome was taken back.
        self.rollbacks = 0
        #: The number of submitted entries that are not folded yet.
        self._unfolded = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def load(self) -> None:
        """Load the inventory and fold the journal. Blocks; call this before serving."""
        inventory = read_snapshot(self._snapshot)
        self._saved_seq = inventory.seq
        if inventory.seq > self.journal.last_seq:
            LOG.warning(
                "inventory.ahead seq=%d journal=%d: rebuilding it from the journal",
                inventory.seq,
                self.journal.last_seq,
            )
            inventory = Inventory()
        inventory = self.journal.pruned_inventory(known=inventory.seq) or inventory
        for record in self.journal.records(after=inventory.seq):
            inventory = inventories.fold(inventory, record)
        self._state.inventory = inventory

    async def write(self, entry: Entry, *, optimistic: bool = False) -> Record | None:
        """Write and fold *entry*. Return the durable record, or None.

        A record is folded also after the caller was cancelled. An *optimistic* entry, an outcome,
        is in the inventory before the first wait.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Record | None] = loop.create_future()

        def on_done(future: Future[Record]) -> None:  # in the journal's thread, in its order
            loop.call_soon_threadsafe(self._fold_result, entry.id, future, result)

        try:
            queued = self.journal.submit(entry)
        except ValueError as error:  # for example too long: a retry would fail too
            LOG.error("journal.unfit id=%s error=%s", entry.id, error)  # noqa: TRY400 - the reason is enough
            self.rollbacks += optimistic
            return None
        self._unfolded += 1
        self._idle.clear()
        if optimistic:
            self._confirmed = self._durable
            self._optimistic[entry.id] = (entry, result)
            self._state.inventory = _fold_ahead(self._state.inventory, entry)
        queued.add_done_callback(on_done)
        try:
            async with asyncio.timeout(WRITE_S):
                return await result
        except TimeoutError:
            queued.cancel()
            self._state.health.journal_error = f"the disk took longer than {WRITE_S:g} s"
            return None

    def _fold_result(
        self, identifier: str, future: Future[Record], result: asyncio.Future[Record | None]
    ) -> None:
        """Fold a written record, or roll an optimistic one back; then release the caller."""
        self._unfolded -= 1
        if not self._unfolded:
            self._idle.set()
        durable, record = self._durable, None
        optimistic = self._optimistic.get(identifier, (None, None))[1] is result
        if optimistic:
            del self._optimistic[identifier]
        try:
            record = future.result()
        except (JournalUnavailable, CancelledError) as error:
            # Only some entries may use the disk reserve. A refusal of others is no journal error.
            if getattr(error, "code", "") != RESERVED:
                self._state.health.journal_error = str(error) or "the journal is closed"
                LOG.error("journal.unavailable error=%s", error)  # noqa: TRY400 - the reason is enough
            self.rollbacks += optimistic
        else:
            self._state.health.journal_error = ""
            durable = inventories.fold(durable, record)
            if self._archive is not None:
                self._archive.wake()
        self._confirmed = self._state.inventory = durable
        for entry, _ in self._optimistic.values():
            self._state.inventory = _fold_ahead(self._state.inventory, entry)
        self._state.health.journal = self.journal.last_health
        if not result.done():
            result.set_result(record)

    @property
    def _durable(self) -> Inventory:
        """The inventory of durable records alone."""
        return self._confirmed if self._optimistic else self._state.inventory

    async def is_durable_since(self, rollbacks: int) -> bool:
        """Wait until all optimistic outcomes are durable. Return True if none was rolled back.

        *rollbacks* is the counter ``rollbacks`` at the moment from which on none is allowed.
        """
        if self._optimistic:
            results = [result for _, result in self._optimistic.values()]
            _, late = await asyncio.wait(results, timeout=WRITE_S)
            if late:
                return False
        return self.rollbacks == rollbacks

    def refresh_health(self) -> None:
        """Copy the journal's health into the state: a journal can recover between two writes."""
        self._state.health.journal = self.journal.last_health
        if not self._unfolded:
            self._state.health.journal_error = self.journal.error
        if self._archive is not None:
            self._state.health.indexed = self._archive.indexed
            self._state.health.index_error = self._archive.error

    async def wait_until_folded(self) -> None:
        """Wait until every submitted entry is folded, including those of cancelled callers."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._idle.wait()

    def save(self) -> None:
        """Save the snapshot unless it is up to date. A failure only makes the next start slower."""
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


def _fold_ahead(inventory: Inventory, entry: Entry) -> Inventory:
    """Return the inventory after an outcome that has no record yet. ``seq`` stays the same."""
    record = Record(inventory.seq + 1, inventory.time, entry, "", "")
    return replace(inventories.fold(inventory, record), seq=inventory.seq)


def read_snapshot(path: Path) -> Inventory:
    """Return the saved inventory, or an empty one if no readable snapshot exists."""
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
