"""Queries of the journal for clients: one query at a time, the uids in turn; and followers.

A query runs in a thread, outside the event loop, and both its result and its cost are bounded. A
follower reads durable records page by page at its own pace, so no queue grows in the broker.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus

from controller.broker.engine.relay import ClientStream, hang_up_of
from controller.broker.gate.commands import Follow, JournalNotReadable
from controller.broker.server.thread_limit import ThreadLimit, ThreadsBusy
from controller.broker.wire import refusal
from controller.core.records.query import Page, Question
from controller.model.errors import StateError
from controller.model.records import RESTRICTED, Reply, Role
from controller.ports import Archive
from controller.system.slots import AdmissionLock, Share, Slots, SlotUser

#: How long a query waits for earlier queries.
WAIT_S = 10.0
#: Queries that hang on a disk at a time. Beyond, queries are refused.
HANGING_MAX = 4
#: Seconds between two polls of a follower, and the records of one page.
POLL_S = 0.2
PAGE = 200
DAMAGED = "journal.damaged"
NDJSON = (("content-type", "application/x-ndjson"),)
BUSY = JournalNotReadable(
    "broker.busy", "too many questions to the journal wait", "try again in a moment"
)


#: Followers at a time: of all clients together, or of all viewers, and of one uid.
FOLLOWERS = Share(16, 4)


class JournalQueries:
    """Runs queries on an archive. Belongs to one event loop."""

    def __init__(self, archive: Archive, *, followers: Share = FOLLOWERS) -> None:
        self._archive = archive
        self._threads = ThreadLimit(archive.ask, threads=HANGING_MAX)
        self._turn = AdmissionLock()
        of_others = Share(sys.maxsize, followers.of_a_user)
        shares: dict[str, Share] = {
            role: followers if role in RESTRICTED else of_others for role in Role
        }
        self._followers = Slots(shares, wait_s=0.0)

    async def ask(self, question: Question) -> Page | JournalNotReadable:
        """Run a query in turn, and return its page."""
        reader = question.reader
        trusted = reader.role not in RESTRICTED
        try:
            async with asyncio.timeout(WAIT_S):
                await self._turn.acquire(reader.uid, trusted=trusted)
        except TimeoutError:
            return BUSY
        try:
            async with asyncio.timeout(WAIT_S):
                return await self._threads(question)
        except (TimeoutError, ThreadsBusy):
            return JournalNotReadable(
                "journal.unreadable", "the disk of the journal doesn't answer"
            )
        except StateError as error:
            return JournalNotReadable(error.code, error.message, error.remedy)
        finally:
            self._turn.release()

    async def follow(self, follow: Follow, client: ClientStream) -> Reply | None:
        """Send matching records as they become durable, until either side ends the connection.

        Return a refusal if the limit of followers is reached, else None.
        """
        reader = follow.question.reader
        slot = self._followers.take_now(SlotUser(reader.role, reader.uid))
        if slot is None:
            return refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                "journal.followers",
                "too many follow the journal already",
                remedy="end one of yours, or ask now and then with after=SEQ",
            )
        try:
            await client.begin(HTTPStatus.OK, NDJSON)
            async with hang_up_of(client) as hang_up:
                await self._feed(follow, client, hang_up)
        finally:
            slot.release()
        return None

    async def _feed(self, follow: Follow, client: ClientStream, hang_up: asyncio.Event) -> None:
        question = replace(follow.question, limit=PAGE, last=False)
        sent_until = -1
        while not (client.gone or hang_up.is_set()):
            durable = self._archive.durable
            if durable == sent_until:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await hang_up.wait()
                continue
            page = await self.ask(question)
            if isinstance(page, JournalNotReadable):
                if page.code == DAMAGED:
                    return  # silence without an end would look like a quiet journal
                await asyncio.sleep(POLL_S)
                continue
            for match in page.found:
                await client.send(follow.line(match))
            # The page can hold records that became durable after *durable* was read.
            seen = page.found[-1].record.seq if page.found else 0
            after = page.following or max(question.wanted.after, durable, seen)
            question = replace(question, wanted=replace(question.wanted, after=after))
            sent_until = -1 if page.following else durable
