"""The listener for webhooks: an authentic ``POST /hooks/NAME`` wakes the source, and does nothing else.

The body is read for its signature, and never parsed. Requests are few and small, so the server of
the standard library is enough; bounds are on connections, time and size. TLS is a reverse proxy's.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from controller.core.git.forge import is_authentic, source_of_path
from controller.model.errors import UsageError

#: A file for each source.
SECRETS = Path("/etc/trimtab/webhooks")
SECRET_MAX = 4096
BODY_MAX = 1024 * 1024
#: The longest life of a connection.
LIFE_S = 10.0
CONNECTIONS = 16

log = logging.getLogger("trimtab.fetch")


def serve_webhooks(address: str, wake: Callable[[str], object]) -> None:
    """Listen on ``ADDR:PORT`` until the process ends.

    Raises:
        UsageError: *address* isn't an address of this host and a free port.
    """
    host, _, port = address.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        server = WebhookServer((host.strip("[]"), int(port)), WebhookParts(read_secret, wake))
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            "webhook.address",
            f"can't listen for webhooks on {address}: {error}",
            remedy="name an address of this host and a free port, such as 127.0.0.1:9000",
        ) from error
    server.start()


def read_secret(name: str, folder: Path = SECRETS) -> bytes:
    """Return the secret of a source's webhook; b'' without one, or if every user could read it."""
    path = folder / name
    try:
        if path.stat().st_mode & stat.S_IRWXO:
            _warn_of(path)
            return b""
        with path.open("rb") as file:
            return file.read(SECRET_MAX).strip()
    except OSError:
        return b""


@cache
def _warn_of(path: Path) -> None:
    """Warn of a file once: whoever reaches the port could fill the log."""
    log.warning("%s isn't used: every user of the host can reach it", path)


@dataclass(frozen=True, slots=True)
class WebhookParts:
    """What the listener works with."""

    #: Returns the secret of a source; b'' for a source without one.
    secret_of: Callable[[str], bytes]
    #: Wakes a source. Wake-ups during a fetch become one fetch.
    wake: Callable[[str], object]


class WebhookServer(HTTPServer):
    """Serves webhooks, each connection in a thread, at most ``CONNECTIONS`` at a time.

    Raises:
        OSError: the address can't be bound.
    """

    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], parts: WebhookParts, *, life_s: float = LIFE_S
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.parts = parts
        self.life_s = life_s
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, _Handler)

    def start(self) -> None:
        """Serve in a thread of its own until ``shutdown``."""
        threading.Thread(target=self.serve_forever, name="webhook", daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread; close it if too many are open."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        threading.Thread(
            target=self._process, args=(request, client_address), name="webhook", daemon=True
        ).start()

    def _process(self, request: Any, client_address: Any) -> None:
        end = threading.Timer(self.life_s, _cut, (request,))
        end.start()
        try:
            self.finish_request(request, client_address)
        except OSError as error:  # the client went away, or was too slow
            log.debug("a webhook's connection ended: %s", error)
        except Exception:
            log.exception("a webhook failed")
        finally:
            end.cancel()
            self.shutdown_request(request)
            self._free.release()


def _cut(connection: socket.socket) -> None:
    """End a connection at the time limit, also a connection that still sends bytes."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One connection with one request."""

    server: WebhookServer
    server_version, sys_version = "trimtab", ""

    def do_POST(self) -> None:
        """Answer 202 to an authentic webhook, and wake its source."""
        self.close_connection = True
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or "Transfer-Encoding" in self.headers:
            self._answer(HTTPStatus.LENGTH_REQUIRED)
            return
        if int(length[:8]) > BODY_MAX or len(length) > 8:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        name = source_of_path(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        secret = self.server.parts.secret_of(name) if name else b""
        # One answer for an unknown source and a wrong signature: nobody can search for names.
        if len(body) != int(length) or not is_authentic(headers, body, secret):
            self._answer(HTTPStatus.FORBIDDEN)
            return
        self._answer(HTTPStatus.ACCEPTED)
        self.server.parts.wake(name)

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log a request for debugging only: whoever reaches the port could fill the log."""
        log.debug(format, *args)
