"""A changing report: a screen that is redrawn, or a line for each change."""

from __future__ import annotations

import json
from typing import Any, Self

import click

from controller.cli.output.terminal import echo, echo_data
from controller.cli.output.times import current_time
from controller.cli.status.conditions import SETTLED, message_of, word_of
from controller.cli.status.ports import addresses_of
from controller.cli.status.problems import place_of, problem_of
from controller.cli.status.table import ready_of
from controller.core.encoding.terminal_text import printable, terminal_text
from controller.model.errors import NOTES, TrimtabError, notes_text
from controller.model.quantities import format_instant


class Screen:
    """A part of the terminal that is redrawn in place, or the whole alternate screen."""

    def __init__(self, *, alternate: bool) -> None:
        from rich.console import Console  # a slow import, and only for terminals
        from rich.live import Live

        self._console = Console(no_color=click.get_current_context().color is False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            screen=alternate,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @property
    def width(self) -> int:
        """The current width of the terminal, in cells."""
        return self._console.width

    @property
    def height(self) -> int:
        """The current height of the terminal, in lines."""
        return self._console.height

    def draw(self, text: str) -> None:
        """Replace the content with *text*, which can have colours."""
        from rich.text import Text

        content = Text.from_ansi(terminal_text(text))
        content.no_wrap = True
        content.overflow = "crop"
        self._live.update(content, refresh=True)


class ChangeLines:
    """Prints a line for each changed resource or problem; with ``as_json`` each changed report."""

    def __init__(self, *, as_json: bool, timestamps: bool) -> None:
        self._as_json = as_json
        self._timestamps = timestamps
        self._shown: dict[str, str] = {}

    def show(self, report: dict[str, Any]) -> None:
        """Print the differences from the previous report; one with nothing read yet is skipped."""
        if "unread" in report and not report["resources"] and not self._as_json:
            return
        current = dict(_lines_of(report))
        if self._as_json:
            if current != self._shown:
                echo_data(json.dumps(report))
        else:
            for key, text in current.items():
                if self._shown.get(key) != text:
                    self._print(f"{key}  {text}")
            for key in self._shown.keys() - current.keys():
                if key != "waiting":
                    self._print(f"{key}  gone")
        self._shown = current

    def wait(self, error: TrimtabError) -> None:
        """Print once that the command waits for an answer."""
        text = f"waiting: {error.message}"
        if self._shown.get("waiting") != text and not self._as_json:
            self._print(text)
            self._shown = {**self._shown, "waiting": text}

    def _print(self, line: str) -> None:
        prefix = f"{format_instant(current_time())}  " if self._timestamps else ""
        echo(f"{prefix}{printable(line)}")


def _lines_of(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a line for each resource, and for each problem that no resource's line contains."""
    lines = []
    printed: list[dict[str, Any]] = []
    for resource in report["resources"]:
        key = f"{resource['kind']}/{resource['namespace']}/{resource['name']}"
        count = ready_of(resource) if resource["kind"] == "Service" else ""
        addresses = " ".join(addresses_of(resource)) if word_of(resource) in SETTLED else ""
        parts = (word_of(resource), count, message_of(resource), addresses)
        lines.append((key, "  ".join(filter(None, parts))))
        for condition in resource["conditions"]:
            problem = problem_of(resource, condition["message"], report["problems"])
            printed += [problem] if condition["message"] and problem else []
    if notes := notes_text(problem["code"] for problem in report["problems"]):
        lines.append(("notes", notes))
    for problem in report["problems"]:
        if problem["code"] in NOTES:
            continue
        place = place_of(problem)
        if place or problem not in printed:
            head = f"problem {place} {problem['code']}" if place else f"problem {problem['code']}"
            lines.append((head, problem["message"]))
    return lines
