"""A clock that a test moves."""

from __future__ import annotations


class HandClock:
    """``ports.Clock`` whose time is a member."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time
