"""The interface of sinks, each with one destination, and the errors of a delivery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.ship.follower import Shipped


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of records, as named in messages."""

    host: str
    version: str  # of trimtab
    instance: str
    monotonic: Callable[[], float]  # a clock that never jumps, in seconds


class Undelivered(Exception):
    """A batch wasn't delivered, and will be sent again.

    Records delivered in the last *doubtful_s* seconds are sent again too.
    """

    def __init__(self, why: str, *, doubtful_s: float = 0.0) -> None:
        super().__init__(why)
        self.doubtful_s = doubtful_s


class Rejected(Exception):
    """A batch was delivered, except *count* records that the receiver rejects permanently.

    The batch must not be sent again.
    """

    def __init__(self, why: str, *, count: int) -> None:
        super().__init__(why)
        self.count = count


class Sink(Protocol):
    """Delivers records to one destination. Used by one thread."""

    def deliver(self, batch: Sequence[Shipped]) -> None:
        """Deliver a batch; return once every record is delivered.

        Raises:
            Undelivered: some records are possibly not delivered.
            Rejected: every record is delivered or permanently rejected.
        """
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...
