"""docs/benchmarks is made from its figures and the notes of its lines."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.suite.lines import LINES
from tools.suite.page import write_page
from tools.suite.results import results_from_json

PAGES = Path(__file__).parents[3] / "docs" / "benchmarks"


def test_the_page_has_the_figures_and_notes_of_now(tmp_path: Path) -> None:
    shutil.copytree(PAGES / "notes", tmp_path / "notes")
    write_page(tmp_path, results_from_json((PAGES / "figures.json").read_text("utf-8")), LINES)
    for name in ("README.md", "figures.svg"):
        assert (tmp_path / name).read_bytes() == (PAGES / name).read_bytes(), (
            f"{name} is old: write it by tools.suite.page.write_page"
        )
