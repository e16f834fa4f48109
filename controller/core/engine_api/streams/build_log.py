"""The log of a build, from the lines of the engine: the step it is at, and its last lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from controller.core.encoding.json_members import parse_json
from controller.core.encoding.terminal_text import printable_name

#: Lines that are kept for an error, and letters of each.
KEPT_LINES: Final = 20
_LETTERS: Final = 200
_STEP: Final = re.compile(r"Step ([0-9]+/[0-9]+) : (.+)")
#: What the builder says of containers and layers.
_NOISE: Final = re.compile(r" ---> .*")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class BuildLog:
    """The log of a build so far."""

    #: Such as ``step 3/9, RUN make``; '' before the first one.
    step: str = ""
    lines: tuple[str, ...] = ()
    #: The last bytes without an end of a line.
    rest: str = ""


def advance(log: BuildLog, line: bytes) -> BuildLog:
    """Return the log after a line of the engine's answer."""
    try:
        told = parse_json(line)
    except ValueError:
        return log
    text = told.get("stream") if isinstance(told, dict) else None
    if not isinstance(text, str):
        return log
    *whole, rest = (log.rest + _COLOUR.sub("", text)).split("\n")
    step, lines = log.step, log.lines
    for each in whole:
        if match := _STEP.fullmatch(each.strip()):
            step = printable_name(f"step {match[1]}, {match[2]}"[:_LETTERS])
        if each.strip() and not _NOISE.fullmatch(each):
            lines = (*lines, printable_name(each.rstrip()[:_LETTERS]))[-KEPT_LINES:]
    return BuildLog(step, lines, rest[-_LETTERS:])


def describe(image: str, log: BuildLog) -> str:
    """Return how far a build is."""
    return f"{image}: {log.step or 'sending the context'}"
