"""The pass lock: passes run concurrently, or one caller has the engine to itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PassLock:
    """A shared lock for passes, and an exclusive lock for one caller.

    A lock that starts ``paused`` lets passes run only while a caller keeps it ``open``.
    """

    def __init__(self, *, paused: bool = False) -> None:
        self._changed = threading.Condition()
        self._openers = 0 if paused else 1
        self._exclusive = False
        self._running = 0
        self._closed = False

    @contextmanager
    def passing(self) -> Iterator[bool]:
        """Hold the shared lock during the block; yields False if the lock is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (not self._exclusive and self._openers > 0)
            )
            granted = not self._closed
            self._running += granted
        try:
            yield granted
        finally:
            with self._changed:
                self._running -= granted
                self._changed.notify_all()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let passes run during the block, even if the lock is paused."""
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
        """Wait until no pass runs, and let none start during the block; yields False on timeout."""
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
        """Wait until no caller holds the exclusive lock; return False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._exclusive, timeout_s)

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait until *condition* is true, evaluated after each pass; return False on timeout."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def close(self) -> None:
        """Let no more pass start, and wake all waiters."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
