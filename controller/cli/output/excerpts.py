"""The lines of a document that have a problem, for the user's own terminal.

Excerpts can contain secrets. They are never written to a pipe, a log or JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from controller.cli.output.tables import terminal_width
from controller.model.errors import Problem

Excerpts = Callable[[Problem], Sequence[str]]
ReportExcerpts = Callable[[dict[str, Any]], Sequence[str]]


def excerpts(folder: Path) -> Excerpts:
    """Return a function for the excerpt of a problem in a file below *folder*.

    The function returns no lines if standard output isn't a terminal.
    """
    width = terminal_width()
    texts: dict[str, str | None] = {}

    def show(problem: Problem) -> Sequence[str]:
        from controller.core.yaml.source_excerpt import excerpt  # imports YAML

        # The line numbers of a rendered document belong to the output of its template.
        is_rendered = "(rendered for " in problem.message
        if width is None or is_rendered or not (problem.line and problem.column):
            return ()
        if problem.file not in texts:
            texts[problem.file] = _text(folder, problem.file)
        text = texts[problem.file]
        if text is None:
            return ()
        lines = excerpt(text, problem.line, problem.column, width=width)
        return [lines[0], click.style(lines[1], fg="red")] if lines else ()

    return show


def _text(folder: Path, name: str) -> str | None:
    """Return the text of a file, None unless it is a file below *folder*: a report can name any."""
    from controller.core.yaml.documents import decode
    from controller.core.yaml.file_limit import MAX_BYTES

    try:
        file = (folder / name).resolve(strict=True)
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            return None
        content = file.read_bytes()
    except OSError:
        return None
    return decode(content) if len(content) <= MAX_BYTES else None


def report_excerpts(folder: Path) -> ReportExcerpts:
    """Return a function for the excerpt of a problem in a report, as ``excerpts``."""
    show = excerpts(folder)

    def show_problem(problem: dict[str, Any]) -> Sequence[str]:
        place = {name: problem[name] for name in ("file", "line", "column")}
        return show(Problem(problem["code"], problem["message"], **place))

    return show_problem
