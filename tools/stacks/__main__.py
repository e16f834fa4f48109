"""Compose stacks with docker compose and with trimtab: ``python -m tools.stacks [DIR] [--part PART]``.

Every folder in DIR with a compose.yaml is a stack. Without DIR, the stacks of tests/e2e/stacks are run, and
docs/compose-stacks.md is written. Exit status 1 if a difference is unannounced, or a request failed that
needn't have.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.engine import FoundEngine, PrivateEngine, open_engine
from tools.stacks import proxied, results
from tools.stacks.adoption import adopt_stack
from tools.stacks.load import change_under_load
from tools.stacks.published import run_published
from tools.stacks.side_by_side import compare_stack
from tools.stacks.sides import STACKS, load_images

Part = Callable[[PrivateEngine | FoundEngine, Path], dict[str, Any]]
#: The part with stacks of its own, one stack at a time.
PROXIED: Final = "proxied"
#: The part with the projects of others: they are recorded with the commit of their folder.
RUN: Final = "run"
#: What can be run with a stack; each part returns its results as JSON.
PARTS: Final[dict[str, Part]] = {
    "compare": lambda engine, stack: results.of_comparison(compare_stack(engine, stack)),
    "load": lambda engine, stack: results.of_load(change_under_load(engine, stack)),
    "adopt": lambda engine, stack: results.of_adoption(adopt_stack(engine, stack)),
    PROXIED: lambda engine, stack: results.of_proxied(proxied.proxied_stack(engine, stack)),
    RUN: run_published,
}
#: Characters of a failure that are printed, from both ends.
SHOWN: Final = 700


def main() -> int:
    """Run the parts; return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=STACKS, metavar="DIR")
    parser.add_argument("--stack", action="append", help="only this stack, again for several")
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="only this part")
    parser.add_argument("--jobs", type=int, default=3, help="stacks at a time (3)")
    options = parser.parse_args()
    chosen = chosen_stacks(options.folder, options.stack)
    if not chosen:
        print(f"no folder in {options.folder} has a compose.yaml", file=sys.stderr)
        return 64
    parts = options.part or (sorted({*PARTS} - {RUN}) if options.folder == STACKS else ["compare"])
    engine = open_engine()
    faults = 0
    try:
        load_images(engine)
        for part in parts:
            alone = part == PROXIED
            stacks = chosen_stacks(proxied.FOLDER, None) if alone else chosen
            with ThreadPoolExecutor(1 if alone else options.jobs) as pool:
                outcomes = [*pool.map(partial(attempt, engine, part), stacks)]
            faults += sum(outcome is None or results.faults(outcome) for outcome in outcomes)
            found = {k.name: v for k, v in zip(stacks, outcomes, strict=True) if v}
            if part == RUN:
                whole = {each.name: found.get(each.name, {"failed": True}) for each in stacks}
                results.record(part, {results.of_folder(options.folder): whole})
            elif options.folder == STACKS:
                results.record(part, found)
    finally:
        engine.close()
    return 1 if faults else 0


def chosen_stacks(folder: Path, names: list[str] | None) -> list[Path]:
    """Return the folders with a Compose file below a folder: all, or those of the names."""
    found = [each.parent for each in sorted(folder.glob("*/compose.y*ml"))]
    return [each for each in found if not names or each.name in names]


def attempt(engine: PrivateEngine | FoundEngine, part: str, stack: Path) -> dict[str, Any] | None:
    """Run a part with a stack and print the outcome; return None if the stack doesn't run."""
    try:
        outcome = PARTS[part](engine, stack)
    except Exception as error:  # noqa: BLE001 - the other stacks go on
        text = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
        shown = text if len(text) < 2 * SHOWN else f"{text[:SHOWN]} … {text[-SHOWN:]}"
        print(f"{part} {stack.name}: {shown}", flush=True)
        return None
    print("\n".join([f"{part} {stack.name}", *results.lines(part, outcome)]), flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
