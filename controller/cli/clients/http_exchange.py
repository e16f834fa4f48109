"""One HTTP/1.1 request and its whole answer over a connected socket.

``http.client`` loads parsers for mail and TLS, which cost ``status`` and ``plan`` more than the
exchange itself. The broker frames an answer by its length, or in chunks (RFC 9112, section 7.1).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

READ_BYTES = 64 * 1024
HEAD_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """A whole answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def exchange(
    peer: socket.socket, method: str, target: str, body: bytes | None, *, longest: int
) -> WholeAnswer:
    """Send a request with a JSON body, if any, and return the answer.

    Raises:
        OSError: the connection broke, or a read took longer than the socket's timeout.
        ValueError: the answer isn't HTTP, or its body has more than *longest* bytes.
    """
    fields = (
        "" if body is None else f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    head = f"{method} {target} HTTP/1.1\r\nHost: trimtab\r\nConnection: close\r\n{fields}\r\n"
    peer.sendall(head.encode("ascii") + (body or b""))
    received = _Received(peer)
    status_line, *lines = received.until(b"\r\n\r\n", HEAD_MAX).decode("latin-1").split("\r\n")
    version, _, rest = status_line.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"expected HTTP, not {status_line[:80]!r}")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        content = b"".join(_chunks(received, longest))
    else:
        content = received.exactly(_bounded(int(headers.get("content-length", "0")), longest))
    return WholeAnswer(int(rest[:3]), headers, content)


def _chunks(received: _Received, longest: int) -> Iterator[bytes]:
    left = longest
    while size := _bounded(int(received.until(b"\r\n", HEAD_MAX), 16), left):
        left -= size
        yield received.exactly(size)
        received.until(b"\r\n", HEAD_MAX)


def _bounded(size: int, longest: int) -> int:
    if not 0 <= size <= longest:
        raise ValueError(f"expected a body of at most {longest} bytes, not {size}")
    return size


class _Received:
    """The bytes of an answer, in order."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._buffer = bytearray()

    def until(self, end: bytes, longest: int) -> bytes:
        """Return the bytes before *end*, and drop *end*.

        Raises:
            ValueError: *end* isn't within *longest* bytes.
        """
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > longest:
                raise ValueError(f"expected {end!r} within {longest} bytes")
            self._read()
        return self._take(at, len(end))

    def exactly(self, count: int) -> bytes:
        """Return the next *count* bytes."""
        while len(self._buffer) < count:
            self._read()
        return self._take(count, 0)

    def _read(self) -> None:
        data = self._peer.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the other side hung up")
        self._buffer += data

    def _take(self, count: int, drop: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[: count + drop]
        return taken
