"""The cost of documents by their size, at each place that an author fills (``document_places``).

The readers are those of the controller and of the broker's render worker: documents, Compose projects and
env files, all the checks over them, and the requests for what they declare. The cost is counted
(``tests.growth``). ``--timed`` takes processor time of larger sizes instead, which shows what C does: patterns,
slices and searches. ``python -m tests.unit.core.proofs.document_cost`` prints the places whose cost grows
fastest. Charts are apart: their programs have a bound of their own (``tests/hostile/chart_bombs.py``).
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial

from controller.core.proofs.render import RenderScope, render
from controller.model.names import NetworkNames
from tests.growth import LINEAR, Growth, growth, steps
from tests.unit.core.proofs.document_places import Place, all_places, drawn

SCOPE = RenderScope("shop", ("shop",), NetworkNames(), "c" * 40)
SEED = 99
#: A time below this number of seconds is no growth.
NOISE_S = 0.02
#: Processor time varies: a factor below is no finding.
TIMED = 3.0


#: Places whose result itself grows faster. The allowance of values of a project ends that.
BOUNDED = frozenset({"extends that grow"})


def counted(place: Place, n: int) -> int:
    """Return the steps of reading a place of size *n*."""
    files = place.fill(n)
    return steps(lambda: render(files, SCOPE))


def microseconds(place: Place, n: int) -> int:
    """Return the processor time of reading a place of size *n*, the shorter one of two."""
    files = place.fill(n)
    gc.collect()
    # A collection looks at everything that the reading made so far, and so grows faster.
    gc.disable()
    try:
        taken = []
        for _ in range(2):
            began = time.process_time()
            render(files, SCOPE)
            taken.append(time.process_time() - began)
        return int(min(taken) * 1e6)
    finally:
        gc.enable()


def growths(places: Iterable[Place], size: int) -> Iterator[Growth]:
    """Measure the steps of places at three sizes from *size*."""
    for place in places:
        yield growth(place, partial(counted, place), size)


def timed(places: Iterable[Place], size: int) -> Iterator[Growth]:
    """Measure the time of places, from the first size of which the time can be told."""
    for place in places:
        n = size
        while (small := microseconds(place, n)) < NOISE_S * 1e6 and n < 64 * size:
            n *= 4
        middle, large = microseconds(place, 2 * n), microseconds(place, 4 * n)
        if large - middle > TIMED * max(middle - small, 1):
            large = min(large, microseconds(place, 4 * n))
        if large > 4 * NOISE_S * 1e6:
            yield Growth(place, (small, middle, large))


def main() -> int:
    """Print the places whose cost grows fastest."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--size", type=int, default=64, help="smallest of three sizes")
    parser.add_argument("--show", type=int, default=10, help="places that are printed")
    parser.add_argument("--place", default="", help="only places with this text")
    parser.add_argument(
        "--drawn", type=int, default=500, help="drawn places besides the listed ones"
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--timed", action="store_true", help="processor time of larger sizes")
    chosen = parser.parse_args()
    places = [*all_places(), *(drawn(number, chosen.seed) for number in range(chosen.drawn))]
    places = [place for place in places if chosen.place in str(place) and place.name not in BOUNDED]
    measured = timed(places, 8 * chosen.size) if chosen.timed else growths(places, chosen.size)
    found = sorted(measured, key=lambda each: each.factor, reverse=True)
    for each in found[: chosen.show]:
        print(each)
    bound = TIMED if chosen.timed else LINEAR
    beyond = sum(each.factor > bound for each in found)
    unit = "processor time" if chosen.timed else "steps"
    print(f"{len(places)} places by {unit}, {beyond} beyond the factor {bound}")
    return bool(beyond)


if __name__ == "__main__":
    sys.exit(main())
