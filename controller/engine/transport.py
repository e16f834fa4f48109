"""What the adapter needs of a connection to the broker, and the errors that a connection has.

The Docker SDK gives one (``client``); the simulation gives another, over the real gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EngineResponse:
    """One whole answer."""

    status: int
    body: bytes = b""


class NotSent(Exception):
    """Nothing reached the broker: the request certainly did nothing."""


class ConnectionBroken(Exception):
    """The connection broke, or time ran out, after something may have been sent."""


class Silent(ConnectionBroken):
    """A stream said nothing for as long as was agreed; it may be that nothing happened."""


class EngineStream(Protocol):
    """An answer whose body comes line by line."""

    @property
    def status(self) -> int: ...

    def lines(self) -> Iterator[bytes]:
        """Yield lines without their ends; blank ones are left out.

        Raises:
            Broken: the connection broke.
            Silent: it was silent for too long.
        """
        ...

    def close(self) -> None:
        """End it; may be called from another thread, and twice."""
        ...


class Transport(Protocol):
    """Requests to the broker. ``path`` begins with ``/`` and has no version; bodies are JSON.

    ``context`` is the value of the header Trimtab-Context; '' sends none.
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
        """Send one request and return its answer, whatever its status.

        Raises:
            NotSent, Broken
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
        """Send one request without a body; return once the head of its answer is there.

        Raises:
            NotSent, Broken
        """
        ...
