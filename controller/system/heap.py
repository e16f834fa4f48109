"""The collector of cyclic garbage, in processes with a large state that stays.

A full collection visits each object. With the state of 10,000 containers in memory that stops all
threads for some 200 ms, again and again. The collections of young objects take a few milliseconds.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: After so many collections of younger objects, the collector itself begins a full one. By default
#: ten, so each plan of thousands of containers led to one, which visited what the plan had made.
FULL_AFTER: Final = 100


@contextmanager
def importing() -> Iterator[None]:
    """Collect nothing during the imports in this block, and exempt the modules afterwards.

    Imports make some 70,000 objects that stay. Collections would visit all of them, during the
    imports, later, and at the end of the process: together a quarter of the time to start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def keep_out_of_collections() -> None:
    """Exempt all objects that exist now from later collections of garbage.

    An exempt object is still freed as soon as nothing refers to the object. Only cycles among exempt
    objects stay; so the cycles that are garbage now are collected first.
    """
    gc.collect()
    gc.freeze()


def postpone_full_collections() -> None:
    """Begin full collections ten times less often, in a process that asks for its own now and then.

    So garbage in cycles that outlived the collections of younger objects waits ten times longer.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_AFTER)
