"""Connections of clients: accepted in turn, limited by group, and served in sequence.

One client's connection: requests in, responses out, in sequence.

The kernel reports the peer once, at the connect. Every wait for the client has a timeout: 10 s for
a head after its first byte, 30 s for a body after its head, and two minutes for the next request.

The limits on connections and answers: of each group of peers, and of the broker to the engine.

Operators, the controller, clients, viewers and peers without a role have connections of their own, and so
has the broker for its own tasks. Each accepted connection costs a file descriptor, also while it
waits for a slot, so the number of accepted connections is bounded too: by group and by uid.

Accepting connections: each waits in the fair queue, then for a connection slot.

The limits hold at the accept: a peer over its limit gets 503 at once, long before the process has
no file descriptor left. The broker reads nothing from a connection that waits.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import Self

from controller.broker.engine.relay import ClientStream, relay
from controller.broker.gate import journal_entries
from controller.broker.gate.commands import Follow
from controller.broker.gate.journal_entries import request_of, verdict_of
from controller.broker.gate.routes import body_limit, may_be_large
from controller.broker.gate.state import GateState
from controller.broker.guards import client_shares
from controller.broker.handlers import container_exec
from controller.broker.host.peer_credentials import (
    Peer,
    PeerGroup,
    PeerRules,
    UnknownPeer,
    identify,
    peer_of,
)
from controller.broker.host.sockets import Acceptor, Listening
from controller.broker.server.driver import Driver, OpenResponse, RequestFlow
from controller.broker.server.journal_queries import JournalQueries
from controller.broker.wire import (
    CONTINUE,
    Head,
    Malformed,
    ParsedRequest,
    RequestReader,
    StreamedBody,
    error_line,
    refusal,
    reply_bytes,
)
from controller.core.encoding.text import printable
from controller.core.records.parts import ActorPart
from controller.model.crashpoints import Reach, pass_by
from controller.model.records import Actor, Entry, Reply, Request, Role, Verdict
from controller.system.slots import FairQueue, Share, Slot, Slots, SlotUser

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
        #: Set at the end of the broker: no request is read but the first one.
        self.closing = False
        #: True once a request was answered.
        self.answered = False
        #: The open stream, as method and path; '' without one.
        self.stream = ""
        #: The caller of the open stream, with the rights at its beginning.
        self._stream_actor: Actor | None = None
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

    @property
    def uid(self) -> int:
        """The uid of the client."""
        return self._peer.uid

    def is_stream_revoked(self) -> bool:
        """Return True if a viewer reads a stream, and the policy changed the viewer's rights since."""
        actor = self._stream_actor
        if actor is None or actor.role is not Role.VIEWER:
            return False
        return identify(self._peer, self._context.rules(), claims_controller=False) != actor

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
            while not (self.closing and self.answered):
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
                self.busy, self.answered = False, True
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
        claims = any(name == journal_entries.CONTEXT_HEADER for name, _ in parsed.headers)
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
            if isinstance(answer, Follow | OpenResponse):
                self.stream = printable(f"{parsed.method} {parsed.path}")[:STREAM_MAX]
                self._stream_actor = actor
            await self._give(answer, client, reach, to_head=parsed.method == "HEAD")
            self.stream, self._stream_actor = "", None
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


#: File descriptors kept free for the journal, its index, files, paths and processes.
KEPT_DESCRIPTORS = 256
#: Connections that get a 503 at a time (``listener``).
REFUSED_MAX = 128
#: Idle connections to the engine (``engine.client.IDLE_MAX``), and the one that identifies it.
IDLE_DESCRIPTORS = 9


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Numbers of slots of each group."""

    #: Connections served at the same time.
    connections: Mapping[str, Share] = field(
        default_factory=lambda: {
            PeerGroup.OPERATOR: Share(128, 64),
            PeerGroup.CONTROLLER: Share(96, 96),
            PeerGroup.CLIENT: Share(192, 64),
            PeerGroup.VIEWER: Share(32, 16),
            PeerGroup.NO_ROLE: Share(16, 8),
        }
    )
    #: Accepted connections: those served, and those that wait for a slot.
    accepted: Mapping[str, Share] = field(
        default_factory=lambda: {
            PeerGroup.OPERATOR: Share(256, 128),
            PeerGroup.CONTROLLER: Share(192, 192),
            PeerGroup.CLIENT: Share(1024, 256),
            PeerGroup.VIEWER: Share(64, 32),
            PeerGroup.NO_ROLE: Share(512, 256),
        }
    )
    #: Connections to the engine. A request that streams has one for the whole time.
    engine: Mapping[str, Share] = field(
        default_factory=lambda: {
            PeerGroup.OPERATOR: Share(160, 96),
            PeerGroup.CONTROLLER: Share(128, 128),
            PeerGroup.CLIENT: Share(256, 80),
            PeerGroup.VIEWER: Share(24, 12),
            PeerGroup.BROKER: Share(64, 64),
        }
    )
    #: Reads with a large answer, from the question until the answer is sent. Few at a time bound
    #: the memory of the broker.
    answers: Mapping[str, Share] = field(
        default_factory=lambda: {
            PeerGroup.OPERATOR: Share(16, 8),
            PeerGroup.CONTROLLER: Share(16, 16),
            PeerGroup.CLIENT: Share(8, 2),
            PeerGroup.VIEWER: Share(4, 2),
        }
    )
    #: How long a connection waits for a slot, and a request for a connection to the engine or for
    #: its turn to be answered.
    wait_s: float = 10.0

    @property
    def descriptors(self) -> int:
        """The file descriptors that the broker needs when all limits are reached."""
        shares = (*self.accepted.values(), *self.engine.values())
        mine = KEPT_DESCRIPTORS + REFUSED_MAX + IDLE_DESCRIPTORS
        return sum(share.total for share in shares) + mine

    def within(self, descriptors: int) -> Self:
        """Return limits that need at most *descriptors*: the same limits, or a part of each.

        Every group keeps at least one slot of each kind.
        """
        mine = KEPT_DESCRIPTORS + REFUSED_MAX + IDLE_DESCRIPTORS
        part = (descriptors - mine) / (self.descriptors - mine)
        if part >= 1:
            return self
        return replace(
            self,
            connections=_part(self.connections, part),
            accepted=_part(self.accepted, part),
            engine=_part(self.engine, part),
        )


def _part(shares: Mapping[str, Share], part: float) -> dict[str, Share]:
    def of(number: int) -> int:
        return max(1, int(number * part))

    return {name: Share(of(share.total), of(share.of_a_user)) for name, share in shares.items()}


#: How long a refused connection stays open, so that its client can still send the request.
REFUSE_S = 0.5
#: The most of a stream's request that the log shows.
STREAM_MAX = 200
#: How long a connection without a request has for its first one, once the broker ends.
FIRST_S = 0.5
#: The groups that are served in the turn of their accept.
TRUSTED = frozenset({PeerGroup.OPERATOR, PeerGroup.CONTROLLER})

BUSY = reply_bytes(
    refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "broker.busy",
        "too many connections are open",
        remedy="close some, or wait",
    ),
    to_head=False,
    keep_alive=False,
)
#: Returns group and uid of the peer of a connected socket, by the policy in force. Raises OSError.
UserOf = Callable[[socket.socket], SlotUser]


class Listener:
    """Accepts connections on sockets and serves each in its own task.

    *on_end* is called after each served connection. *on_refusal* is called for each connection that
    gets no slot.
    """

    def __init__(
        self,
        *,
        limits: SlotLimits,
        user_of: UserOf,
        queue: FairQueue,
        context: ConnectionContext,
        on_end: Callable[[], None],
        on_refusal: Callable[[], None] = lambda: None,
    ) -> None:
        self._accepted = Slots(limits.accepted, wait_s=0.0)
        self._slots = Slots(limits.connections, wait_s=limits.wait_s)
        self._user_of = user_of
        self._queue = queue
        self._context = context
        self._on_end = on_end
        self._on_refusal = on_refusal
        self._acceptors: tuple[Acceptor, ...] = ()
        self._stopping = False
        self._waiting: set[asyncio.Task[None]] = set()
        self._serving: dict[asyncio.Task[None], Connection] = {}
        #: Refused connections, and what closes each later. The oldest is first.
        self._refused: dict[socket.socket, asyncio.TimerHandle] = {}

    def in_use(self) -> dict[str, int]:
        """Return the number of connections of each group that are served now."""
        return self._slots.in_use()

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """The tasks of all open connections."""
        return (*self._waiting, *self._serving)

    def start(self, sockets: Sequence[Listening]) -> None:
        """Accept connections on listening sockets. Call ``stop`` afterwards."""
        self._acceptors = tuple(
            Acceptor(each.socket, self._admit, paced=not each.reserved) for each in sockets
        )

    def stop(self) -> None:
        """Accept nothing more. Cancel idle connections; let the others finish.

        A connection that was just accepted has ``FIRST_S`` for its first request: nobody else would
        answer it.
        """
        self._stopping = True
        for acceptor in self._acceptors:
            acceptor.stop()
        for refused in [*self._refused]:
            self._close_refused(refused)
        for task, connection in self._serving.items():
            connection.closing = True
            if connection.stream:
                LOG.warning("stream.cut uid=%d request=%s", connection.uid, connection.stream)
            if not connection.busy and (connection.answered or connection.stream):
                task.cancel()
        loop = asyncio.get_running_loop()
        # The turn after the timer's: a request that came while the process stood still is read first.
        loop.call_later(FIRST_S, loop.call_soon, self._cancel_silent)

    def cut_revoked(self) -> None:
        """End the streams of viewers whose rights a new policy changed."""
        for task, connection in self._serving.items():
            if connection.is_stream_revoked():
                LOG.info("stream.revoked uid=%d request=%s", connection.uid, connection.stream)
                task.cancel()

    def _cancel_silent(self) -> None:
        """Cancel waiting connections, and connections without a request."""
        for waiting in self._waiting:
            waiting.cancel()
        for task, connection in self._serving.items():
            if not connection.busy:
                task.cancel()

    async def wait(self, *, timeout_s: float) -> None:
        """Wait for the connections that still answer a request."""
        if tasks := self.tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    def _admit(self, connected: socket.socket) -> bool:
        """Serve an accepted connection. Return False if the connection is refused or gone."""
        try:
            user = self._user_of(connected)
        except OSError:  # the client hung up
            connected.close()
            return False
        accepted = self._accepted.take_now(user)
        if accepted is None:
            self._refuse(connected)
            return False
        connected.setblocking(False)
        serving = self._serve(connected, user, accepted)
        if user.group in TRUSTED and sys.version_info >= (3, 12):
            # The task starts at once, and not in the next turn of the event loop.
            asyncio.Task(serving, loop=asyncio.get_running_loop(), eager_start=True)
            return True
        task = asyncio.ensure_future(serving)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return True

    async def _serve(self, connected: socket.socket, user: SlotUser, accepted: Slot) -> None:
        """Serve a connection from the accept to the end."""
        task = asyncio.current_task()
        assert task is not None, "a connection is served by a task"
        self._waiting.add(task)
        try:
            slot = await self._await_slot(connected, user)
            if slot is None:
                return
            try:
                await self._converse(connected, user, task)
            except asyncio.CancelledError:
                pass  # the broker ends: nothing waits for the result of this task
            finally:
                slot.release()
        finally:
            self._waiting.discard(task)
            accepted.release()
        self._on_end()

    async def _await_slot(self, connected: socket.socket, user: SlotUser) -> Slot | None:
        """Return a slot for a connection. Without one, refuse the connection and return None."""
        try:
            await self._queue.take(user.uid)
            slot = await self._slots.take(user)
        except asyncio.CancelledError:  # the broker ends
            connected.close()
            return None
        if slot is None:
            self._refuse(connected)
        return slot

    async def _converse(
        self, connected: socket.socket, user: SlotUser, task: asyncio.Task[None]
    ) -> None:
        try:
            peer = peer_of(connected)
            reader, writer = await open_streams(connected)
        except OSError:  # the client hung up
            connected.close()
            return
        connection = Connection(
            reader,
            writer,
            peer=peer,
            user=user,
            context=self._context,
            is_slot_wanted=partial(self._slots.is_wanted, user),
        )
        connection.closing = self._stopping
        self._serving[task] = connection
        self._waiting.discard(task)
        try:
            await connection.serve()
        finally:
            del self._serving[task]

    def _refuse(self, connected: socket.socket) -> None:
        """Send 503, and close the connection later.

        The client reads the end of the response at once. An early close would break the request
        that the client still sends, and the client would never read the response. No task waits for
        a refused connection: under a flood, tasks would cost more than all the refusals.
        """
        self._on_refusal()
        try:
            connected.send(BUSY, socket.MSG_DONTWAIT)
            connected.shutdown(socket.SHUT_WR)
        except OSError:  # the client hung up
            connected.close()
            return
        if len(self._refused) == REFUSED_MAX:
            self._close_refused(next(iter(self._refused)))
        late = asyncio.get_running_loop().call_later(REFUSE_S, self._close_refused, connected)
        self._refused[connected] = late

    def _close_refused(self, connected: socket.socket) -> None:
        self._refused.pop(connected).cancel()
        connected.close()


async def open_streams(
    connected: socket.socket,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return the streams of an accepted connection. The writer closes the socket."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=READ_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, connected)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
