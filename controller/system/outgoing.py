"""Connections to servers elsewhere: TLS verified, addresses checked, and bounds on time and size.

An exchange has a life in which another thread cuts its connection, also during the handshake. A request
is one POST; no redirect is followed.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

#: The longest silence of a server, and the longest exchange.
SILENCE_S, LIFE_S = 10.0, 20.0
#: How much of an answer is read.
ANSWER_MAX = 16 * 1024
#: Prefixes of IPv6 addresses with an IPv4 address in the last 32 bits (RFC 6052, RFC 4291 section 2.5.5, RFC 2765).
_EMBEDDING: Final = tuple(
    map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96"))
)


class Unanswered(Exception):
    """No whole answer came. The text is the reason, and quotes nothing of the request."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer of a server. The headers have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The bounds of an exchange, in seconds."""

    silence_s: float = SILENCE_S
    life_s: float = LIFE_S


def is_any(_address: str) -> bool:
    """Return True: every address is permitted."""
    return True


def is_public(address: str) -> bool:
    """Return True if an IP address is one of the Internet's, also an IPv4 address inside an IPv6 one."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.sixtofour
        if any(found in prefix for prefix in _EMBEDDING):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            found = inner
        elif found.teredo is not None:
            return False
    return found.is_global and not found.is_multicast


class Exchange:
    """The connection of one exchange, which is cut when its life is over. A context manager."""

    def __init__(self, limits: HttpLimits, is_permitted: Callable[[str], bool] = is_any) -> None:
        self._limits = limits
        self._is_permitted = is_permitted
        self._sock: socket.socket | None = None
        self._end = threading.Timer(limits.life_s, self._cut)
        self._end.daemon = True
        self.is_cut = False

    def __enter__(self) -> Self:
        self._end.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._end.cancel()
        if self._sock is not None:
            self._sock.close()

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to the first permitted address that answers. All addresses share the life.

        Raises:
            Unanswered: no address of the name is permitted.
            OSError: none answers.
        """
        error: Exception = OSError("the name has no address")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            if self.is_cut:
                raise TimeoutError
            if not self._is_permitted(str(address[0])):
                error = Unanswered(f"its address {address[0]} isn't public")
                continue
            plain = self._sock = socket.socket(family, kind, protocol)
            plain.settimeout(self._limits.silence_s)
            try:
                plain.connect(address)
            except OSError as refusal:
                plain.close()
                error = refusal
            else:
                return plain
        raise error

    def secure(self, plain: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
        """Return the connection with TLS, once the certificate of *host* is verified. Raises OSError."""
        secure = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        self._sock = secure
        if not self.is_cut:
            secure.do_handshake()
        self.raise_if_cut()
        return secure

    def raise_if_cut(self) -> None:
        """Raise TimeoutError after the end of the life: what came may be a part alone."""
        if self.is_cut:
            raise TimeoutError

    def reason(self, error: Exception) -> str:
        """Return why the exchange failed."""
        return "it takes too long" if self.is_cut else _reason(error)

    def _cut(self) -> None:
        """Shut the connection down, also during a read or a write."""
        self.is_cut = True
        with suppress(OSError):
            if self._sock is not None:
                self._sock.shutdown(socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    def __init__(
        self, exchange: Exchange, host: str, port: int | None, context: ssl.SSLContext | None
    ) -> None:
        default = http.client.HTTP_PORT if context is None else http.client.HTTPS_PORT
        super().__init__(host, port or default)
        self._exchange = exchange
        self._context = context

    def connect(self) -> None:
        """Connect, and verify the server's certificate."""
        self.sock = self._exchange.connect(self.host, self.port)
        if self._context is not None:
            self.sock = self._exchange.secure(self.sock, self._context, self.host)


def post(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    authority: Path | None,
    limits: HttpLimits,
    is_permitted: Callable[[str], bool] = is_any,
) -> HttpAnswer:
    """Send a POST request, and return the answer, of which at most ``ANSWER_MAX`` bytes are read.

    *authority* is a file of certificates that stands for the system's.

    Raises:
        Unanswered: no answer came.
    """
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    with Exchange(limits, is_permitted) as exchange:
        connection = None
        try:
            context = None if parts.scheme == "http" else tls_context(authority)
            connection = _Connection(exchange, parts.hostname or "", parts.port, context)
            connection.request(
                "POST", target, body=body, headers={**headers, "Connection": "close"}
            )
            answer = connection.getresponse()
            received = {name.lower(): value for name, value in answer.getheaders()}
            content = answer.read(ANSWER_MAX)
            exchange.raise_if_cut()
            return HttpAnswer(answer.status, received, content)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unanswered(exchange.reason(error)) from None  # a cause could quote a header
        finally:
            if connection is not None:
                connection.close()


def tls_context(authority: Path | None) -> ssl.SSLContext:
    """Return the context of a client that verifies certificates. Raises OSError."""
    return ssl.create_default_context(cafile=authority)


def _reason(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate can't be trusted: {error.verify_message}"
        case TimeoutError():
            return "it doesn't answer in time"
        case OSError():
            return error.strerror or str(error) or type(error).__name__
        case _:
            return f"its answer isn't HTTP ({type(error).__name__})"
