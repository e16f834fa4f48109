"""Lines of the desired state below the problems that are in them, on the reader's own terminal.

Never in a pipe, a log or JSON: what is printed there goes on to others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from controller.cli.tables import terminal_width
from controller.core.excerpt import excerpt
from controller.core.yamltext import MAX_BYTES, decode
from controller.model.errors import Problem

Excerpts = Callable[[Problem], Sequence[str]]


def excerpts(folder: Path) -> Excerpts:
    """Return what shows a problem's line of a file below *folder*; nothing where it isn't a terminal."""
    width = terminal_width() if sys.stdout.isatty() else None
    texts: dict[str, str | None] = {}

    def show(problem: Problem) -> Sequence[str]:
        # A rendered document isn't in a file: its lines are those of the template's output.
        if (
            width is None
            or not problem.line
            or not problem.column
            or "(rendered for " in problem.message
        ):
            return ()
        if problem.file not in texts:
            texts[problem.file] = _text(folder / problem.file)
        text = texts[problem.file]
        if text is None:
            return ()
        lines = excerpt(text, problem.line, problem.column, width=width)
        return [lines[0], click.style(lines[1], fg="red")] if lines else ()

    return show


def _text(file: Path) -> str | None:
    try:
        content = file.read_bytes() if file.is_file() else b""
    except OSError:
        return None
    return decode(content) if 0 < len(content) <= MAX_BYTES else None
