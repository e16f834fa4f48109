"""The transport port of the adapter: requests to the broker, and the errors of a connection.

``docker_client`` implements the port with the Docker SDK. The simulation has an implementation
over the real gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


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
    """Requests to the broker.

    Arguments of both methods: *path* begins with ``/`` and has no API version. *context* is the
    value of the header Trimtab-Context, '' for no header. Bodies are JSON.
    """

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: object | None,
        context: str,
        timeout_s: float,
    ) -> EngineResponse:
        """Send one request and return its response, whatever its status.

        Raises:
            NotSent, ConnectionBroken
        """
        ...

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        context: str,
        idle_timeout_s: float,
    ) -> EngineStream:
        """Send one request without a body. Returns as soon as the head of the response arrives.

        Raises:
            NotSent, ConnectionBroken
        """
        ...
