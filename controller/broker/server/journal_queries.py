"""Asking the journal for requests: one at a time, whoever asks in turn; and letting some follow it.

Answers are bounded, and so is what they cost: a question is answered beside the event loop, and
however much one uid asks, the others' questions are next. Who follows reads page by page what is
durable, at its own pace: nothing piles up for it here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus

from controller.broker.engine.relay import ClientStream, hang_up_of
from controller.broker.gate.commands import Follow, JournalNotReadable
from controller.broker.server.fair_queue import AdmissionLock
from controller.broker.server.thread_limit import ThreadLimit, ThreadsBusy
from controller.broker.wire.responses import refusal
from controller.core.records.views import Page, Question
from controller.model.errors import StateError
from controller.model.records import Reply, Role
from controller.ports import Archive

LOG = logging.getLogger(__name__)
#: How long a question waits for those before it.
WAIT_S = 10.0
#: Questions that may hang on a disk; beyond, none is begun.
HANGING_MAX = 4
#: How often it is looked whether there is more to follow, and how much is read of it at once.
LOOK_S = 0.2
PAGE = 200
DAMAGED = "journal.damaged"
NDJSON = (("content-type", "application/x-ndjson"),)
BUSY = JournalNotReadable(
    "broker.busy", "too many questions to the journal wait", "try again in a moment"
)


@dataclass(frozen=True, slots=True)
class Followers:
    """How many may follow the journal at once."""

    of_a_peer: int = 4
    #: Of clients, all together; controller and operators don't count.
    of_clients: int = 16


class JournalQueries:
    """Asks an archive. One event loop's."""

    def __init__(self, archive: Archive, *, followers: Followers = Followers()) -> None:
        self._archive = archive
        self._aside = ThreadLimit(archive.ask, threads=HANGING_MAX)
        self._turn = AdmissionLock()
        self._most = followers
        self._following: dict[tuple[Role, int], int] = {}

    async def ask(self, question: Question) -> Page | JournalNotReadable:
        """Answer a question, in turn."""
        reader = question.reader
        trusted = reader.role is not Role.CLIENT
        try:
            async with asyncio.timeout(WAIT_S):
                await self._turn.acquire(reader.uid, trusted=trusted)
        except TimeoutError:
            return BUSY
        try:
            async with asyncio.timeout(WAIT_S):
                return await self._aside(question)
        except (TimeoutError, ThreadsBusy):
            return JournalNotReadable(
                "journal.unreadable", "the disk of the journal doesn't answer"
            )
        except StateError as error:
            return JournalNotReadable(error.code, error.message, error.remedy)
        finally:
            self._turn.release()

    async def follow(self, follow: Follow, client: ClientStream) -> Reply | None:
        """Send what is wanted as it becomes durable, until either side ends it.

        Return the refusal where too many follow already.
        """
        reader = follow.question.reader
        peer = (reader.role, reader.uid)
        if not self._has_room(peer):
            return refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                "journal.followers",
                "too many follow the journal already",
                remedy="end one of yours, or ask now and then with after=SEQ",
            )
        self._following[peer] = self._following.get(peer, 0) + 1
        try:
            await client.begin(HTTPStatus.OK, NDJSON)
            async with hang_up_of(client) as gone:
                await self._feed(follow, client, gone)
        finally:
            self._following[peer] -= 1
            if not self._following[peer]:
                del self._following[peer]
        return None

    def _has_room(self, peer: tuple[Role, int]) -> bool:
        clients = sum(n for (role, _), n in self._following.items() if role is Role.CLIENT)
        full = peer[0] is Role.CLIENT and clients >= self._most.of_clients
        return not full and self._following.get(peer, 0) < self._most.of_a_peer

    async def _feed(self, follow: Follow, client: ClientStream, gone: asyncio.Event) -> None:
        question = replace(follow.question, limit=PAGE, last=False)
        looked = -1
        while not (client.gone or gone.is_set()):
            durable = self._archive.durable
            if durable == looked:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await gone.wait()
                continue
            page = await self.ask(question)
            if isinstance(page, JournalNotReadable):
                if page.code == DAMAGED:
                    return  # nothing more would ever come, and silence looks like a quiet night
                await asyncio.sleep(LOOK_S)
                continue
            for found in page.found:
                await client.send(follow.line(found))
            after = page.following or max(question.wanted.after, durable)
            question = replace(question, wanted=replace(question.wanted, after=after))
            looked = -1 if page.following else durable
