"""Calls that may hang for ever, each in a thread of its own, and only so many at once.

A filesystem whose server is gone holds whoever looks at it. Threads of a pool would be used up by
that, and others' work with them; and the process would wait for them at its end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

A = TypeVar("A")
T = TypeVar("T")


class ThreadsBusy(Exception):
    """So many calls hang that no other one is begun."""


class ThreadLimit(Generic[A, T]):
    """Makes calls of *function* aside, at most *threads* of them at once. One event loop's."""

    def __init__(self, function: Callable[[A], T], *, threads: int) -> None:
        self._function = function
        self._threads = threads
        self._running = 0

    async def __call__(self, argument: A) -> T:
        """Return what the function does; whoever stops waiting leaves it to its thread.

        Raises:
            Crowded: too many are at it.
        """
        if self._running >= self._threads:
            raise ThreadsBusy
        self._running += 1
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def ended(value: T | None, error: BaseException | None) -> None:
            self._running -= 1
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)  # type: ignore[arg-type]  # the function's own, then

        def call() -> None:
            value, error = None, None
            try:
                value = self._function(argument)
            except BaseException as raised:  # noqa: BLE001 - it is the caller's, in its own task
                error = raised
            with suppress(RuntimeError):  # the loop ended before this did
                loop.call_soon_threadsafe(ended, value, error)

        threading.Thread(target=call, name="aside", daemon=True).start()
        return await answer
