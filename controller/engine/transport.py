"""The transport port of the adapter: requests to the broker, and the errors of a connection.

``docker_client`` implements the port with the Docker SDK. The simulation has an implementation
over the real gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

#: How long a mutation takes at most, unless the engine waits for a container.
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """A request to send."""

    method: str
    #: Begins with ``/`` and has no API version.
    path: str
    query: dict[str, str] = field(default_factory=dict)
    #: Sent as JSON.
    body: dict[str, object] | None = None
    #: Sent as application/octet-stream, in place of *body*.
    data: bytes = field(default=b"", repr=False)
    #: Pieces of a tar archive, sent in place of *body*. Only of streams.
    pieces: Iterator[bytes] | None = field(default=None, repr=False, compare=False)
    #: For the whole response; of a stream, the longest time without a byte.
    timeout_s: float = TIMEOUT_S
    #: The member of the response with the id of a created object, '' for no object.
    id_member: str = ""


@dataclass(frozen=True, slots=True)
class EngineResponse:
    """One whole response."""

    status: int
    body: bytes = b""


class NotSent(Exception):
    """No part of the request reached the broker: the request certainly changed nothing."""


class ConnectionBroken(Exception):
    """The connection broke or timed out, after a part of the request was possibly sent."""


class Silent(ConnectionBroken):
    """A stream sent nothing within its idle timeout. Possibly no event happened."""


class EngineStream(Protocol):
    """A response with a body of lines that arrive over time."""

    @property
    def status(self) -> int: ...

    def lines(self) -> Iterator[bytes]:
        """Yield lines without line ends. Blank lines are skipped.

        Raises:
            ConnectionBroken: the connection broke.
            Silent: the idle timeout is over.
        """
        ...

    def close(self) -> None:
        """End the stream. Another thread can call this, also twice."""
        ...


class Transport(Protocol):
    """Requests to the broker. *context* is the header Trimtab-Context, '' for no header."""

    def call(self, request: OutgoingRequest, context: str) -> EngineResponse:
        """Send one request. Return the response, also of a refused or failed request.

        Raises:
            NotSent, ConnectionBroken
        """
        ...

    def stream(self, request: OutgoingRequest, context: str) -> EngineStream:
        """Send one request. Returns as soon as the head of the response arrives.

        Raises:
            NotSent, ConnectionBroken
        """
        ...
