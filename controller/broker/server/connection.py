"""One client's connection: requests in, responses out, in sequence.

The kernel reports the peer once, at the connect. Every wait for the client has a timeout: 10 s for
a head after its first byte, 30 s for a body after its head, and two minutes for the next request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus

from controller.broker.engine.relay import ClientStream, relay
from controller.broker.gate import context_header
from controller.broker.gate.commands import Follow
from controller.broker.gate.journal_entries import request_of, verdict_of
from controller.broker.gate.router import body_limit, may_be_large
from controller.broker.gate.state import GateState
from controller.broker.guards import client_shares
from controller.broker.handlers import container_exec
from controller.broker.host.peer_credentials import Peer, PeerRules, UnknownPeer, identify
from controller.broker.server.driver import Driver, OpenResponse, RequestFlow
from controller.broker.server.journal_queries import JournalQueries
from controller.broker.wire.request_reader import Head, Malformed, ParsedRequest, RequestReader
from controller.broker.wire.responses import CONTINUE, error_line, refusal, reply_bytes
from controller.broker.wire.streamed_body import StreamedBody
from controller.core.records.parts import ActorPart
from controller.model.crashpoints import Reach, pass_by
from controller.model.records import Actor, Entry, Reply, Request, Verdict
from controller.system.slots import FairQueue, Slots, SlotUser

LOG = logging.getLogger(__name__)
READ_BYTES = 64 * 1024
READS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class ConnectionTimeouts:
    """Timeouts of a connection, in seconds, and the limit of the read after a refusal."""

    #: From the first byte of a head to its end.
    head_s: float = 10.0
    #: From the end of the head to the end of the body.
    body_s: float = 30.0
    #: From a response to the first byte of the next request.
    idle_s: float = 120.0
    #: For the client to read a response.
    write_s: float = 30.0
    #: For the read after a refusal (``_linger``).
    linger_s: float = 2.0
    linger_bytes: int = 4 * 1024 * 1024


#: The gate: from a request and the broker's state to the flow that answers the request.
HandleRequest = Callable[[Request, GateState], RequestFlow]


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """The parts that all connections share."""

    driver: Driver
    handle: HandleRequest
    state: GateState
    rules: Callable[[], PeerRules]
    queue: FairQueue
    queries: JournalQueries
    #: Reads with a large answer at a time.
    answers: Slots
    timeouts: ConnectionTimeouts = ConnectionTimeouts()
    reach: Reach = pass_by


@dataclass(frozen=True, slots=True)
class UnknownPeerRequest:
    """The head of a request whose peer has no role. Its body isn't read."""

    refused: UnknownPeer
    head: Head


def _status_of(answer: Reply | OpenResponse | Follow) -> int:
    match answer:
        case Reply(status):
            return status
        case OpenResponse(stream, _):
            return stream.status
        case Follow():
            return HTTPStatus.OK


class Connection:
    """Serves one client.

    While *is_slot_wanted* returns True, another client waits for the slot of this connection, and
    the connection ends after each response.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        peer: Peer,
        user: SlotUser,
        context: ConnectionContext,
        is_slot_wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        #: True while a response is due: the end of the broker waits for it.
        self.busy = False
        #: Set at the end of the broker: no further request is read.
        self.closing = False
        self._reader = reader
        self._writer = writer
        self._peer = peer
        self._user = user
        self._context = context
        self._driver = context.driver
        self._state = context.state
        self._timeouts = context.timeouts
        self._is_slot_wanted = is_slot_wanted
        self._requests = RequestReader(body_limit)
        #: The read that runs while a request is answered.
        self._ahead: asyncio.Task[bytes] | None = None

    async def serve(self) -> None:
        """Serve requests until either side ends the connection. Drop responses left unread.

        The connection keeps its slot until the socket is closed. Otherwise clients that never
        read could hold more connections, and more responses, than the limits allow.
        """
        await self._serve()
        self.busy = False
        try:
            async with asyncio.timeout(self._timeouts.write_s):
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()

    async def _serve(self) -> None:
        try:
            while not self.closing:
                parsed = await self._read_request()
                if parsed is None:
                    return
                if isinstance(parsed, Malformed):
                    await self._refuse(parsed, None)
                    return
                self.busy = True
                if isinstance(parsed, UnknownPeerRequest):
                    await self._refuse(parsed.refused, parsed.head)
                    return
                if not await self._serve_one(parsed):
                    return
                self.busy = False
        except OSError:
            return  # the client hung up
        finally:
            if self._ahead is not None:
                self._ahead.cancel()
            self._writer.close()

    async def _read_request(self) -> ParsedRequest | Malformed | UnknownPeerRequest | None:
        """Read one request. Return None at the end of the connection or after the idle timeout.

        Return an UnknownPeerRequest after the head of a peer without a role.
        """
        timeouts = self._timeouts
        try:
            async with asyncio.timeout(timeouts.idle_s):
                if not await self._feed():
                    return None
        except TimeoutError:
            return None
        await self._context.queue.take(self._peer.uid)
        try:
            head = self._requests.poll_head() or await self._read_head()
            if isinstance(head, Malformed):
                return head
            actor = self._identify(head)
            if isinstance(actor, UnknownPeer):
                return UnknownPeerRequest(actor, head)
            return await self._read_body()
        except TimeoutError:
            return Malformed("wire.slow", "the request didn't come in time", 408)

    async def _read_head(self) -> Head | Malformed:
        """Read the rest of a head. Raises TimeoutError."""
        async with asyncio.timeout(self._timeouts.head_s):
            while (head := self._requests.poll_head()) is None:
                if not await self._feed():
                    return Malformed("wire.incomplete", "the request broke off in its head")
        return head

    async def _read_body(self) -> ParsedRequest | Malformed:
        """Read the body of a request with a head. Raises TimeoutError."""
        if self._requests.wants_continue:
            self._writer.write(CONTINUE)
        if (request := self._requests.poll()) is not None:
            return request  # it arrived with the head, as most do
        async with asyncio.timeout(self._timeouts.body_s):
            while (request := self._requests.poll()) is None:
                if not await self._feed():
                    return Malformed("wire.incomplete", "the request broke off in its body")
                await asyncio.sleep(0)  # the next bytes of a long body may be there already
        # Bodies that end at the same time are judged one after the other.
        await asyncio.sleep(0)  # checking a long body took its time already
        await self._context.queue.take(self._peer.uid)
        return request

    def _identify(self, parsed: Head | ParsedRequest) -> Actor | UnknownPeer:
        claims = any(name == context_header.HEADER for name, _ in parsed.headers)
        return identify(self._peer, self._context.rules(), claims_controller=claims)

    async def _feed(self) -> bool:
        """Read once and feed the parser. Return False at the end of the client's side."""
        ahead, self._ahead = self._ahead, None
        data = await (ahead or self._reader.read(READ_BYTES))
        self._requests.feed(data)
        return bool(data)

    async def _serve_one(self, parsed: ParsedRequest) -> bool:
        """Answer one request. Return True if the connection stays open for another request."""
        actor = self._identify(parsed)
        if isinstance(actor, UnknownPeer):  # the policy changed since the head
            await self._refuse(actor, parsed)
            return False
        mutates = parsed.method not in READS
        reach = self._context.reach if mutates else pass_by
        reach("client.receive.before")
        streamed = parsed.streamed
        if not parsed.upgrade and streamed is None:
            self._ahead = asyncio.ensure_future(self._reader.read(READ_BYTES))
        client = ClientStream(
            self._reader,
            self._writer,
            chunked=parsed.version == "1.1",
            keep_alive=parsed.keep_alive and not parsed.upgrade,
            upgrade=parsed.upgrade,
            early=self._requests.rest() if parsed.upgrade else b"",
            ahead=self._ahead,
            body=None if streamed is None else StreamedBody(streamed),
        )
        request = Request(
            method=parsed.method,
            path=parsed.path,
            query=parsed.query,
            headers=parsed.headers,
            body=parsed.body,
            actor=actor,
        )
        reach("client.receive.after")
        with ExitStack() as held:
            answer = await self._answer(request, client, held, admits=mutates)
            await self._give(answer, client, reach, to_head=parsed.method == "HEAD")
        if client.body is not None and not client.body.complete:
            await self._linger()
        return client.keep_alive and not client.gone

    async def _give(
        self,
        answer: Reply | OpenResponse | Follow,
        client: ClientStream,
        reach: Reach,
        *,
        to_head: bool,
    ) -> None:
        """Send or relay an answer to its end."""
        if isinstance(answer, Follow | OpenResponse):
            self.busy = False  # the end of the broker cuts streams, without a loss
        if isinstance(answer, Follow):
            await self._follow(answer, client)
        elif isinstance(answer, OpenResponse):
            await self._relay(answer, client)
        elif client.began:
            await self._end_stream(answer, client)
        else:
            reach("client.send.before")
            await self._send(answer, to_head=to_head, client=client)
            reach("client.send.after")

    async def _follow(self, follow: Follow, client: ClientStream) -> None:
        """Send new journal records until either side ends the connection."""
        client.keep_alive = False
        reply = await self._context.queries.follow(follow, client)
        if reply is not None:
            await self._send(reply, to_head=False, client=client)

    async def _relay(self, response: OpenResponse, client: ClientStream) -> None:
        """Relay a response to its end. Record the result of an exec session at once."""
        command = response.relay
        if not command.exec:
            await relay(response.stream, client, edit_line=command.edit_line)
            return
        self._state.execs.attached.add(command.exec)
        try:
            await relay(response.stream, client, within_s=command.within_s)
        finally:
            self._state.execs.attached.discard(command.exec)
        client.keep_alive = False
        await self._driver.run(container_exec.supervise(self._state, command.exec))

    async def _answer(
        self, request: Request, client: ClientStream, held: ExitStack, *, admits: bool
    ) -> Reply | OpenResponse | Follow:
        """Return the answer. *held* has the slot of a large answer, until the answer is sent."""
        started = self._state.clock.monotonic()
        if admits:
            beyond = not client_shares.take_mutation(self._state, request.actor)
            request = replace(request, is_beyond_share=beyond)
        elif may_be_large(request.method, request.path):
            slot = await self._context.answers.take(self._user)
            if slot is None:
                return refusal(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "broker.busy",
                    "too many reads of yours wait for the engine or are being sent",
                    remedy="read the answers, ask for fewer at a time, or try again",
                )
            held.callback(slot.release)
        try:
            answer = await self._driver.drive(
                partial(self._context.handle, request, self._state),
                client,
                admits=request.actor if admits else None,
                user=self._user,
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
        client.keep_alive = client.keep_alive and not self.closing and not self._is_slot_wanted()
        raw = reply_bytes(reply, to_head=to_head, keep_alive=client.keep_alive)
        try:
            async with asyncio.timeout(self._timeouts.write_s):
                await client.write(raw)
        except TimeoutError:
            client.gone = True

    async def _end_stream(self, answer: Reply, client: ClientStream) -> None:
        """End a response relayed during the pull. An error of the gate is the last line."""
        try:
            async with asyncio.timeout(self._timeouts.write_s):
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    await client.send(error_line(answer) + b"\r\n")
                elif client.body is not None:
                    await client.send(answer.body + b"\r\n")
                client.end_if_interrupted()
                await client.finish()
        except TimeoutError:
            client.gone = True

    async def _refuse(
        self, refused: Malformed | UnknownPeer, parsed: Head | ParsedRequest | None
    ) -> None:
        """Record a refusal made before the gate, send it and end the connection."""
        record_id = self._state.new_id()
        status = refused.status if isinstance(refused, Malformed) else HTTPStatus.FORBIDDEN
        record = await self._driver.write(self._refusal_entry(record_id, refused, parsed))
        if record is None:
            self._state.health.unrecorded_refusals += 1
        else:
            record_id = record.entry.id  # a summary has another id
        LOG.info("refused rule=%s uid=%d pid=%d", refused.rule, self._peer.uid, self._peer.pid)
        reply = refusal(
            status, refused.rule, refused.reason, remedy=refused.remedy, record=record_id
        )
        to_head = parsed.method == "HEAD" if parsed else self._requests.asks_for_a_head
        self._writer.write(reply_bytes(reply, to_head=to_head, keep_alive=False))
        await self._linger()

    def _refusal_entry(
        self,
        record_id: str,
        refused: Malformed | UnknownPeer,
        parsed: Head | ParsedRequest | None,
    ) -> Entry:
        peer = self._peer
        actor = identify(peer, self._context.rules(), claims_controller=False)
        role = actor.role.value if isinstance(actor, Actor) else "none"
        request = request_of(parsed.method, "", parsed.path, {}) if parsed else {}
        return Entry(
            record_id,
            "refusal",
            actor=ActorPart(uid=peer.uid, gid=peer.gid, pid=peer.pid, role=role).members,
            request=request,
            verdict=verdict_of(Verdict("deny", (refused.rule,)), self._state.policy.digest),
        )

    async def _linger(self) -> None:
        """Read input for a bounded time: a close with unread bytes discards the response."""
        left = self._timeouts.linger_bytes
        try:
            if self._writer.can_write_eof():
                self._writer.write_eof()
            async with asyncio.timeout(self._timeouts.linger_s):
                await self._writer.drain()
                while left > 0 and (data := await self._reader.read(READ_BYTES)):
                    left -= len(data)
        except (TimeoutError, OSError):
            return
