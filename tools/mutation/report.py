"""What became of mutants, as lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tools.mutation.making import Mutant
from tools.mutation.running import KILLED, SURVIVED, UNTESTED


def table(
    made: Sequence[tuple[Sequence[Mutant], int]], results: Mapping[Mutant, str]
) -> tuple[list[str], float]:
    """Return a line a module and one for all, and how many percent were killed in all."""
    lines = [
        f"{'module':<24} {'possible':>8} {'run':>5} {KILLED:>7} {SURVIVED:>9} {UNTESTED:>9}      %"
    ]
    everything: Counter[str] = Counter()
    for mutants, possible in made:
        if not mutants:
            continue
        found = Counter(results[mutant] for mutant in mutants if mutant in results)
        lines.append(_line(mutants[0].module.removeprefix("controller.core."), possible, found))
        everything += found
    lines.append(_line("all", sum(possible for _, possible in made), everything))
    return lines, _share(everything)


def _line(name: str, possible: int, found: Counter[str]) -> str:
    counts = f"{found[KILLED]:>7} {found[SURVIVED]:>9} {found[UNTESTED]:>9}"
    return f"{name:<24} {possible:>8} {found.total():>5} {counts} {_share(found):>6.1f}"


def _share(found: Counter[str]) -> float:
    return 100 * found[KILLED] / found.total() if found else 100.0


def survivors(results: Mapping[Mutant, str]) -> Iterator[str]:
    """Yield what those change that no test noticed."""
    for mutant, result in sorted(results.items(), key=lambda each: each[0].full_name):
        if result != KILLED:
            yield f"\n{mutant.full_name}: {result}\n{mutant.change}"
