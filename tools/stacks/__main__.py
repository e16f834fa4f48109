"""Compare stacks below a folder: ``python -m tools.stacks [DIR] [--stack NAME]``.

Every folder in DIR with a compose.yaml is a stack. Without DIR, the stacks of tests/e2e/stacks are run, and
docs/compose-stacks.md is written. Exit status 1 if a difference is unannounced.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.engine import FoundEngine, PrivateEngine, open_engine
from tools.stacks import results
from tools.stacks.side_by_side import Compared, compare_stack
from tools.stacks.sides import STACKS, load_images

#: Characters of a failure that are printed, from both ends.
SHOWN = 700


def main() -> int:
    """Run the comparison; return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=STACKS, metavar="DIR")
    parser.add_argument("--stack", action="append", help="only this stack, again for several")
    options = parser.parse_args()
    found = [each.parent for each in sorted(options.folder.glob("*/compose.yaml"))]
    chosen = [each for each in found if not options.stack or each.name in options.stack]
    if not chosen:
        print(f"no folder in {options.folder} has a compose.yaml", file=sys.stderr)
        return 64
    engine = open_engine()
    try:
        load_images(engine)
        compared = [each for each in (attempt(engine, stack) for stack in chosen) if each]
    finally:
        engine.close()
    is_whole = options.folder == STACKS and chosen == found and len(compared) == len(chosen)
    if is_whole:
        results.write(results.recorded(compared))
    faults = sum(len(each.unannounced) + len(each.missing) for each in compared)
    return 1 if faults or len(compared) < len(chosen) else 0


def attempt(engine: PrivateEngine | FoundEngine, stack: Path) -> Compared | None:
    """Compare a stack and print the outcome; return None if it doesn't run."""
    try:
        compared = compare_stack(engine, stack)
    except AssertionError as error:
        text = str(error)
        shown = text if len(text) < 2 * SHOWN else f"{text[:SHOWN]} … {text[-SHOWN:]}"
        print(f"{stack.name}: {shown}", flush=True)
        return None
    print(
        f"{compared.stack}: {compared.containers} containers, {compared.fields} fields, "
        f"{len(compared.differences)} differ, {len(compared.unannounced)} unannounced"
    )
    for replica in compared.missing:
        print(f"  {replica}: only one program started it")
    for each in compared.unannounced:
        print(f"  {each.service} {each.field}: {each.compose!r} becomes {each.trimtab!r}")
    sys.stdout.flush()
    return compared


if __name__ == "__main__":
    sys.exit(main())
