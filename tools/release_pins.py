"""Prints the pins of constraints.txt that trimtab itself needs, with their hashes.

``python tools/release_pins.py``: what `trimtab[otlp,web]` installs, without the tools of developers.
The distributions are found in this environment, which tools/setup made of constraints.txt.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("otlp", "web")


def needed(name: str, extras: tuple[str, ...]) -> set[str]:
    """Return the names of the distributions that *name* with *extras* needs, without itself."""
    found: set[str] = set()
    queue = [(name, extras)]
    seen = set(queue)
    while queue:
        for child in children(*queue.pop()):
            found.add(child[0])
            if child not in seen:
                seen.add(child)
                queue.append(child)
    return found


def children(name: str, extras: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the distributions that *name* with *extras* asks for itself, each with the extras asked for."""
    for text in requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if not marker or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield canonicalize_name(requirement.name), tuple(sorted(requirement.extras))


def pins(constraints: str) -> dict[str, str]:
    """Return the lines of each pin of constraints.txt, by canonical name."""
    blocks = re.split(r"(?m)^(?=[a-z0-9])", constraints)
    return {canonicalize_name(block.split("==")[0]): block for block in blocks if "==" in block}


def main() -> None:
    """Print the pins, sorted by name."""
    known = pins((ROOT / "constraints.txt").read_text())
    names = sorted(needed("trimtab", EXTRAS))
    if missing := [name for name in names if name not in known]:
        sys.exit(f"constraints.txt has no pin of {', '.join(missing)}: run tools/lock")
    for name in names:
        lines = (line for line in known[name].splitlines() if not line.lstrip().startswith("#"))
        print("\n".join(lines))


if __name__ == "__main__":
    main()
