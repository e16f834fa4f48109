"""Calls that can hang forever: each runs in a daemon thread, and their number is limited.

A network file system without its server blocks every reader. Such calls would use up the threads
of a pool, and the process would wait for the threads at the end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

#: How long a thread without a call stays.
IDLE_S = 10.0

A = TypeVar("A")
T = TypeVar("T")


#: The calls of one thread; None ends it.
_Calls = SimpleQueue[Callable[[], None] | None]


class ThreadsBusy(Exception):
    """All threads of the limit are in use."""


class ThreadLimit(Generic[A, T]):
    """Calls *function* in at most *threads* threads at a time. Belongs to one event loop.

    A thread stays for the next calls: the start of a thread stops the event loop until the new
    thread has got a processor. It ends after *idle_s* without a call. With None it stays: a child
    process that a call starts is told of the end of its parent, which is the thread
    (``PR_SET_PDEATHSIG``), so the child lives on.
    """

    def __init__(
        self, function: Callable[[A], T], *, threads: int, idle_s: float | None = IDLE_S
    ) -> None:
        self._function = function
        self._threads = threads
        self._idle_s = idle_s
        self._running = 0
        self._idle: list[_Calls] = []

    async def __call__(self, argument: A) -> T:
        """Return the function's result. After a cancellation the thread runs on alone.

        Raises:
            ThreadsBusy: all threads are in use.
        """
        if self._running >= self._threads:
            raise ThreadsBusy
        self._running += 1
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def ended(value: T | None, error: BaseException | None) -> None:
            self._running -= 1
            self._idle.append(calls)
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)  # type: ignore[arg-type]  # a T if there is no error

        def call() -> None:
            value, error = None, None
            try:
                value = self._function(argument)
            except BaseException as raised:  # noqa: BLE001 - raised again in the caller's task
                error = raised
            loop.call_soon_threadsafe(ended, value, error)

        if self._idle:
            calls = self._idle.pop()
        else:
            calls = SimpleQueue()
            serve = partial(self._serve, loop, calls)
            threading.Thread(target=serve, name="thread-limit", daemon=True).start()
        calls.put(call)
        return await answer

    def _serve(self, loop: asyncio.AbstractEventLoop, calls: _Calls) -> None:
        """Execute calls in a thread, until none comes for a while."""
        with suppress(RuntimeError):  # the event loop ended before the call
            while True:
                try:
                    call = calls.get(timeout=self._idle_s)
                except Empty:
                    loop.call_soon_threadsafe(self._dismiss, calls)
                    call = calls.get()
                if call is None:
                    return
                call()

    def _dismiss(self, calls: _Calls) -> None:
        """End an idle thread, unless it has got a call by now."""
        if calls in self._idle:
            self._idle.remove(calls)
            calls.put(None)
