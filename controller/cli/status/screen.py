"""What is shown of a report as it changes: a screen that is redrawn, or a line for each change."""

from __future__ import annotations

import json
from typing import Any, Self

import click

from controller.cli.output.times import current_time
from controller.cli.status.conditions import message_of, word_of
from controller.cli.status.ports import addresses_of
from controller.cli.status.problems import place_of, problem_of
from controller.cli.status.table import ready_of
from controller.core.encoding.terminal_text import printable
from controller.model.errors import TrimtabError
from controller.model.quantities import format_instant


class Screen:
    """A part of the terminal that is redrawn in place, or all of it on its alternate screen."""

    def __init__(self, *, alternate: bool) -> None:
        from rich.console import Console  # only terminals need it, and it takes long to load
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
        """Return how many cells a line of the terminal has now."""
        return self._console.width

    @property
    def height(self) -> int:
        """Return how many lines the terminal has now."""
        return self._console.height

    def draw(self, text: str) -> None:
        """Show *text*, which may have colours, in place of what was shown."""
        from rich.text import Text

        shown = Text.from_ansi(text)
        shown.no_wrap = True
        shown.overflow = "crop"
        self._live.update(shown, refresh=True)


class ChangeLines:
    """A line for each resource or problem that changes, or with ``as_json`` each report that does."""

    def __init__(self, *, as_json: bool, timestamps: bool) -> None:
        self._as_json = as_json
        self._timestamps = timestamps
        self._shown: dict[str, str] = {}

    def show(self, report: dict[str, Any]) -> None:
        """Print what is another than in the report before."""
        now = dict(_lines_of(report))
        if self._as_json:
            if now != self._shown:
                click.echo(json.dumps(report))
        else:
            for key, text in now.items():
                if self._shown.get(key) != text:
                    self._print(f"{key}  {text}")
            for key in self._shown.keys() - now.keys():
                if key != "waiting":
                    self._print(f"{key}  gone")
        self._shown = now

    def wait(self, error: TrimtabError) -> None:
        """Print that nothing answers, once."""
        text = f"waiting: {error.message}"
        if self._shown.get("waiting") != text and not self._as_json:
            self._print(text)
            self._shown = {**self._shown, "waiting": text}

    def _print(self, line: str) -> None:
        prefix = f"{format_instant(current_time())}  " if self._timestamps else ""
        click.echo(f"{prefix}{printable(line)}")


def _lines_of(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a line for each resource, and for each problem that no resource's line has."""
    lines = []
    said: list[dict[str, Any]] = []
    for resource in report["resources"]:
        key = f"{resource['kind']}/{resource['namespace']}/{resource['name']}"
        count = ready_of(resource) if resource["kind"] == "Service" else ""
        where = " ".join(addresses_of(resource)) if word_of(resource) == "Ready" else ""
        parts = (word_of(resource), count, message_of(resource), where)
        lines.append((key, "  ".join(filter(None, parts))))
        for condition in resource["conditions"]:
            problem = problem_of(resource, condition["message"], report["problems"])
            said += [problem] if condition["message"] and problem else []
    for problem in report["problems"]:
        place = place_of(problem)
        if place or problem not in said:
            head = f"problem {place} {problem['code']}" if place else f"problem {problem['code']}"
            lines.append((head, problem["message"]))
    return lines
