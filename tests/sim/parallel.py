"""Worlds side by side, on all processors: each is alone in its own.

They give way to whatever else runs: their time is virtual, while other tests wait for a real engine.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

NICE = 10
WORLD = "tests.sim.world"
A = TypeVar("A")
R = TypeVar("R")


def mapped(work: Callable[[A], R], over: Sequence[A], *, chunk: int) -> Iterator[R]:
    """Yield what *work* makes of each, in order; a single one is done here, for debuggers."""
    if len(over) == 1:
        yield work(over[0])
        return
    # The server imports the product once, for all processes of all pools.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([WORLD])
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=server, initializer=os.nice, initargs=(NICE,)
    ) as pool:
        yield from pool.map(work, over, chunksize=chunk)
