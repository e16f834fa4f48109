"""The process of the page: one user's browser, on a loopback port, until a signal arrives."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from controller.app.process import SystemClock, call_on_termination
from controller.model.errors import StateError, UsageError, error_reason
from controller.web.pages import WebSession
from controller.web.server.connections import admit_users
from controller.web.server.follower import ViewFollower
from controller.web.server.port import InstanceReader
from controller.web.server.sessions import Sessions

LOOPBACK = "127.0.0.1"
_TCP_TABLE = Path("/proc/net/tcp")


def bind_port(port: int) -> socket.socket:
    """Return a socket on a port of 127.0.0.1; 0 is any free port.

    Raises:
        StateError: the port is taken, or this user isn't allowed to bind it.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A port of connections that ended a moment ago is free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        is_taken = error.errno == errno.EADDRINUSE
        reason = "another process has it" if is_taken else error_reason(error)
        raise StateError(
            "web.port",
            f"port {port} of {LOOPBACK} can't be bound: {reason}",
            remedy="leave out --port for any free port, or name another one",
        ) from error
    return listener


def run_page(
    reader: InstanceReader,
    listener: socket.socket,
    *,
    session: WebSession,
    uids: frozenset[int],
    announce: Callable[[str], object],
) -> None:
    """Serve a session's browser on a bound socket until a signal arrives.

    *announce* gets the link. Connections of other users than *uids* are closed.

    Raises:
        UsageError: Starlette or uvicorn isn't installed.
    """
    try:
        from controller.web.server.application import PageServer, Site
        from controller.web.server.serve import server_of
    except ModuleNotFoundError as error:
        raise UsageError(
            "web.missing",
            f"the server of the page isn't installed: there is no module {error.name}",
            remedy="install trimtab with its extra: pip install 'trimtab[web]'",
        ) from error

    clock = SystemClock()
    host = f"{LOOPBACK}:{listener.getsockname()[1]}"
    sessions = Sessions(lambda: secrets.token_urlsafe(32))
    # Cookies know no ports: each server on this address has a cookie of its own.
    site = Site(host, cookie=f"trimtab-{listener.getsockname()[1]}")

    async def serve() -> None:
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop ended meanwhile
                loop.call_soon_threadsafe(pages.news.tell)

        follower = ViewFollower(reader, clock, tell)
        pages = PageServer(site, sessions, reader, clock, lambda: follower.followed)
        server = server_of(
            pages.application(),
            is_admitted=admit_users(_TCP_TABLE.read_text, uids),
            on_end=pages.news.end,
        )

        def stop() -> None:
            server.should_exit = True

        call_on_termination(stop)
        follower.start()
        listener.listen()
        announce(f"http://{host}/open/{sessions.offer(session, clock.monotonic())}")
        await server.serve(sockets=[listener])
        follower.stop()

    asyncio.run(serve())
