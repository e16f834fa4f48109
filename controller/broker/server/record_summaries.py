"""The rate limit on journal records of refusals and reads (``core.enforcement.record_summaries``).

Within its limit, each refusal or read of a peer gets its own record. Beyond the limit, one summary
record a second counts them. The response is sent after the summary is durable, at most a second
later. So every response is counted, also across a crash, and only the peer itself waits. Each peer
beyond its limit costs one task; the limit on connections bounds the waiting requests.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from controller.core.enforcement import record_summaries, token_buckets
from controller.core.enforcement.record_summaries import Limit, Tally
from controller.core.records.parts import ActorPart, RequestPart, VerdictPart
from controller.model.records import ENTRY_PARTS, Entry, Record, Role
from controller.ports import Clock, NewId

LOG = logging.getLogger(__name__)
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
        self._buckets: dict[int, token_buckets.Bucket] = {}
        self._pending: dict[int, _PendingSummary] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def write(self, entry: Entry) -> Record | None:
        """Write *entry*, or count it in a summary. Return the durable record, or None."""
        actor = ActorPart.read(entry.actor)
        uid = None if actor.role == Role.BROKER else actor.uid
        if uid is not None and entry.stage in record_summaries.LIMITED:
            now = self._clock.monotonic()
            self._buckets, is_within = token_buckets.take(self._buckets, uid, now, self._limit)
            if not is_within or self._share.is_spent(uid):
                peer = token_buckets.peer_of(self._buckets, uid, self._limit)
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
            tally = record_summaries.count(None, entry.stage, _name_of(entry), now)
            summary = _PendingSummary(_actor_of(peer, entry), policy, tally)
            self._pending[peer] = summary
            task = asyncio.create_task(self._write_summary(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            summary.tally = record_summaries.count(summary.tally, entry.stage, _name_of(entry), now)
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
        result=record_summaries.result_of(summary.tally).members,
    )


def _actor_of(peer: int, entry: Entry) -> ActorPart:
    """Return the actor of a summary: the uid, with the role of the first counted request."""
    if peer == token_buckets.OTHERS:
        return ActorPart(role=record_summaries.OTHER)
    actor = ActorPart.read(entry.actor)
    return ActorPart(uid=actor.uid, role=actor.role)


def _name_of(entry: Entry) -> str:
    """Return the name to count an entry under: the first rule of a refusal, the route of a read."""
    if entry.stage == "read":
        return RequestPart.read(entry.request).route
    rules = VerdictPart.read(entry.verdict).rules
    return rules[0] if rules else record_summaries.OTHER
