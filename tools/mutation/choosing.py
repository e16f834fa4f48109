"""Choosing what a short run looks at: modules that changed, a few of them, and their tests."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.mutation.making import CORE

TESTS = Path("tests/unit")
#: So many mutants of a module at least: with fewer, the tests' first run would take most of the time.
EACH = 10


def changed(root: Path, since: str) -> set[Path]:
    """Return the files of the core that differ from a commit, relative to the project.

    A clone may lack the commit, as shallow ones do: its oldest commit is taken instead, and told.
    """
    commit = _git(root, "rev-parse", "--verify", "--quiet", f"{since}^{{commit}}")
    if not commit:
        commit = _git(root, "rev-list", "--max-parents=0", "HEAD").splitlines()[-1]
        print(f"mutants: no commit {since} here: taking the oldest, {commit}", file=sys.stderr)
    listed = _git(root, "diff", "--name-only", "--diff-filter=d", commit, "--", str(CORE))
    return {Path(name) for name in listed.splitlines()}


def _git(root: Path, *command: str) -> str:
    ran = subprocess.run(
        ["git", *command], cwd=root, stdout=subprocess.PIPE, text=True, check=False
    )
    return ran.stdout.strip()


def draw(paths: Sequence[Path], most: int, seed: int) -> tuple[list[Path], int]:
    """Return some of the modules, and how many mutants of each make *most* together."""
    count = min(len(paths), max(1, most // EACH))
    drawn = random.Random(seed).sample(paths, count)  # noqa: S311 - a sample
    return sorted(drawn), most // max(1, count)


def tests_of(root: Path, paths: Iterable[Path]) -> list[str]:
    """Return the test files that import one of the modules; and those of the core that import a user of one."""
    core = {_dotted(path.relative_to(root)): _imports(path) for path in (root / CORE).rglob("*.py")}
    modules = {_dotted(path) for path in paths}
    users = modules | {name for name, imported in core.items() if imported & modules}
    return sorted(
        str(path.relative_to(root))
        for path in (root / TESTS).rglob("test_*.py")
        if _imports(path) & (users if path.is_relative_to(root / TESTS / "core") else modules)
    )


def _imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports: packages, modules, and what is in them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module)):
                names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
            case _:
                pass
    return names


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
