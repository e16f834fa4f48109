"""The only place where commands write to standard output and standard error.

Texts of the controller, an engine, a Git repository or a file can hold escape sequences. ``echo``
writes no control character except line ends, tabs, and colours; everything else is escaped. Colours
and line ends of a *field* are the caller's affair: a field is escaped by ``printable`` (in tables by
``tables.render``) before it becomes part of a text.

The output of containers has rules of its own (``cli.commands.log_lines``).

Signals to a command that shows something until it is stopped.

The lines of a document that have a problem, for the user's own terminal.

Excerpts can contain secrets. They are never written to a pipe, a log or JSON.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import click

from controller.cli.output.tables import clip, terminal_width
from controller.core.encoding.text import printable, terminal_text
from controller.model.errors import Problem, UsageError

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


def confirm(question: str, unconfirmed: UsageError) -> None:
    """Ask for a confirmation on the terminal, and end the command unless the answer is yes.

    Raises:
        UsageError: *unconfirmed*; standard input isn't a terminal.
        Abort: the answer is no.
    """
    if not sys.stdin.isatty():
        raise unconfirmed
    click.confirm(question, abort=True, err=True)


def confirm_approval(question: str, *, check: str) -> None:
    """Ask for the confirmation of an approval, as ``confirm``. *check* says what to look at first."""
    unconfirmed = UsageError(
        "approve.unconfirmed",
        "the approval isn't confirmed, and standard input isn't a terminal",
        remedy=f"check {check}, and repeat the command with --yes",
    )
    confirm(question, unconfirmed)


@contextmanager
def ended_by(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Let a signal that ends the program, such as of a closed terminal, end the block first."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def rewrite(text: str) -> None:
    """Replace the current line of standard error, a terminal, with *text*."""
    click.echo(f"{_ERASE}{terminal_text(text)}", err=True, nl=False)


class ProgressLine:
    """Shows on standard error what a command waits for: a line that is rewritten, else each change as a line."""

    def __init__(self) -> None:
        self._shown: tuple[str, ...] = ()

    def show(self, *texts: str) -> None:
        """Replace the shown texts by *texts*; without a terminal, print the new texts only."""
        texts = tuple(filter(None, texts))
        if texts == self._shown:
            return
        if sys.stderr.isatty():
            width = shutil.get_terminal_size((80, 24)).columns - 1
            rewrite(clip(printable("; ".join(texts)), width))
        else:
            for text in texts:
                if text not in self._shown:
                    echo(printable(text), err=True)
        self._shown = texts

    def print_above(self, text: str) -> None:
        """Print a line for good, above what is shown."""
        shown, is_live = self._shown, sys.stderr.isatty()
        if is_live:
            self.show()
        echo(printable(text), err=True)
        if is_live:
            self.show(*shown)


def echo_data(data: str) -> None:
    """Write a line of data, such as JSON: as it is into a pipe or a file, escaped on a terminal."""
    if sys.stdout.isatty():
        echo(data)
    else:
        click.echo(data.encode())


class SignalWaiter:
    """Waits for signals: requests to stop, and others that only end the wait.

    The handlers write to a pipe. A ``threading.Event`` would not do: its lock isn't reentrant, so
    that a signal during ``wait`` or ``clear`` would block the handler, and the command, for ever.
    """

    def __init__(
        self, *, stop: Iterable[signal.Signals], wake: Iterable[signal.Signals] = ()
    ) -> None:
        #: True once a stop was requested.
        self.stopped = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        for number in stop:
            signal.signal(number, self._stop)
        for number in wake:
            signal.signal(number, self._wake)

    def wait(self, seconds: float, *, descriptor: int | None = None) -> None:
        """Wait until a signal arrives or *descriptor* is readable, at most *seconds*."""
        watched = [self._reader] if descriptor is None else [self._reader, descriptor]
        select.select(watched, [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        self._wake(number, frame)

    def _wake(self, _number: int, _frame: FrameType | None) -> None:
        with suppress(BlockingIOError):  # full: a wake-up is pending already
            os.write(self._writer, b"\0")


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
