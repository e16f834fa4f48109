"""What the server of the page asks of the instance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from controller.web.pages import Away, LogsNeeded, PageLogs, Records

#: Samples of the last hour, the oldest first: Unix time, processors (None if unknown), bytes.
Samples = tuple[tuple[float, float | None, int], ...]


class InstanceReader(Protocol):
    """Reads an instance with the rights of the server's user. Every method blocks, and threads share it."""

    def records(self, query: Mapping[str, str]) -> Records | Away:
        """Return records by the parameters of the broker's ``GET journal``."""
        ...

    def logs(self, needed: LogsNeeded) -> PageLogs | Away:
        """Return the last lines of a container."""
        ...

    def metrics(self) -> str | Away:
        """Return the metrics of broker and controller in Prometheus' text format."""
        ...

    def samples(self, key: str) -> Samples:
        """Return the samples of a service; () without any."""
        ...
