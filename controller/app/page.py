"""The processes of the page: one for one user's browser, and one for several people, until a signal arrives."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from controller.app.process import (
    SystemClock,
    call_on_termination,
    hold_process_lock,
    load_modules,
    log_late_imports,
    log_to_stderr,
)
from controller.model.errors import StateError, UsageError, error_reason
from controller.model.settings import InstanceSettings, Process, digest_of
from controller.settings import StateFolder
from controller.system.sockets import SocketInUse, bind_socket
from controller.system.syscalls import forbid_core_dumps
from controller.system.systemd import own_manager
from controller.view_follower import Followed, ViewFollower
from controller.web.pages import WebSession, load_templates
from controller.web.server.login import Logins, Sessions, TrustedProxy
from controller.web.server.port import InstanceReader
from controller.web.server.serve import SocketAddress, admit_users
from controller.web.server.tokens import TokenFile

if TYPE_CHECKING:
    from controller.web.server.application import Site

LOOPBACK = "127.0.0.1"
#: How long the controller waits for the next version. The time of the view is at most that old.
WAIT_S = 25.0
_TCP_TABLE = Path("/proc/net/tcp")
#: Everybody can connect, and nobody reads without a login.
_SOCKET_MODE = 0o666


class PageReader(InstanceReader, Protocol):
    """Reads the instance for the server, and its view for the follower."""

    def view(self, have: str, *, wait_s: float) -> Mapping[str, Any]:
        """Return what changed in the view since the version *have* (docs/view.md).

        Raises:
            TrimtabError: the controller doesn't answer, or has no view yet.
        """
        ...


def bind_port(port: int, host: str = LOOPBACK) -> socket.socket:
    """Return a socket on a port of a loopback address; port 0 is any free port.

    Raises:
        StateError: the port is taken, or this user isn't allowed to bind it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # A port of connections that ended a moment ago is free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise StateError(
            "web.port",
            f"port {port} of {host} can't be bound: {_reason(error)}",
            remedy="name another port; 'trimtab web' without --port takes any free one",
        ) from error
    return listener


def _reason(error: OSError | OverflowError) -> str:
    if isinstance(error, OverflowError):
        return "ports end at 65535"
    is_taken = error.errno == errno.EADDRINUSE
    return "another process has it" if is_taken else error_reason(error)


def bind_setting(listen: str) -> socket.socket:
    """Return a socket at the address of the setting ``web.listen``.

    Raises:
        StateError: the address is taken, or this user isn't allowed to bind it.
    """
    if not listen.startswith("unix://"):
        host, _, port = listen.rpartition(":")
        return bind_port(int(port), host.strip("[]"))
    path = Path(listen.removeprefix("unix://"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bind_socket(listener, path, group=None, mode=_SOCKET_MODE)
    except (SocketInUse, OSError) as error:
        listener.close()
        reason = error_reason(error) if isinstance(error, OSError) else str(error)
        raise StateError(
            "web.socket",
            f"{path} can't be bound: {reason}",
            remedy="name a path in a folder of the server's user, such as unix:///run/trimtab/web/web.sock",
        ) from error
    return listener


@dataclass(frozen=True, slots=True)
class PageAddress:
    """Where the page for several people is, and which proxy is trusted."""

    listen: str
    url: str
    proxy: TrustedProxy | None


def page_address(settings: InstanceSettings) -> PageAddress:
    """Return the address of the settings.

    Raises:
        UsageError: there is none, or the settings contradict each other.
    """
    listen, is_unix = settings.web_listen, settings.web_listen.startswith("unix://")
    user, header = settings.web_proxy_user, settings.web_proxy_header
    if not listen:
        raise UsageError(
            "web.settings",
            "the settings name no address for the page",
            remedy="set web.listen, such as 127.0.0.1:8123, then 'trimtab settings reload'",
        )
    if is_unix and not settings.web_url:
        raise UsageError(
            "web.settings",
            "web.listen is a Unix socket, and web.url isn't set",
            remedy="set web.url to the address in the browser, such as https://trimtab.example.org",
        )
    if bool(user) != bool(header) or (user and not is_unix):
        raise UsageError(
            "web.settings",
            "web.proxyUser and web.proxyHeader belong together, and need a Unix socket as web.listen",
            remedy="set both or none; the kernel names the user at a Unix socket alone",
        )
    url = settings.web_url or f"http://{listen}"
    if not user:
        return PageAddress(listen, url, None)
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise UsageError(
            "web.settings", f"web.proxyUser: there is no user {user}", remedy="make the user first"
        ) from error
    return PageAddress(listen, url, TrustedProxy(uid, header.lower()))


def run_page(
    reader: PageReader,
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
    port = listener.getsockname()[1]
    url = f"http://{LOOPBACK}:{port}"
    sessions = _new_sessions()

    def begin() -> None:
        announce(f"{url}/open/{sessions.offer(session, SystemClock().monotonic())}")

    # Cookies know no ports: each server on this address has a cookie of its own.
    _serve(
        reader,
        listener,
        site=_site(url, f"trimtab-{port}"),
        sessions=sessions,
        is_admitted=admit_users(_TCP_TABLE.read_text, uids),
        logins=None,
        begin=begin,
    )


def run_shared_page(reader: PageReader, settings: InstanceSettings, state: StateFolder) -> None:
    """Serve the page to holders of tokens, and to users whom a trusted proxy names, until a signal arrives.

    Raises:
        UsageError: as ``page_address``, or Starlette or uvicorn isn't installed.
        StateError: the address can't be bound, or another server of the instance runs.
    """
    forbid_core_dumps()
    log_to_stderr("web", settings.log)
    load_modules(())
    manager = own_manager()
    address, tokens = page_address(settings), TokenFile(state.web_tokens)
    with suppress(FileExistsError, PermissionError):  # the lock's error names the folder
        state.page.mkdir(mode=0o700)
    lock = hold_process_lock(
        state.page / "lock", program="page's server", settings=digest_of(settings, Process.WEB)
    )
    sessions = _new_sessions()

    def begin() -> None:
        log_late_imports()
        manager.tell(READY=1)

    _serve(
        reader,
        bind_setting(address.listen),
        site=_site(address.url, "trimtab"),
        sessions=sessions,
        is_admitted=None,
        logins=Logins(tokens, sessions, SystemClock(), address.proxy),
        begin=begin,
    )
    manager.tell(STOPPING=1)
    os.close(lock)


def _new_sessions() -> Sessions:
    return Sessions(lambda: secrets.token_urlsafe(32))


def new_token() -> str:
    """Return a new token: 256 random bits, with a prefix that scanners for leaked secrets can know."""
    return f"trimtab_{secrets.token_urlsafe(32)}"


def _site(url: str, name: str) -> Site:
    """Return the site of an address.

    Raises:
        UsageError: Starlette or uvicorn isn't installed.
    """
    try:
        import uvicorn  # noqa: F401 - only whether it is there

        from controller.web.server.application import Site
    except ModuleNotFoundError as error:
        raise UsageError(
            "web.missing",
            f"the server of the page isn't installed: there is no module {error.name}",
            remedy="install trimtab with its extra: pip install 'trimtab[web]'",
        ) from error
    return Site(url, name)


def _serve(
    reader: PageReader,
    listener: socket.socket,
    *,
    site: Site,
    sessions: Sessions,
    is_admitted: Callable[[SocketAddress, SocketAddress], bool] | None,
    logins: Logins | None,
    begin: Callable[[], object],
) -> None:
    """Serve a site on a bound socket until a signal arrives. *begin* is called once it listens."""
    from controller.web.server.application import PageServer
    from controller.web.server.serve import server_of

    clock = SystemClock()
    load_templates()

    async def serve() -> None:
        loop = asyncio.get_running_loop()

        def tell(before: Followed, after: Followed) -> None:
            if after.is_news(before):
                with suppress(RuntimeError):  # the loop ended meanwhile
                    loop.call_soon_threadsafe(pages.news.tell)

        follower = ViewFollower(reader.view, clock, tell, wait_s=WAIT_S)
        pages = PageServer(site, sessions, reader, clock, lambda: follower.followed, logins)
        server = server_of(pages.application(), is_admitted=is_admitted, on_end=pages.news.end)

        def stop() -> None:
            server.should_exit = True

        call_on_termination(stop)
        follower.start()
        listener.listen()
        begin()
        await server.serve(sockets=[listener])
        follower.stop()

    asyncio.run(serve())
