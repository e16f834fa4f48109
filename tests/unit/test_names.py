"""A public type name is defined once in controller/: a search for it finds one definition."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "controller"


def type_names(tree: ast.Module) -> Iterator[str]:
    """Yield the public names of the module's classes and of its type aliases (``Graph = ...``).

    An alias is an assignment to a name in CapWords; constants are in capitals throughout.
    """
    for statement in tree.body:
        match statement:
            case ast.ClassDef(name=name):
                pass
            case ast.Assign(targets=[ast.Name(id=name)]):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                pass
            case _:
                continue
        if name[0].isupper() and not name.isupper():
            yield name


def duplicates(files: dict[str, str]) -> dict[str, list[str]]:
    """Return the type names that several of the files define, with those files."""
    definitions: dict[str, list[str]] = defaultdict(list)
    for file, text in files.items():
        for name in type_names(ast.parse(text)):
            definitions[name].append(file)
    return {name: places for name, places in definitions.items() if len(places) > 1}


def test_a_public_type_name_is_defined_once() -> None:
    files = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    assert len(files) > 200, "the package was not found"
    assert duplicates(files) == {}


def test_a_class_and_an_alias_of_the_same_name_are_found() -> None:
    files = {
        "a.py": "class Slot:\n    pass\nLIMIT = 1\n_Row = dict[str, int]\nKeys = list[str]\n",
        "b.py": "Slot = tuple[str, int]\nLIMIT = 2\n_Row = dict[str, str]\n",
        "c.py": "from a import Slot\ndef make() -> Slot: ...\n",
        "d.py": "Keys: TypeAlias = tuple[str, ...]\n",
    }
    assert duplicates(files) == {"Slot": ["a.py", "b.py"], "Keys": ["a.py", "d.py"]}
