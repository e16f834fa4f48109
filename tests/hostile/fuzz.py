"""A fuzz of Git sources: ``python -m tests.hostile.fuzz [--inputs N]``.

Repositories are drawn from a seed. Each goes through the parsers and the export; each ``--git-every``-th
also through real git: fetch, verification, export. No input may crash, leave a file outside the
export, replace the served commit by a refused one, or take more than its bound of time and memory. An
input that fails is named with the arguments that replay it alone: ``--seed S --input K``.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile import drawn, parsers
from tests.hostile.drawn import Hostile
from tests.hostile.worlds import World
from tests.memory import MEMORY

#: Processor time of one input, with git's.
CPU_MAX_S = 20.0
#: Resident memory of the largest process, git's included.
MEMORY_MAX_BYTES = 768 << 20
FAILURES_MAX = 20
PROGRESS = 1000
GIT_EVERY = 20


@dataclass(slots=True)
class Tally:
    """What came of the inputs."""

    parsed: Counter[str] = field(default_factory=Counter)
    fetched: Counter[str] = field(default_factory=Counter)
    #: The number of the first input with an outcome.
    firsts: dict[str, int] = field(default_factory=dict)
    #: The numbers of the inputs that failed, with the reasons.
    failures: list[tuple[int, str]] = field(default_factory=list)
    cpu_s: float = 0.0
    longest_s: float = 0.0
    git_longest_s: float = 0.0

    def fail(self, number: int, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        words = str(error).partition("\n")[0][:300]
        place = f"{Path(where.filename).name}:{where.lineno}"
        self.failures.append((number, f"{type(error).__name__} at {place}: {words}"))


def run(world: World, folder: Path, *, seed: int, numbers: Iterable[int], git_every: int) -> Tally:
    """Send inputs through the parsers, and some through git."""
    tally = Tally()
    began = _cpu_s()
    for number in numbers:
        if len(tally.failures) > FAILURES_MAX:
            break
        took_s = _judge(tally, tally.parsed, world, seed, number, lambda it: _parse(it, folder))
        tally.longest_s = max(tally.longest_s, took_s)
        if number % git_every == 0:
            took_s = _judge(tally, tally.fetched, world, seed, number, world.fetch)
            tally.git_longest_s = max(tally.git_longest_s, took_s)
        if number and number % PROGRESS == 0:
            print(f"{number} inputs, {len(tally.failures)} wrong", flush=True)
    tally.cpu_s = _cpu_s() - began
    return tally


def _judge(
    tally: Tally,
    outcomes: Counter[str],
    world: World,
    seed: int,
    number: int,
    send: Callable[[Hostile], str],
) -> float:
    """Send one input, and note its outcome. Return its processor time."""
    it = drawn.draw(seed, number, world.good)
    began = _cpu_s()
    try:
        outcome = send(it)
        outcomes[outcome] += 1
        tally.firsts.setdefault(outcome, number)
        took_s = _cpu_s() - began
        assert took_s < CPU_MAX_S, f"{took_s:.1f} s of processor time"
        assert _memory_bytes() < MEMORY_MAX_BYTES, f"{_memory_bytes() >> 20} MiB of memory"
    except Exception as error:  # noqa: BLE001 - any error is what the fuzz looks for
        tally.fail(number, error)
    return _cpu_s() - began


def _parse(it: Hostile, folder: Path) -> str:
    """Send an input through the parsers and an export of its own, which is then removed."""
    place = folder / "parsed"
    try:
        outcome = parsers.examine(it, place / "fetcher")
        if place.exists():
            found = {path.name for path in (place / "fetcher" / "sources").iterdir()}
            assert found == {"shop"}, f"beside the export: {sorted(found)}"
            beside = [path.name for path in place.iterdir() if path.name != "fetcher"]
            assert not beside, f"beside the fetcher's folder: {beside}"
        return outcome
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _cpu_s() -> float:
    """Return the processor time of this process and its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _memory_bytes() -> int:
    """Return the peak memory of this process, or of a larger child.

    ``ru_maxrss`` of this process includes the memory of the process that started it: getrusage(2).
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) << 10


def report(tally: Tally, *, seed: int) -> list[str]:
    """Return the lines to print."""
    lines = [f"{tally.parsed.total()} through the parsers:", *_table(tally, tally.parsed)]
    lines += [f"{tally.fetched.total()} through git:", *_table(tally, tally.fetched)]
    lines += [f"wrong: --seed {seed} --input {number}: {why}" for number, why in tally.failures]
    lines.append(
        f"seed {seed}: {len(tally.failures)} wrong; {tally.cpu_s:.0f} s of processor time, at most "
        f"{tally.longest_s:.2f} s an input, {tally.git_longest_s:.2f} s with git; "
        f"largest process {_memory_bytes() >> 20} MiB"
    )
    return lines


def _table(tally: Tally, outcomes: Counter[str]) -> list[str]:
    return [
        f"  {count:>7}  {outcome:<36} first: --input {tally.firsts[outcome]}"
        for outcome, count in outcomes.most_common()
    ]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder in memory, where a flush costs nothing, and remove it."""
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="trimtab-hostile-") as name:
        yield Path(name)


def main(argv: Sequence[str]) -> int:
    """Fuzz in a folder in memory, which is removed."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="how many (default 10000)")
    parser.add_argument("--seed", type=int, help="the seed (default: another one each time)")
    parser.add_argument(
        "--input", type=int, metavar="K", help="replay this input of the seed alone"
    )
    parser.add_argument(
        "--git-every",
        type=int,
        metavar="N",
        default=GIT_EVERY,
        help=f"send each N-th input through git too (default {GIT_EVERY})",
    )
    chosen = parser.parse_args(argv)
    seed = chosen.seed if chosen.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}", flush=True)
    alone = chosen.input is not None
    numbers = [chosen.input] if alone else range(chosen.inputs)
    with scratch_folder() as folder:
        world = World(folder / "world")
        every = 1 if alone else chosen.git_every
        tally = run(world, folder, seed=seed, numbers=numbers, git_every=every)
    print("\n".join(report(tally, seed=seed)))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
