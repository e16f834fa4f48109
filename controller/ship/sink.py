"""A sink: one destination of the journal's records, and how a delivery fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.ship.follower import Shipped


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: the host's name, trimtab's version, the instance; and a clock that never jumps."""

    host: str
    version: str
    instance: str
    monotonic: Callable[[], float]


class Undelivered(Exception):
    """A batch wasn't delivered; it will be tried again.

    What was delivered in the last *doubtful_s* seconds is sent again, too.
    """

    def __init__(self, why: str, *, doubtful_s: float = 0.0) -> None:
        super().__init__(why)
        self.doubtful_s = doubtful_s


class Rejected(Exception):
    """A batch was delivered, but for *count* records that the receiver refuses for good.

    It must not be sent again.
    """

    def __init__(self, why: str, *, count: int) -> None:
        super().__init__(why)
        self.count = count


class Sink(Protocol):
    """One destination, used by one thread."""

    def deliver(self, batch: Sequence[Shipped]) -> None:
        """Return once all of it is delivered.

        Raises:
            Undelivered: some of it may not be.
            Rejected: all is, but for some records that nobody need try again.
        """
        ...

    def close(self) -> None:
        """Let everything go."""
        ...
