"""Prints the output of containers: with the name of the replica, its colour, and escaped.

Lines of stdout go to stdout, lines of stderr to stderr, as ``docker logs`` does.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TextIO

import click

from controller.core.encoding.terminal_text import printable_json, printable_output
from controller.model.container_output import LogLine

#: One after another for each slot, as ``docker compose logs`` does.
COLOURS = ("cyan", "yellow", "green", "magenta", "blue")


@dataclass(frozen=True, slots=True)
class LineOrigin:
    """Where a line comes from. ``label`` is what can be given as NAME."""

    label: str
    slot: int
    container: str


def has_colours(stream: TextIO) -> bool:
    """Return True if *stream* is a terminal, unless --no-color or NO_COLOR was given."""
    context = click.get_current_context(silent=True)
    return stream.isatty() and (context is None or context.find_root().color is not False)


@dataclass(slots=True)
class LinePrinter:
    """Prints lines. The label stands before each if there is more than one."""

    timestamps: bool
    as_json: bool
    _labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)  # a test's has none
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")

    def expect(self, labels: Collection[str]) -> None:
        """Learn of labels before their lines come, so that the prefixes have one width."""
        for label in labels:
            if label not in self._labels:
                self._labels.append(label)

    def print(self, origin: LineOrigin, line: LogLine) -> None:
        """Print one line."""
        if self.as_json:
            self._write(sys.stdout, printable_json(_as_json(origin, line)))
            return
        stream = sys.stderr if line.stream == "stderr" else sys.stdout
        colours = has_colours(stream)
        text = printable_output(line.text, colours=colours)
        time = f"{line.time} " if self.timestamps else ""
        if stream is sys.stderr:
            sys.stdout.flush()  # the two may lead to the same place
        self._write(stream, f"{self._prefix(origin.label, colours=colours)}{time}{text}")

    def flush(self) -> None:
        """Show what was printed so far."""
        sys.stdout.flush()
        sys.stderr.flush()

    def _prefix(self, label: str, *, colours: bool) -> str:
        self.expect([label])
        if len(self._labels) < 2:
            return ""
        text = f"{label:<{max(map(len, self._labels))}} | "
        place = self._labels.index(label)
        return click.style(text, fg=COLOURS[place % len(COLOURS)]) if colours else text

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        stream.write(f"{text}\n")


def _as_json(origin: LineOrigin, line: LogLine) -> dict[str, object]:
    return {
        "time": line.time,
        "slot": origin.slot,
        "container": origin.container,
        "stream": line.stream,
        "line": line.text,
    }
