"""The record store: the journal, the inventory folded from it, and the rate of records.

Records are folded in the journal's order, each before the caller learns that the record is
durable. So everything is judged by durable records alone.

The snapshot (``broker/inventory.json``) only spares the next start a read of the whole journal. It
is replaced atomically, after a signed record describes the new content by a hash. A snapshot that no
record describes is not used, and the inventory is rebuilt from the journal (docs/decisions/0047).

The rate limit on journal records of refusals and reads (``core.enforcement.limits``).

Within its limit, each refusal or read of a peer gets its own record. Beyond the limit, one summary
record a second counts them. The response is sent after the summary is durable, at most a second
later. So every response is counted, also across a crash, and only the peer itself waits. Each peer
beyond its limit costs one task; the limit on connections bounds the waiting requests.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from controller.broker.gate.state import GateState
from controller.core.encoding.json_values import canonical_by_item
from controller.core.enforcement import limits
from controller.core.enforcement.limits import Limit, Tally
from controller.core.metrics.broker_values import of_record
from controller.core.records import checkpoint, inventory_json
from controller.core.records import inventory as inventories
from controller.core.records.parts import ActorPart, RequestPart, VerdictPart
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import JournalUnavailable
from controller.model.inventory import Inventory
from controller.model.records import ENTRY_PARTS, Entry, Record, Role
from controller.ports import RESERVED, Archive, Clock, NewId, QueuedJournal
from controller.system.durable_files import write_atomic

LOG = logging.getLogger(__name__)
#: Timeout of a write. The writer reports errors itself; this covers a disk that never answers.
WRITE_S = 30.0
#: Timeout for the open writes at the end.
SETTLE_S = 1.0
_FORMAT = 1


class LoadingEnded(Exception):
    """The broker is to end while it still reads its journal."""


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
        #: Which record ``load`` reads.
        self.reading = 0
        self._is_ending: Callable[[], bool] = bool
        #: The number of submitted entries that are not folded yet.
        self._unfolded = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def load(self, *, is_ending: Callable[[], bool] = bool) -> None:
        """Load the inventory and fold the journal. Blocks; call this before serving.

        Raises:
            LoadingEnded: *is_ending* returned True before a record was read.
        """
        self._is_ending = is_ending
        content = _read(self._snapshot)
        inventory = _parse(content)
        is_rejected = False
        if inventory is not None:
            self._saved_seq = inventory.seq
            if self.journal.pruned_inventory(known=inventory.seq) is None:
                is_rejected = not self._is_described(
                    inventory.seq, checkpoint.content_digest(content)
                )
        if inventory is None or is_rejected:
            self._saved_seq, inventory = -1, Inventory()
        inventory = self.journal.pruned_inventory(known=inventory.seq) or inventory
        described: checkpoint.DescribedInventory | None = None

        def read() -> Iterator[Record]:
            nonlocal described
            for record in self._records(inventory.seq):
                described = checkpoint.described_snapshot(record) or described
                yield record

        self._state.inventory = inventories.fold_all(inventory, read())
        if is_rejected:
            self._reject(content, described)

    def _records(self, after: int) -> Iterator[Record]:
        for record in self.journal.records(after=after):
            if self._is_ending():
                raise LoadingEnded
            self.reading = record.seq
            yield record

    def _is_described(self, seq: int, digest: str) -> bool:
        """Return True if a signed record describes the snapshot of the records up to *seq*."""
        if seq > self.journal.last_seq:
            return False
        signed = self.journal.signed_at_open or self.journal.last_seq
        for record in self._records(seq):
            described = checkpoint.described_snapshot(record)
            if described is not None and (described.until, described.digest) == (seq, digest):
                return record.seq <= signed
        return False

    def _reject(self, content: bytes, described: checkpoint.DescribedInventory | None) -> None:
        """Report a snapshot that no record describes, and move the file aside.

        *described* is from the last record of a snapshot, None without any such record.
        """
        digest = checkpoint.content_digest(content)
        # A later one must not replace the evidence of an earlier one.
        part = digest.removeprefix("sha256:")[:16]
        aside = self._snapshot.with_name(f"{self._snapshot.name}.rejected-{part}")
        reason = (
            f"{self._snapshot.name} wasn't the file that "
            f"{f'record {described.seq}' if described else 'a record'} describes: rebuilt from the "
            f"journal, and kept as {aside.name}"
        )
        LOG.error("inventory.rejected: %s", reason)
        entry = checkpoint.rejected_entry(self._state.new_id(), digest=digest, reason=reason)
        try:
            self._snapshot.rename(aside)
            record = self.journal.append(entry)
        except (OSError, JournalUnavailable) as error:
            LOG.error("inventory.rejected error=%s", error)  # noqa: TRY400 - the reason is enough
        else:
            self._state.inventory = inventories.fold(self._state.inventory, record)

    async def write(self, entry: Entry) -> Record | None:
        """Write and fold *entry*. Return the durable record, or None.

        A record is folded also after the caller was cancelled.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Record | None] = loop.create_future()

        def on_done(future: Future[Record]) -> None:  # in the journal's thread, in its order
            loop.call_soon_threadsafe(self._fold_result, entry.id, future, result)

        try:
            queued = self.journal.submit(entry)
        except ValueError as error:  # for example too long: a retry would fail too
            LOG.error("journal.unfit id=%s error=%s", entry.id, error)  # noqa: TRY400 - the reason is enough
            return None
        self._unfolded += 1
        self._idle.clear()
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
        """Fold a written record, then release the caller."""
        record = None
        self._unfolded -= 1
        if not self._unfolded:
            self._idle.set()
        try:
            record = future.result()
        except (JournalUnavailable, CancelledError) as error:
            # Only some entries may use the disk reserve. A refusal of others is no journal error.
            if getattr(error, "code", "") != RESERVED:
                self._state.health.journal_error = str(error) or "the journal is closed"
                LOG.error("journal.unavailable error=%s", error)  # noqa: TRY400 - the reason is enough
        else:
            self._state.health.journal_error = ""
            self._state.inventory = inventories.fold(self._state.inventory, record)
            for counter, number in of_record(record.entry):
                self._state.health.counted[counter] += number
            self._state.remember_time(identifier)
            if self._archive is not None:
                self._archive.wake()
        self._state.health.journal = self.journal.last_health
        if not result.done():
            result.set_result(record)

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
        """Save the snapshot unless it is up to date. A failure only makes the next start slower.

        Blocks. The record that describes the snapshot is durable before the file is replaced: after
        a crash in between, the journal still describes the previous file.
        """
        inventory = self._state.inventory
        if inventory.seq == self._saved_seq:
            return
        members = {"format": _FORMAT, "inventory": inventory_json.to_json(inventory)}
        content = canonical_by_item(members)
        digest = checkpoint.content_digest(content)
        try:
            self.journal.append(
                checkpoint.inventory_entry(self._state.new_id(), until=inventory.seq, digest=digest)
            )
            self._reach("inventory.write.before")
            write_atomic(self._snapshot, content)
        except (OSError, JournalUnavailable) as error:
            LOG.warning("inventory.unsaved error=%s", error)
            return
        self._reach("inventory.write.after")
        self._saved_seq = inventory.seq


def _read(path: Path) -> bytes:
    """Return the content of the snapshot, or nothing if the file is missing or unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        LOG.warning("inventory.unreadable error=%s: rebuilding it from the journal", error)
        return b""


def _parse(content: bytes) -> Inventory | None:
    """Return the inventory in the content of a snapshot, or None if there is no usable one."""
    if not content:
        return None
    try:
        value = json.loads(content)
        if value.get("format") == _FORMAT:
            return inventory_json.from_json(value["inventory"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        LOG.warning("inventory.unreadable error=%s: rebuilding it from the journal", error)
    return None


#: Bytes of a line besides the parts of its entry: ids, time, hashes.
FRAME_BYTES = 350
#: Whose records aren't counted.
_TRUSTED = frozenset({Role.CONTROLLER, Role.OPERATOR})
WriteEntry = Callable[[Entry], Awaitable[Record | None]]


@dataclass(frozen=True, slots=True)
class JournalShare:
    """Counts the bytes of records by uid (``guards.client_shares``)."""

    count: Callable[[int, int], None]
    is_spent: Callable[[int], bool]


UNSHARED = JournalShare(lambda _uid, _size: None, lambda _uid: False)


@dataclass(slots=True)
class _PendingSummary:
    """A peer's summary that is not written yet, and the requests that wait for the summary."""

    actor: ActorPart
    #: The digest of the policy that the last request was judged by.
    policy: str
    tally: Tally
    waiting: list[asyncio.Future[Record | None]] = field(default_factory=list)


class RecordLimiter:
    """Writes entries within the limits of their peers. Belongs to one event loop."""

    def __init__(
        self,
        write: WriteEntry,
        *,
        clock: Clock,
        new_id: NewId,
        limit: Limit,
        share: JournalShare = UNSHARED,
    ) -> None:
        self._write = write
        self._share = share
        self._clock = clock
        self._new_id = new_id
        self._limit = limit
        self._buckets: dict[int, limits.Bucket] = {}
        self._pending: dict[int, _PendingSummary] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def write(self, entry: Entry) -> Record | None:
        """Write *entry*, or count it in a summary. Return the durable record, or None."""
        actor = ActorPart.read(entry.actor)
        uid = None if actor.role == Role.BROKER else actor.uid
        if uid is not None and entry.stage in limits.LIMITED:
            now = self._clock.monotonic()
            self._buckets, is_within = limits.take(self._buckets, uid, now, self._limit)
            if not is_within or self._share.is_spent(uid):
                peer = limits.peer_of(self._buckets, uid, self._limit)
                return await self._count(peer, entry)
        record = await self._write(entry)
        if record is not None and uid is not None and actor.role not in _TRUSTED:
            self._share.count(uid, _size_of(record.entry))
        return record

    async def close(self) -> None:
        """Write all summaries now. Summaries begun later are written at once too."""
        self._closing.set()
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _count(self, peer: int, entry: Entry) -> Record | None:
        now = self._clock.now()
        summary, policy = self._pending.get(peer), VerdictPart.read(entry.verdict).policy
        if summary is None:
            tally = limits.count_record(None, entry.stage, _name_of(entry), now)
            summary = _PendingSummary(_actor_of(peer, entry), policy, tally)
            self._pending[peer] = summary
            task = asyncio.create_task(self._write_summary(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            summary.tally = limits.count_record(summary.tally, entry.stage, _name_of(entry), now)
            summary.policy = policy or summary.policy
        future: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()
        summary.waiting.append(future)
        return await future

    async def _write_summary(self, peer: int) -> None:
        """Write a peer's summary at the end of its second, and release the waiting requests."""
        try:
            async with asyncio.timeout(self._limit.summary_s):
                await self._closing.wait()
        except TimeoutError:
            pass
        summary = self._pending.pop(peer)
        record = await self._write(_summary_entry(self._new_id(), summary))
        LOG.warning(
            "journal.limited uid=%d counted=%d recorded=%s: more than %g refusals and reads a second",
            peer,
            summary.tally.total,
            record is not None,
            self._limit.per_s,
        )
        for future in summary.waiting:
            if not future.done():
                future.set_result(record)
                # One at a time, so that requests of other peers run in between.
                await asyncio.sleep(0)


def _size_of(entry: Entry) -> int:
    """Return the bytes of an entry in the journal, with about as much as a line has besides."""
    parts = [part for name in ENTRY_PARTS if (part := getattr(entry, name))]
    return len(json.dumps(parts, ensure_ascii=False).encode()) + FRAME_BYTES


def _summary_entry(record_id: str, summary: _PendingSummary) -> Entry:
    verdict = VerdictPart()
    if rules := tuple(sorted(summary.tally.refusals)):
        verdict = VerdictPart(decision="deny", rules=rules, policy=summary.policy)
    return Entry(
        record_id,
        "summary",
        actor=summary.actor.members,
        verdict=verdict.members,
        result=limits.result_of(summary.tally).members,
    )


def _actor_of(peer: int, entry: Entry) -> ActorPart:
    """Return the actor of a summary: the uid, with the role of the first counted request."""
    if peer == limits.OTHERS:
        return ActorPart(role=limits.OTHER)
    actor = ActorPart.read(entry.actor)
    return ActorPart(uid=actor.uid, role=actor.role)


def _name_of(entry: Entry) -> str:
    """Return the name to count an entry under: the first rule of a refusal, the route of a read."""
    if entry.stage == "read":
        return RequestPart.read(entry.request).route
    rules = VerdictPart.read(entry.verdict).rules
    return rules[0] if rules else limits.OTHER
