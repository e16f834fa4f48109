"""What documents point at is there: files, sections, tests; and the architecture stays short."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    path
    for folder in (
        ROOT,
        *(ROOT / "docs" / each for each in ("", "decisions", "operations", "security")),
    )
    for path in folder.glob("*.md")
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
#: ``unit/core/test_x.py::test_y`` below tests/, with or without ``tests/`` before it.
TEST = re.compile(r"`(?:tests/)?([a-z0-9_/]+/test_[a-z0-9_]+\.py)(?:::(test_[a-z0-9_]+))?`")
#: A file or folder of this repository, named as such.
PATH = re.compile(
    r"`((?:controller|tests|configs|docs|tools|desired-state)/[A-Za-z0-9_.{}/-]+|[A-Z]+\.md)`"
)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
ARCHITECTURE_LINES = 300


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def broken(text: str, folder: Path) -> list[str]:
    """Return what a document's text points at and isn't there."""
    prose = FENCED.sub("", text)
    found = [
        f"link {target}"
        for target in LINK.findall(prose)
        if "://" not in target and not target.startswith("#")
        if not (folder / target.partition("#")[0]).exists()
    ]
    found += [
        f"anchor {target}"
        for target in LINK.findall(prose)
        if "#" in target and "://" not in target
        if target.partition("#")[2] not in anchors(target.partition("#")[0], text, folder)
    ]
    for file, test in TEST.findall(text):
        path = ROOT / "tests" / file
        if not path.exists():
            found.append(f"tests/{file}")
        elif test and test not in functions_in(path):
            found.append(f"tests/{file}::{test}")
    return found + [name for name in PATH.findall(prose) if not (ROOT / name).exists()]


def anchors(file: str, text: str, folder: Path) -> set[str]:
    """Return the anchors of a document's headings, as hosts of repositories make them."""
    target = folder / file
    told = target.read_text("utf-8") if file and target.is_file() else text
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", told), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@cache
def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_all_that_a_document_points_at_is_there(document: Path) -> None:
    assert broken(document.read_text("utf-8"), document.parent) == []


def test_what_is_not_there_is_noticed() -> None:
    text = (
        "# A title\n[a](no.md) [b](README.md) [c](#a-title) [d](#none) [e](https://example.org)\n"
        "`unit/test_lint.py::test_no` `tests/unit/test_lint.py::test_the_code_passes`\n"
        "`tests/unit/test_none.py` `controller/none.py` `NONE.md`\n```\n[f](in-code.md)\n```\n"
    )
    assert broken(text, ROOT) == [
        "link no.md",
        "anchor #none",
        "tests/unit/test_lint.py::test_no",
        "tests/unit/test_none.py",
        "tests/unit/test_none.py",
        "controller/none.py",
        "NONE.md",
    ]


def test_each_guarantee_names_a_test() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8").partition("\n## Guarantees\n")[2]
    guarantees = re.split(r"^\*\*G(?=\d)", text.partition("\n## ")[0], flags=re.MULTILINE)[1:]
    assert [int(g.partition(".")[0]) for g in guarantees] == list(range(1, len(guarantees) + 1))
    assert [g[:40] for g in guarantees if not any(test for _, test in TEST.findall(g))] == []


def test_each_decision_says_what_holds_it_and_is_numbered() -> None:
    decisions = [path for path in DOCUMENTS if path.parent.name == "decisions"]
    numbers = [int(path.name[:4]) for path in decisions]
    assert numbers == sorted(set(numbers)), "each number once; numbers are handed out in advance"
    parts = ("**Context.**", "**Options.**", "**Decision.**", "**Consequences.**", "**Held by.**")
    for path in decisions:
        text = path.read_text("utf-8")
        assert [part for part in parts if part not in text] == [], named(path)


def test_the_architecture_can_be_read_in_one_sitting() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert len(text.splitlines()) <= ARCHITECTURE_LINES


def test_the_architecture_names_what_is_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    steps = text.partition("\n## One pass")[2].partition("\n## The packages")[0]
    named_here = set(re.findall(r"`(?:\w+\.)*(\w+)(?:\([^`]*\))?`", steps))
    known = {"LOOK", "GLANCE", "PrunePending"}
    for path in (ROOT / "controller").rglob("*.py"):
        code = path.read_text("utf-8")
        known |= set(re.findall(r"(?:(?:def|class) |^)(\w+)(?=[:(]| ?=)", code, re.MULTILINE))
        known |= {path.stem, path.parent.name}
    assert len(named_here) > 30
    assert named_here - known == set()
