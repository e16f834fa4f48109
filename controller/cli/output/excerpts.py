"""Lines of the desired state below the problems that are in them, on the reader's own terminal.

Never in a pipe, a log or JSON: what is printed there goes on to others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from controller.cli.output.tables import terminal_width
from controller.model.errors import Problem

Excerpts = Callable[[Problem], Sequence[str]]
ReportedExcerpts = Callable[[dict[str, Any]], Sequence[str]]


def excerpts(folder: Path) -> Excerpts:
    """Return what shows a problem's line of a file below *folder*; nothing where it isn't a terminal."""
    width = terminal_width() if sys.stdout.isatty() else None
    texts: dict[str, str | None] = {}

    def show(problem: Problem) -> Sequence[str]:
        from controller.core.encoding.source_excerpt import (
            excerpt,  # YAML isn't loaded where nothing is wrong
        )

        # A rendered document isn't in a file: its lines are those of the template's output.
        if (
            width is None
            or not problem.line
            or not problem.column
            or "(rendered for " in problem.message
        ):
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
    """Return the text of a file below *folder*, None where it isn't one: a report may name anything."""
    from controller.core.encoding.yaml import MAX_BYTES, decode

    try:
        file = (folder / name).resolve(strict=True)
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            return None
        content = file.read_bytes()
    except OSError:
        return None
    return decode(content) if len(content) <= MAX_BYTES else None


def reported(folder: Path) -> ReportedExcerpts:
    """Return the same for problems as a report has them."""
    show = excerpts(folder)

    def show_reported(problem: dict[str, Any]) -> Sequence[str]:
        place = {name: problem[name] for name in ("file", "line", "column")}
        return show(Problem(problem["code"], problem["message"], **place))

    return show_reported
