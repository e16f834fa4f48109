"""One client's connection: requests in, answers out, one after the other.

The peer is asked for once, of the kernel, when it connects. Every wait for it has an end: a head
must come within 10 s of its first byte, a body within 30 s of its head, and a connection that
says nothing is closed after two minutes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from controller.broker.engine.relay import ClientStream, relay
from controller.broker.gate.commands import Follow
from controller.broker.gate.journal_entries import request_of, verdict_of
from controller.broker.gate.router import body_limit
from controller.broker.gate.state import GateState
from controller.broker.handlers import container_exec
from controller.broker.host.peer_credentials import Peer, PeerRules, Stranger, identify
from controller.broker.server.driver import Driver, OpenResponse, RequestFlow
from controller.broker.server.fair_queue import FairQueue
from controller.broker.server.journal_queries import JournalQueries
from controller.broker.wire.request_reader import Malformed, ParsedRequest, RequestReader
from controller.broker.wire.responses import CONTINUE, refusal, reply_bytes
from controller.model.crashpoints import Reach, pass_by
from controller.model.desired.plan import Verdict
from controller.model.records import Actor, Entry, Reply, Request

LOG = logging.getLogger(__name__)
READ_BYTES = 64 * 1024
READS = frozenset({"GET", "HEAD", "OPTIONS"})
CONTEXT_HEADER = "trimtab-context"


@dataclass(frozen=True, slots=True)
class ConnectionTimeouts:
    """How long a connection waits for its client, in seconds, and what it drains at its end."""

    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 120.0
    write_s: float = 30.0
    linger_s: float = 2.0
    linger_bytes: int = 4 * 1024 * 1024


#: The gate: a request and what the broker knows, to the steps that answer it.
HandleRequest = Callable[[Request, GateState], RequestFlow]


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """What all connections share."""

    driver: Driver
    handle: HandleRequest
    state: GateState
    rules: Callable[[], PeerRules]
    turns: FairQueue
    asking: JournalQueries
    patience: ConnectionTimeouts = ConnectionTimeouts()
    reach: Reach = pass_by


def _status_of(answer: Reply | OpenResponse | Follow) -> int:
    match answer:
        case Reply(status):
            return status
        case OpenResponse(stream, _):
            return stream.status
        case Follow():
            return HTTPStatus.OK


class Connection:
    """Serves one client. ``busy`` tells that an answer is due: then it isn't cut off at once.

    While *crowded* says that others wait for its place, it ends after each answer.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        peer: Peer,
        service: ConnectionContext,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.busy = False
        self.closing = False
        self._reader = reader
        self._writer = writer
        self._peer = peer
        self._driver = service.driver
        self._handle = service.handle
        self._state = service.state
        self._rules = service.rules
        self._patience = service.patience
        self._reach = service.reach
        self._turns = service.turns
        self._asking = service.asking
        self._crowded = crowded
        self._requests = RequestReader(body_limit)
        self._ahead: asyncio.Task[bytes] | None = None

    async def serve(self) -> None:
        """Serve requests until either side ends it; what the client doesn't read is let go then.

        The connection counts until it is really gone: else clients that never read would hold
        more of them, and more answers, than anybody may.
        """
        await self._serve()
        self.busy = False
        try:
            async with asyncio.timeout(self._patience.write_s):
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()

    async def _serve(self) -> None:
        try:
            while not self.closing:
                framed = await self._next()
                if framed is None:
                    return
                if isinstance(framed, Malformed):
                    await self._refuse(framed, None)
                    return
                self.busy = True
                if not await self._serve_one(framed):
                    return
                self.busy = False
        except OSError:
            return  # the client is gone
        finally:
            if self._ahead is not None:
                self._ahead.cancel()
            self._writer.close()

    async def _next(self) -> ParsedRequest | Malformed | None:
        """Read one request; None when the client has nothing more to say."""
        patience = self._patience
        try:
            async with asyncio.timeout(patience.idle_s):
                if not await self._more():
                    return None
        except TimeoutError:
            return None
        await self._turns.take(self._peer.uid)
        try:
            async with asyncio.timeout(patience.head_s):
                while (found := self._requests.poll()) is None and not self._requests.head_complete:
                    if not await self._more():
                        return Malformed("wire.incomplete", "the request broke off in its head")
            if self._requests.wants_continue:
                self._writer.write(CONTINUE)
            async with asyncio.timeout(patience.body_s):
                while found is None:
                    if not await self._more():
                        return Malformed("wire.incomplete", "the request broke off in its body")
                    found = self._requests.poll()
        except TimeoutError:
            return Malformed("wire.slow", "the request didn't come in time", 408)
        return found

    async def _more(self) -> bool:
        ahead, self._ahead = self._ahead, None
        data = await (ahead or self._reader.read(READ_BYTES))
        self._requests.feed(data)
        return bool(data)

    async def _serve_one(self, framed: ParsedRequest) -> bool:
        """Answer one request; tell whether another may follow."""
        claims = any(name == CONTEXT_HEADER for name, _ in framed.headers)
        actor = identify(self._peer, self._rules(), claims_controller=claims)
        if isinstance(actor, Stranger):
            await self._refuse(actor, framed)
            return False
        mutates = framed.method not in READS
        reach = self._reach if mutates else pass_by
        reach("client.receive.before")
        if not framed.upgrade:
            self._ahead = asyncio.ensure_future(self._reader.read(READ_BYTES))
        client = ClientStream(
            self._reader,
            self._writer,
            chunked=framed.version == "1.1",
            keep_alive=framed.keep_alive and not framed.upgrade,
            upgrade=framed.upgrade,
            early=self._requests.rest() if framed.upgrade else b"",
            ahead=self._ahead,
        )
        request = Request(
            method=framed.method,
            path=framed.path,
            query=framed.query,
            headers=framed.headers,
            body=framed.body,
            actor=actor,
        )
        reach("client.receive.after")
        answer = await self._answer(request, client, admits=mutates)
        if isinstance(answer, Follow | OpenResponse):
            self.busy = False  # a stream is cut when the broker stops; nothing is lost with it
        if isinstance(answer, Follow):
            await self._follow(answer, client)
        elif isinstance(answer, OpenResponse):
            await self._relay(answer, client)
        elif client.began:
            await self._end_stream(answer, client)
        else:
            reach("client.send.before")
            await self._send(answer, to_head=framed.method == "HEAD", client=client)
            reach("client.send.after")
        return client.keep_alive and not client.gone

    async def _follow(self, follow: Follow, client: ClientStream) -> None:
        """Let the journal be followed until either side ends it."""
        client.keep_alive = False
        refused = await self._asking.follow(follow, client)
        if refused is not None:
            await self._send(refused, to_head=False, client=client)

    async def _relay(self, handed: OpenResponse, client: ClientStream) -> None:
        """Relay an answer to its end; what an exec came to is recorded at once."""
        command = handed.relay
        if not command.exec:
            await relay(handed.stream, client, keep=command.keep)
            return
        self._state.execs.attached.add(command.exec)
        try:
            await relay(handed.stream, client, within_s=command.within_s)
        finally:
            self._state.execs.attached.discard(command.exec)
        client.keep_alive = False
        await self._driver.run(container_exec.supervise(self._state, command.exec))

    async def _answer(
        self, request: Request, client: ClientStream, *, admits: bool
    ) -> Reply | OpenResponse | Follow:
        started = self._state.clock.monotonic()
        try:
            answer = await self._driver.drive(
                partial(self._handle, request, self._state),
                client,
                admits=request.actor if admits else None,
            )
        except Exception:
            LOG.exception("request.failed method=%s path=%s", request.method, request.path)
            client.keep_alive = False
            reason = "the broker failed at this request; its log says why"
            answer = refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "broker.failed", reason)
        status = _status_of(answer)
        LOG.log(
            logging.INFO if admits or status >= HTTPStatus.BAD_REQUEST else logging.DEBUG,
            "request method=%s path=%s status=%d role=%s uid=%d ms=%d",
            request.method,
            request.path,
            status,
            request.actor.role.value,
            request.actor.uid,
            round((self._state.clock.monotonic() - started) * 1000),
        )
        return answer

    async def _send(self, reply: Reply, *, to_head: bool, client: ClientStream) -> None:
        client.end_if_interrupted()
        client.keep_alive = client.keep_alive and not self.closing and not self._crowded()
        raw = reply_bytes(reply, to_head=to_head, keep_alive=client.keep_alive)
        try:
            async with asyncio.timeout(self._patience.write_s):
                await client.write(raw)
        except TimeoutError:
            client.gone = True

    async def _end_stream(self, answer: Reply, client: ClientStream) -> None:
        """End an answer that was relayed while it came; what the gate says at last follows it."""
        try:
            async with asyncio.timeout(self._patience.write_s):
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    await client.send(answer.body + b"\r\n")
                client.end_if_interrupted()
                await client.finish()
        except TimeoutError:
            client.gone = True

    async def _refuse(self, refused: Malformed | Stranger, framed: ParsedRequest | None) -> None:
        """Record a refusal of the shell's own, answer it and end the connection."""
        identifier = self._state.new_id()
        status = refused.status if isinstance(refused, Malformed) else HTTPStatus.FORBIDDEN
        record = await self._driver.write(self._refusal_entry(identifier, refused, framed))
        if record is None:
            self._state.health.unrecorded_refusals += 1
        else:
            identifier = record.entry.id  # of the summary, where only that counts it
        LOG.info("refused rule=%s uid=%d pid=%d", refused.rule, self._peer.uid, self._peer.pid)
        reply = refusal(
            status, refused.rule, refused.reason, remedy=refused.remedy, record=identifier
        )
        to_head = framed.method == "HEAD" if framed else self._requests.asks_for_a_head
        self._writer.write(reply_bytes(reply, to_head=to_head, keep_alive=False))
        await self._linger()

    def _refusal_entry(
        self, identifier: str, refused: Malformed | Stranger, framed: ParsedRequest | None
    ) -> Entry:
        peer = self._peer
        actor = identify(peer, self._rules(), claims_controller=False)
        role = actor.role.value if isinstance(actor, Actor) else "none"
        request = request_of(framed.method, "", framed.path, {}) if framed else {}
        return Entry(
            identifier,
            "refusal",
            actor={"uid": peer.uid, "gid": peer.gid, "pid": peer.pid, "role": role},
            request=request,
            verdict=verdict_of(Verdict("deny", (refused.rule,)), self._state.policy.digest),
        )

    async def _linger(self) -> None:
        """Read what the client still sends, a while: closing at once would cut its answer off."""
        left = self._patience.linger_bytes
        try:
            if self._writer.can_write_eof():
                self._writer.write_eof()
            async with asyncio.timeout(self._patience.linger_s):
                await self._writer.drain()
                while left > 0 and (data := await self._reader.read(READ_BYTES)):
                    left -= len(data)
        except (TimeoutError, OSError):
            return
