"""Accepting connections: each waits in the fair queue, then for a connection slot.

The limits hold at the accept: a peer over its limit gets 503 at once, long before the process has
no file descriptor left. The broker reads nothing from a connection that waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus

from controller.broker.host.acceptor import Acceptor
from controller.broker.host.listen_socket import Listening
from controller.broker.host.peer_credentials import PeerGroup, peer_of
from controller.broker.server.connection import READ_BYTES, Connection, ConnectionContext
from controller.broker.server.connection_limit import REFUSED_MAX, SlotLimits
from controller.broker.wire.responses import refusal, reply_bytes
from controller.system.slots import FairQueue, Slot, Slots, SlotUser

#: How long a refused connection stays open, so that its client can still send the request.
REFUSE_S = 0.5
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
        """Accept nothing more. Cancel waiting and idle connections; let the others finish."""
        for acceptor in self._acceptors:
            acceptor.stop()
        for waiting in self._waiting:
            waiting.cancel()
        for refused in [*self._refused]:
            self._close_refused(refused)
        for task, connection in self._serving.items():
            connection.closing = True
            if not connection.busy:
                task.cancel()

    async def wait(self, *, timeout_s: float) -> None:
        """Wait for the connections that still answer a request."""
        if self._serving:
            await asyncio.wait(tuple(self._serving), timeout=timeout_s)

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
        if user.group in TRUSTED:
            # The task starts at once, and not in the next turn of the event loop.
            asyncio.Task(serving, loop=asyncio.get_running_loop(), eager_start=True)
            return True
        task = asyncio.ensure_future(serving)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return True

    async def _serve(self, connected: socket.socket, user: SlotUser, accepted: Slot) -> None:
        """Serve one connection from the accept to its end."""
        task = asyncio.current_task()
        assert task is not None, "a connection is served by a task"
        self._waiting.add(task)
        try:
            slot = await self._await_slot(connected, user)
            self._waiting.discard(task)
            if slot is None:
                return
            try:
                await self._converse(connected, user, task)
            except asyncio.CancelledError:
                pass  # the broker ends: nothing waits for the result of this task
            finally:
                slot.release()
        finally:
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
        self._serving[task] = connection
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
