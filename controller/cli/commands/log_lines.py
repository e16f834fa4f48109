"""Print the output of containers: the replica's name in a colour, then the escaped line.

Lines of stdout go to stdout, and lines of stderr to stderr, as in ``docker logs``.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TextIO

import click

from controller.core.encoding.text import printable, printable_json, printable_output
from controller.model.container_output import LogLine

#: The colours of the labels in turn, as in ``docker compose logs``.
COLOURS = ("cyan", "yellow", "green", "magenta", "blue")


@dataclass(frozen=True, slots=True)
class LineOrigin:
    """The container of a line."""

    label: str  # usable as NAME on the command line
    slot: int
    container: str


def has_colours(stream: TextIO) -> bool:
    """Return True if *stream* is a terminal, and neither --no-color nor NO_COLOR is set."""
    context = click.get_current_context(silent=True)
    return stream.isatty() and (context is None or context.find_root().color is not False)


@dataclass(slots=True)
class LinePrinter:
    """Prints lines of output, labelled with the replica if there are several replicas."""

    timestamps: bool
    as_json: bool
    _labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)  # streams of tests have none
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")

    def expect(self, labels: Collection[str]) -> None:
        """Register labels before printing, so that all prefixes have the same width."""
        for label in labels:
            if label not in self._labels:
                self._labels.append(label)

    def print(self, origin: LineOrigin, line: LogLine) -> None:
        """Print a line."""
        if self.as_json:
            place = {"time": line.time, "slot": origin.slot, "container": origin.container}
            members = {**place, "stream": line.stream, "line": line.text}
            self._write(sys.stdout, printable_json(members))
            return
        stream = sys.stderr if line.stream == "stderr" else sys.stdout
        colours = has_colours(stream)
        text = printable_output(line.text, colours=colours)
        time = f"{printable(line.time)} " if self.timestamps else ""
        if stream is sys.stderr:
            sys.stdout.flush()  # keeps the order if both streams are the same file
        self._write(stream, f"{self._prefix(origin.label, colours=colours)}{time}{text}")

    def flush(self) -> None:
        """Flush both streams."""
        sys.stdout.flush()
        sys.stderr.flush()

    def _prefix(self, label: str, *, colours: bool) -> str:
        self.expect([label])
        if len(self._labels) < 2:
            return ""
        width = max(len(printable(each)) for each in self._labels)
        text = f"{printable(label):<{width}} | "
        index = self._labels.index(label)
        return click.style(text, fg=COLOURS[index % len(COLOURS)]) if colours else text

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        stream.write(f"{text}\n")
