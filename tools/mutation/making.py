"""Making mutants: mutmut's, of a copy of the project.

What mutmut leaves out is given to it in a form that it takes: properties, and the lambdas in
tables at the top of a module, where rules are decided. It mutates neither constants nor
annotations, nor functions with other decorators.
"""

from __future__ import annotations

import difflib
import math
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from mutmut.mutation.file_mutation import (
    Mutation,
    combine_mutations_to_source,
    create_mutations,
)
from mutmut.utils.format_utils import mangled_name_from_mutant_name

CORE = Path("controller/core")
#: mutmut asks for it wherever it is imported.
CONFIG = "[mutmut]\nsource_paths=controller\n"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mutant: ``MODULE.NAME`` as mutmut knows it, and what it changes."""

    module: str
    name: str
    change: str

    @property
    def full_name(self) -> str:
        """What makes mutmut's trampolines call it."""
        return f"{self.module}.{self.name}"

    @property
    def function(self) -> str:
        """What mutmut counts calls of the mutated function under."""
        return mangled_name_from_mutant_name(self.full_name)


def copy_project(root: Path, into: Path) -> None:
    """Copy what Git knows of, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        if name and (root / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, into / name)
    (into / "setup.cfg").write_text(CONFIG)


def modules(root: Path) -> list[Path]:
    """Return the modules of the core, relative to the project."""
    found = (root / CORE).rglob("*.py")
    return sorted(path.relative_to(root) for path in found if path.name != "__init__.py")


def mutate(path: Path, *, percent: float, most: int | None, seed: int) -> tuple[list[Mutant], int]:
    """Put mutants into a module of the copy, which is the working directory.

    Returns:
        Those that were put in, so many in a hundred and at *most* so many, at random, and how many
        there could be.
    """
    code = flattened(cst.parse_module(path.read_text())).code
    module, mutations, ignored_classes, ignored_functions = create_mutations(str(path), code)
    mutations = [m for m in mutations if isinstance(_function(m), cst.FunctionDef)]
    possible = len(mutations)
    wanted = math.ceil(possible * percent / 100)
    wanted = wanted if most is None else min(wanted, most)
    chosen = random.Random(f"{seed} {path}").sample(range(possible), wanted)  # noqa: S311 - a sample
    mutations = [mutations[index] for index in sorted(chosen)]
    made = combine_mutations_to_source(module, mutations, ignored_classes, ignored_functions)
    path.write_text(made.code)
    lines = made.code.splitlines()
    spans = made.line_span_by_function_name
    texts = {name: lines[span.start - 1 : span.end] for name, span in spans.items()}
    name = ".".join(path.with_suffix("").parts)
    return [Mutant(name, each, _change(each, texts)) for each in made.mutant_names], possible


def _function(mutation: Mutation) -> cst.CSTNode | None:
    return mutation.contained_by_top_level_function


def _change(name: str, texts: dict[str, list[str]]) -> str:
    original = texts[f"{mangled_name_from_mutant_name(name)}__mutmut_orig"]
    # The first lines that differ are those of its name.
    different = difflib.unified_diff(original[1:], texts[name][1:], lineterm="", n=0)
    told = [line for line in different if not line.startswith(("---", "+++", "@@"))]
    return "\n".join(line for line in told if "__mutmut_" not in line)


def flattened(module: cst.Module) -> cst.Module:
    """Return a module in which properties and the lambdas of tables are functions."""
    body: list[cst.BaseStatement | cst.SimpleStatementLine] = []
    for number, statement in enumerate(module.body):
        if isinstance(statement, cst.SimpleStatementLine):
            hoist = _Hoist(number)
            changed = statement.visit(hoist)
            assert isinstance(changed, cst.SimpleStatementLine), "a name for a lambda, no more"
            body += [*hoist.functions, changed]
        elif isinstance(statement, cst.ClassDef):
            inside = list(_without_properties(statement.body.body))
            body.append(statement.with_changes(body=statement.body.with_changes(body=inside)))
        else:
            body.append(statement)
    return module.with_changes(body=body)


class _Hoist(cst.CSTTransformer):
    """Puts names in the place of a statement's lambdas."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self.functions: list[cst.FunctionDef] = []

    def visit_Lambda(self, node: cst.Lambda) -> bool:  # noqa: ARG002, N802 - as libcst wants it
        return False

    def leave_Lambda(  # noqa: N802 - as libcst wants it
        self,
        original_node: cst.Lambda,  # noqa: ARG002 - as above
        updated_node: cst.Lambda,
    ) -> cst.BaseExpression:
        name = cst.Name(f"_rule_{self._number}_{len(self.functions)}")
        returns = cst.SimpleStatementLine([cst.Return(updated_node.body)])
        body = cst.IndentedBlock([returns])
        self.functions.append(cst.FunctionDef(name, updated_node.params, body))
        return name


def _without_properties(
    body: Iterable[cst.BaseStatement | cst.BaseSmallStatement],
) -> Iterator[cst.BaseStatement | cst.BaseSmallStatement]:
    for statement in body:
        match statement:
            case cst.FunctionDef(
                name=cst.Name(value=name),
                decorators=[cst.Decorator(decorator=cst.Name(value="property"))],
            ):
                yield statement.with_changes(decorators=())
                yield cst.parse_statement(f"{name} = property({name})")
            case _:
                yield statement
