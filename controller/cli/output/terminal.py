"""The only place where commands write to standard output and standard error.

Texts of the controller, an engine, a Git repository or a file can hold escape sequences. ``echo``
writes no control character except line ends, tabs, and colours; everything else is escaped. Colours
and line ends of a *field* are the caller's affair: a field is escaped by ``printable`` (in tables by
``tables.render``) before it becomes part of a text.

The output of containers has rules of its own (``cli.containers``).
"""

from __future__ import annotations

import sys

import click

from controller.core.encoding.terminal_text import printable, terminal_text
from controller.model.errors import UsageError

#: Returns to the start of the line, and erases the line.
_ERASE = "\r\x1b[K"


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Write text of one or more lines. Without a terminal, colours are left out."""
    click.echo(terminal_text(text), err=err, nl=nl)


def echo_with_remedy(text: str, remedy: str) -> None:
    """Write a line, and its remedy, if any, indented below. Both are escaped."""
    echo(printable(text))
    if remedy:
        echo(printable(f"    remedy: {remedy}"))


def confirm_approval(question: str, *, check: str) -> None:
    """Ask for the confirmation of an approval on the terminal. *check* says what to look at first.

    Raises:
        UsageError: standard input isn't a terminal.
        Abort: the answer is no.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "approve.unconfirmed",
            "the approval isn't confirmed, and standard input isn't a terminal",
            remedy=f"check {check}, and repeat the command with --yes",
        )
    click.confirm(question, abort=True, err=True)


def rewrite(text: str) -> None:
    """Replace the current line of standard error, a terminal, with *text*."""
    click.echo(f"{_ERASE}{terminal_text(text)}", err=True, nl=False)


def echo_data(data: str) -> None:
    """Write a line of data, such as JSON: as it is into a pipe or a file, escaped on a terminal."""
    if sys.stdout.isatty():
        echo(data)
    else:
        click.echo(data.encode())
