"""The layout of the code: rooms of bounded size, tests that mirror them, prose that names things."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "controller"
MIRROR = ROOT / "tests" / "unit"
FILES_IN_A_FOLDER = 16
#: A file ends where its subject ends; this bound finds those with several subjects.
LINES_IN_A_FILE = 600
PRONOUNS_PERCENT = 4.0
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
folders = cache(house.folders)


def test_no_folder_has_more_files_than_a_reader_can_survey() -> None:
    assert [f.name for f in folders() if f.files > FILES_IN_A_FOLDER] == []


def test_no_file_is_longer_than_a_reader_follows() -> None:
    assert [f.name for f in folders() if f.longest_file > LINES_IN_A_FILE] == []


def test_docstrings_name_things() -> None:
    """Print the ten files with the largest share of pronouns and relatives; bound it over all."""
    counted = house.prose()
    for each in sorted((p for p in counted if p.words >= 50), key=lambda p: -p.share)[:10]:
        print(f"{each.share:4.1f} % of {each.words:>4}  {each.name}")
    share = 100 * sum(p.pronouns for p in counted) / sum(p.words for p in counted)
    assert share <= PRONOUNS_PERCENT


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
