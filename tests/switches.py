"""Switches between threads, kept rare: each thread runs until it blocks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Longer than any test that uses this module.
NEVER_S = 600.0


@contextmanager
def only_when_blocked() -> Iterator[None]:
    """Let no thread interrupt another that runs: a thread runs until it waits.

    So ``Thread.start`` returns once the new thread waits, and a woken thread runs once the thread
    that woke it waits. The order of wake-ups in a test is then the same in each run.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(NEVER_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
