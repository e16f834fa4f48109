"""Lines of files below problems: on a terminal alone, and where there is room."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from controller.cli.output.terminal import excerpts, report_excerpts
from controller.cli.status.table import TableView, fit_status
from controller.model.errors import Problem

TEXT = "kind: Service\nspec:\n  replicas: two\n"
PROBLEM = Problem("field.type", "spec.replicas is a string", "a.yaml", 3, 13)
REPORTED: dict[str, Any] = {
    "code": "field.type",
    "message": "spec.replicas is a string",
    "file": "a.yaml",
    "line": 3,
    "column": 13,
    "remedy": "write 2",
}
LINES = ["     3 |   replicas: two", "       |             ^"]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let standard output be a terminal of 80 columns."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


def plain(lines: Any) -> list[str]:
    return [line.replace("\x1b[31m", "").replace("\x1b[0m", "") for line in lines]


@pytest.mark.usefixtures("terminal")
def test_a_problem_shows_its_line_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TEXT)
    assert plain(excerpts(tmp_path)(PROBLEM)) == LINES
    assert plain(report_excerpts(tmp_path)(REPORTED)) == LINES


def test_no_line_is_shown_in_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TEXT)
    assert excerpts(tmp_path)(PROBLEM) == ()


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    "problem",
    [
        Problem("x", "elsewhere", "b.yaml", 3, 13),
        Problem("x", "the whole file", "a.yaml"),
        Problem("x", "a line (rendered for Release/default/one, r.yaml:1)", "a.yaml", 3, 13),
        Problem("x", "a folder", ".", 3, 13),
        Problem("x", "a file outside", "/etc/passwd", 1, 1),
        Problem("x", "a way out", "../../../../../etc/passwd", 1, 1),
    ],
)
def test_what_has_no_line_in_a_file_shows_none(tmp_path: Path, problem: Problem) -> None:
    (tmp_path / "a.yaml").write_text(TEXT)
    assert excerpts(tmp_path)(problem) == ()


@pytest.mark.usefixtures("terminal")
def test_lines_of_files_give_way_first_where_the_screen_is_full(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TEXT)
    report = {"resources": [], "problems": [REPORTED]}
    view = TableView(80, 0.0, excerpt=report_excerpts(tmp_path))
    assert "replicas: two" in fit_status(report, view, 24)
    assert "replicas: two" not in fit_status(report, view, 4)
