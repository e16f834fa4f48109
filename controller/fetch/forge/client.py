"""One POST request to a forge: TLS verified, no redirect followed, with bounds on time and size.

The token is in a header alone, and never in a message: errors name the host and the reason.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from controller.core.git.commit_status import StatusRequest
from controller.model.errors import SourceError

#: The longest silence of a forge, and the longest request.
SILENCE_S, LIFE_S = 10.0, 20.0
#: How much of an answer is read.
ANSWER_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer of a forge. The headers have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The bounds of a request, in seconds."""

    silence_s: float = SILENCE_S
    life_s: float = LIFE_S


def post(
    request: StatusRequest,
    token: tuple[str, str],
    *,
    authority: Path | None,
    limits: HttpLimits,
) -> HttpAnswer:
    """Send a request with the header *token*, and return the answer.

    *authority* is a file of certificates that stands for the system's.

    Raises:
        SourceError: no answer came.
    """
    parts = urlsplit(request.url)
    try:
        context = None if parts.scheme == "http" else ssl.create_default_context(cafile=authority)
        connection = _Connection(parts.hostname or "", parts.port, context, limits)
    except (OSError, ValueError) as error:
        raise _unreachable(parts.netloc, str(error)) from error
    end = threading.Timer(limits.life_s, connection.cut)
    end.daemon = True
    end.start()
    try:
        headers = {**request.headers, token[0]: token[1], "Connection": "close"}
        connection.request("POST", parts.path, body=request.body, headers=headers)
        answer = connection.getresponse()
        received = {name.lower(): value for name, value in answer.getheaders()}
        body = answer.read(ANSWER_MAX)
        if connection.is_cut:  # what came may be a part alone
            raise TimeoutError
        return HttpAnswer(answer.status, received, body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = "it takes too long" if connection.is_cut else _reason(error)
        raise _unreachable(parts.netloc, reason) from None  # a cause could quote a header
    finally:
        end.cancel()
        connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection that another thread can cut, also during the TLS handshake."""

    def __init__(
        self, host: str, port: int | None, context: ssl.SSLContext | None, limits: HttpLimits
    ) -> None:
        default = http.client.HTTP_PORT if context is None else http.client.HTTPS_PORT
        super().__init__(host, port or default, timeout=limits.silence_s)
        self._context = context
        self.is_cut = False

    def connect(self) -> None:
        """Connect, and verify the server's certificate."""
        plain = self._connect_plain()
        if self._context is not None:
            tls = self._context.wrap_socket(
                plain, server_hostname=self.host, do_handshake_on_connect=False
            )
            self.sock = tls
            if not self.is_cut:
                tls.do_handshake()
        if self.is_cut:
            raise TimeoutError

    def _connect_plain(self) -> socket.socket:
        """Connect to the first address that answers. All addresses share the time of the request."""
        error = OSError("the name has no address")
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            if self.is_cut:
                raise TimeoutError
            plain = self.sock = socket.socket(family, kind, protocol)
            plain.settimeout(self.timeout)
            try:
                plain.connect(address)
            except OSError as refusal:
                plain.close()
                error = refusal
            else:
                return plain
        raise error

    def cut(self) -> None:
        """End the connection, however it spends its time."""
        self.is_cut = True
        with suppress(OSError):
            if self.sock is not None:
                self.sock.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate can't be trusted: {error.verify_message}"
        case TimeoutError():
            return "it doesn't answer in time"
        case OSError():
            return error.strerror or type(error).__name__
        case _:
            return f"its answer isn't HTTP ({type(error).__name__})"


def _unreachable(host: str, reason: str) -> SourceError:
    return SourceError(
        "forge.unreachable",
        f"{host}: {reason}",
        remedy="check spec.git.status.url, and ca.pem of its credentials for an authority of your own",
    )
