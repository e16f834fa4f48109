"""Turns: when workers may run passes, and when one caller has the engine to itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PassLock:
    """Lets passes run side by side, or none of them.

    ``paused`` from the start, passes only run while somebody keeps them ``open``.
    """

    def __init__(self, *, paused: bool = False) -> None:
        self._changed = threading.Condition()
        self._openers = 0 if paused else 1
        self._exclusive = False
        self._running = 0
        self._closed = False

    @contextmanager
    def passing(self) -> Iterator[bool]:
        """Wait for the turn of a pass; yields False when it is never to come."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._is_free())
            granted = not self._closed
            self._running += granted
        try:
            yield granted
        finally:
            with self._changed:
                self._running -= granted
                self._changed.notify_all()

    def _is_free(self) -> bool:
        return not self._exclusive and self._openers > 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let passes run, also where they are paused."""
        with self._changed:
            self._openers += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._openers -= 1

    @contextmanager
    def exclusive(self, *, timeout_s: float) -> Iterator[bool]:
        """Wait until no pass runs, and let none begin; yields False if that took too long."""
        with self._changed:
            free = self._changed.wait_for(lambda: not self._exclusive, timeout_s)
            if free:
                self._exclusive = True
                free = self._changed.wait_for(lambda: self._running == 0, timeout_s)
                if not free:
                    self._exclusive = False
                    self._changed.notify_all()
        try:
            yield free
        finally:
            if free:
                with self._changed:
                    self._exclusive = False
                    self._changed.notify_all()

    def await_shared(self, *, timeout_s: float) -> bool:
        """Wait until nobody has the engine to himself; return whether it came to that."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._exclusive, timeout_s)

    def wait_for(self, told: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait until *told* is true, asked again after each pass; return whether it became so."""
        with self._changed:
            return self._changed.wait_for(told, timeout_s)

    def close(self) -> None:
        """Let no pass begin any more, and wake everybody."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
