"""What goes to the journal of refusals and reads: one by one, or counted (``core.enforcement.rate_limit``).

Beyond its limit a peer still gets its answer, but only after the summary that counts it is durable:
at most a second later. So what was answered was counted, also across a crash, and whoever asks
for more than it may waits, at its own cost. One task a peer that is beyond its limit, one record of
it a second; the requests that wait are bounded by the connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from controller.core.enforcement import rate_limit
from controller.core.enforcement.rate_limit import Bucket, Limit, Tally
from controller.model.records import Entry, Record, Role
from controller.ports import Clock, NewId

LOG = logging.getLogger(__name__)
WriteEntry = Callable[[Entry], Awaitable[Record | None]]


@dataclass(slots=True)
class _Counting:
    """One peer's summary that isn't written yet, and who waits for it."""

    actor: dict[str, object]
    policy: object  # digest of the one that judged last
    tally: Tally
    waiting: list[asyncio.Future[Record | None]] = field(default_factory=list)


class RecordLimiter:
    """Writes entries, within the limits of their peers. One event loop's."""

    def __init__(self, write: WriteEntry, *, clock: Clock, new_id: NewId, limit: Limit) -> None:
        self._write = write
        self._clock = clock
        self._new_id = new_id
        self._limit = limit
        self._buckets: dict[int, Bucket] = {}
        self._counting: dict[int, _Counting] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def write(self, entry: Entry) -> Record | None:
        """Make *entry* durable, or the summary that counts it: return that record.

        None when it isn't durable.
        """
        uid = entry.actor.get("uid")
        own = entry.actor.get("role") == Role.BROKER
        if entry.stage not in rate_limit.LIMITED or own or not isinstance(uid, int):
            return await self._write(entry)
        now = self._clock.monotonic()
        self._buckets, enough = rate_limit.spend(self._buckets, uid, now, self._limit)
        if enough:
            return await self._write(entry)
        return await self._count(rate_limit.peer_of(self._buckets, uid, self._limit), entry)

    async def close(self) -> None:
        """Write all summaries now; from here on none waits for its second."""
        self._closing.set()
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _count(self, peer: int, entry: Entry) -> Record | None:
        now = self._clock.now()
        counting = self._counting.get(peer)
        if counting is None:
            tally = rate_limit.count(None, entry.stage, _name_of(entry), now)
            counting = _Counting(_told(peer, entry), entry.verdict.get("policy"), tally)
            self._counting[peer] = counting
            task = asyncio.create_task(self._sum_up(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            counting.tally = rate_limit.count(counting.tally, entry.stage, _name_of(entry), now)
            counting.policy = entry.verdict.get("policy") or counting.policy
        answer: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()
        counting.waiting.append(answer)
        return await answer

    async def _sum_up(self, peer: int) -> None:
        """Write a peer's summary once its second is over, and let go who waits for it."""
        try:
            async with asyncio.timeout(self._limit.summary_s):
                await self._closing.wait()
        except TimeoutError:
            pass
        counting = self._counting.pop(peer)
        record = await self._write(_summary(self._new_id(), counting))
        LOG.warning(
            "journal.limited uid=%d counted=%d recorded=%s: more than %g refusals and reads a second",
            peer,
            counting.tally.total,
            record is not None,
            self._limit.per_s,
        )
        for answer in counting.waiting:
            if not answer.done():
                answer.set_result(record)
                # One at a time: what others ask meanwhile doesn't wait for all of these.
                await asyncio.sleep(0)


def _summary(identifier: str, counting: _Counting) -> Entry:
    rules = sorted(counting.tally.refusals)
    verdict: dict[str, object] = {"decision": "deny", "rules": rules, "policy": counting.policy}
    return Entry(
        identifier,
        "summary",
        actor=counting.actor,
        verdict=verdict if rules else {},
        result=rate_limit.result_of(counting.tally),
    )


def _told(peer: int, entry: Entry) -> dict[str, object]:
    """Return whom a summary is about: a uid, in the role in which it asked first."""
    if peer == rate_limit.OTHERS:
        return {"role": rate_limit.OTHER}
    return {name: entry.actor[name] for name in ("uid", "role") if name in entry.actor}


def _name_of(entry: Entry) -> str:
    """Return what an entry is counted under: the leading rule of a refusal, the route of a read."""
    if entry.stage == "read":
        return str(entry.request.get("route", ""))
    rules = entry.verdict.get("rules")
    return str(rules[0]) if isinstance(rules, list) and rules else rate_limit.OTHER
