"""Serves an application on a listening socket, with limits on connections, heads of requests and readers.

Any user and any container in the host's network can connect to a loopback port: connections of the
server's user and of root are admitted. The kernel's table of connections names the user at the other end
(proc_net(5), ``tcp``).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

# anyio and uvicorn import both on use: the backend by its name, and what lifespan="off" stands for.
import anyio._backends._asyncio  # noqa: F401
import uvicorn
import uvicorn.lifespan.off
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from controller.system.conversation import peer_uid_of

#: TCP_ESTABLISHED (include/net/tcp_states.h). Rows of connections that end have no owner: their uid is 0.
_ESTABLISHED = "01"
_STATE, _UID = 3, 7

SocketAddress = tuple[str, int]


def client_uid(table: str, *, client: SocketAddress, server: SocketAddress) -> int | None:
    """Return the uid of the client of an established IPv4 connection; None if the table lacks it.

    *table* is the content of ``/proc/net/tcp``. An address is a host, such as ``127.0.0.1``, and a port.
    """
    wanted = [_row_form(client), _row_form(server), _ESTABLISHED]
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[1 : _STATE + 1] == wanted:
            return int(fields[_UID])
    return None


def _row_form(address: SocketAddress) -> str:
    """Return an address as the table has it: a number in the byte order of the host."""
    host, port = address
    number = int.from_bytes(ipaddress.IPv4Address(host).packed, sys.byteorder)
    return f"{number:08X}:{port:04X}"


def admit_users(
    read_table: Callable[[], str], uids: frozenset[int]
) -> Callable[[SocketAddress, SocketAddress], bool]:
    """Return a function that returns True for a connection, from client to server, of one of the *uids*."""

    def is_admitted(client: SocketAddress, server: SocketAddress) -> bool:
        return client_uid(read_table(), client=client, server=server) in uids

    return is_admitted


CONNECTIONS_MAX: Final = 128
#: The longest line and headers of a request, in bytes.
HEAD_BYTES_MAX: Final = 16 * 1024
#: Seconds for a whole head, from the connection or the last answer on.
HEAD_S: Final = 10.0
#: A reader that takes nothing for that long, with full buffers, is cut.
STALLED_S: Final = 10.0
#: Seconds for answers under way at the end.
_GRACE_S: Final = 2


class _Server(uvicorn.Server):
    """Leaves signals to the process: uvicorn would raise them again at the end, and so end by them."""

    def __init__(self, config: uvicorn.Config, on_end: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_end = on_end

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_end()
        await super().shutdown(sockets)


class PageConnection(H11Protocol):
    """A connection. Those that aren't admitted are closed.

    The client at a Unix socket is ``("uid:N", 0)``, by the kernel's word.
    """

    is_admitted: Callable[[SocketAddress, SocketAddress], bool] | None
    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection.family == socket.AF_UNIX:
            self.client = (f"uid:{peer_uid_of(connection)}", 0)
        if len(self.connections) > CONNECTIONS_MAX or not self._is_let_in():
            transport.abort()
            return
        self._watch_head()

    def _is_let_in(self) -> bool:
        if self.is_admitted is None:
            return True
        client, server = self.client, self.server
        if client is None or server is None or server[1] is None:
            return False
        return self.is_admitted(client, (server[0], server[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)  # it resumes writing
        self._cancel_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        self._cancel_head()
        super().on_response_complete()
        self._watch_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()

    def _watch_head(self) -> None:
        """Give the next head ``HEAD_S`` seconds, unless a request is under way."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.abort)

    def _cancel_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def server_of(
    application: ASGIApp,
    *,
    is_admitted: Callable[[SocketAddress, SocketAddress], bool] | None,
    on_end: Callable[[], object],
) -> uvicorn.Server:
    """Return a server that ends once its ``should_exit`` is true; *on_end* ends the open streams.

    *is_admitted* is asked about each connection, from client to server; None admits all.
    """
    options: dict[str, Any] = {
        "access_log": False,
        "date_header": False,
        "server_header": False,
        "proxy_headers": False,
        "lifespan": "off",
        "loop": "asyncio",
        "ws": "none",
        "log_config": None,
    }
    config = uvicorn.Config(
        application,
        http=type(
            "Admitting",
            (PageConnection,),
            {"is_admitted": is_admitted and staticmethod(is_admitted)},
        ),
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        timeout_graceful_shutdown=_GRACE_S,
        **options,
    )
    return _Server(config, on_end)
