"""The layout of the code: tests mirror it, ARCHITECTURE.md lists it, and its mass is counted."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "controller"
MIRROR = ROOT / "tests" / "unit"
#: Folders of tests for what isn't part of the package.
ELSEWHERE = ("docs", "tools")


def load_tool() -> ModuleType:
    """Return ``tools/house``, which has no ending, as a module."""
    loader = importlib.machinery.SourceFileLoader("house", str(ROOT / "tools" / "house"))
    spec = importlib.util.spec_from_loader("house", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


house = load_tool()


def test_unit_tests_mirror_the_package() -> None:
    """``tests/unit/ROOM/test_MODULE.py`` or ``test_MODULE_TOPIC.py`` tests ``controller/ROOM/MODULE.py``."""
    astray = []
    for path in sorted(MIRROR.rglob("test_*.py")):
        room = path.parent.relative_to(MIRROR)
        if room == Path() or room.parts[0] in ELSEWHERE:
            continue
        modules = [p.stem for p in (PACKAGE / room).glob("*.py") if p.name != "__init__.py"]
        name = path.stem.removeprefix("test_")
        if not any(name == module or name.startswith(f"{module}_") for module in modules):
            astray.append(str(path.relative_to(MIRROR)))
    assert astray == []


def test_the_architecture_lists_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert text == house.with_room_table(text), "run tools/house --map"


def test_code_is_counted_without_blank_lines_comments_and_docstrings() -> None:
    text = '"""Say."""\n\nimport os\n\n# Why.\n\n\ndef f():\n    """Do.\n\n    More.\n    """\n    return os\n'
    assert house.code_lines(text) == (3, 1)


def test_a_room_with_one_module_and_a_long_file_are_told() -> None:
    rooms = [house.Folder("controller/a", 1, 10, 10, 1, 1), house.Folder("b", 2, 2000, 901, 1, 1)]
    assert len(list(house.unusual(rooms, 4.1))) == 3
    assert list(house.unusual([house.Folder("b", 2, 900, 900, 1, 1)], 4.0)) == []
