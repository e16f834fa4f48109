"""Accepting connections: each waits in the fair queue, then for a connection slot.

A connection without a slot gets 503. The broker reads nothing from a connection that waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import cast

from controller.broker.host.peer_credentials import peer_of, uid_of
from controller.broker.server.connection import READ_BYTES, Connection, ConnectionContext
from controller.broker.server.connection_limit import ConnectionSlots
from controller.broker.server.fair_queue import FairQueue
from controller.broker.wire.responses import refusal, reply_bytes

#: Refused connections whose request is read before the 503, and how long the read takes at most.
REFUSED_MAX = 64
REFUSE_S = 0.5
#: Connections that asyncio accepts in one iteration of the event loop.
ACCEPTED_AT_ONCE = 16


class Listener:
    """Accepts connections on a socket and serves each in its own task.

    *on_end* is called after each served connection.
    """

    def __init__(
        self,
        *,
        slots: ConnectionSlots,
        queue: FairQueue,
        context: ConnectionContext,
        on_end: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._queue = queue
        self._context = context
        self._on_end = on_end
        self._server: asyncio.Server | None = None
        self._waiting: set[asyncio.Task[None]] = set()
        self._serving: dict[asyncio.Task[None], Connection] = {}
        self._refusing = 0

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """The tasks of all open connections."""
        return (*self._waiting, *self._serving)

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on a listening socket."""
        # asyncio takes this number as the backlog and as the connections per iteration. The
        # socket itself keeps its longer backlog (``host.listen_socket``).
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=READ_BYTES, backlog=ACCEPTED_AT_ONCE
        )

    def stop(self) -> None:
        """Accept nothing more. Cancel waiting and idle connections; let the others finish."""
        assert self._server is not None, "the listener was started"
        self._server.close()
        for waiting in self._waiting:
            waiting.cancel()
        for task, connection in self._serving.items():
            connection.closing = True
            if not connection.busy:
                task.cancel()

    async def wait(self, *, timeout_s: float) -> None:
        """Wait for the connections that still answer a request."""
        if self._serving:
            await asyncio.wait(tuple(self._serving), timeout=timeout_s)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection from the accept to its end."""
        task = asyncio.current_task()
        assert task is not None, "a connection is served by a task"
        transport = cast("asyncio.Transport", writer.transport)
        transport.pause_reading()
        connected = writer.get_extra_info("socket")
        self._waiting.add(task)
        try:
            await self._queue.take(uid_of(connected))
            peer = peer_of(connected)
            has_slot = await self._slots.take(peer.uid)
        except (OSError, asyncio.CancelledError):  # the client hung up, or the broker ends
            writer.close()
            return
        finally:
            self._waiting.discard(task)
        transport.resume_reading()
        if not has_slot:
            await self._refuse(reader, writer)
            return
        is_slot_wanted = partial(self._slots.is_wanted, peer.uid)
        connection = Connection(
            reader, writer, peer=peer, context=self._context, is_slot_wanted=is_slot_wanted
        )
        self._serving[task] = connection
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # the broker ends: nothing waits for the result of this task
        finally:
            del self._serving[task]
        self._slots.leave(peer.uid)
        self._on_end()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send 503, after a read: a close with unread bytes would discard the response."""
        reply = refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "broker.busy",
            "too many connections are open",
            remedy="close some, or wait",
        )
        try:
            if self._refusing < REFUSED_MAX:
                self._refusing += 1
                try:
                    async with asyncio.timeout(REFUSE_S):
                        await reader.read(READ_BYTES)
                finally:
                    self._refusing -= 1
            writer.write(reply_bytes(reply, to_head=False, keep_alive=False))
        except (TimeoutError, OSError):
            pass  # the client sent no request, or hung up
        finally:
            writer.close()
