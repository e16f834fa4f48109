"""Signals to a command that shows something until it is stopped."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType


class SignalWaiter:
    """Waits for signals: requests to stop, and others that only end the wait.

    The handlers write to a pipe. A ``threading.Event`` would not do: its lock isn't reentrant, so
    that a signal during ``wait`` or ``clear`` would block the handler, and the command, for ever.
    """

    def __init__(
        self, *, stop: Iterable[signal.Signals], wake: Iterable[signal.Signals] = ()
    ) -> None:
        #: True once a stop was requested.
        self.stopped = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        for number in stop:
            signal.signal(number, self._stop)
        for number in wake:
            signal.signal(number, self._wake)

    def wait(self, seconds: float, *, descriptor: int | None = None) -> None:
        """Wait until a signal arrives or *descriptor* is readable, at most *seconds*."""
        watched = [self._reader] if descriptor is None else [self._reader, descriptor]
        select.select(watched, [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        self._wake(number, frame)

    def _wake(self, _number: int, _frame: FrameType | None) -> None:
        with suppress(BlockingIOError):  # full: a wake-up is pending already
            os.write(self._writer, b"\0")
