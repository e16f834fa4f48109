"""The results file: the figures of each line, and the machine, as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.suite.figures import Figure, figure_from_json

#: The version of the results file's form.
FORM: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LineResult:
    """One line of the suite: the figures, or the error that ended the line."""

    line: str
    figures: tuple[Figure, ...] = ()
    error: str | None = None
    #: UTC, ISO 8601.
    at: str
    #: The duration of the whole line with set-up.
    took_s: float
    load_before: float
    load_after: float

    def to_json(self) -> dict[str, Any]:
        """Return the members of the line in the results file."""
        return {
            "at": self.at,
            "took_s": round(self.took_s, 1),
            "load_before": self.load_before,
            "load_after": self.load_after,
            "error": self.error,
            "figures": [figure.to_json() for figure in self.figures],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The content of a results file."""

    machine: dict[str, str]
    lines: dict[str, LineResult]

    def to_json(self) -> str:
        """Return the file's text."""
        members = {
            "form": FORM,
            "machine": self.machine,
            "lines": {name: line.to_json() for name, line in self.lines.items()},
        }
        return json.dumps(members, indent=1) + "\n"


def results_from_json(text: str) -> Results:
    """Return the content of a results file's text."""
    members = json.loads(text)
    assert members["form"] == FORM, f"a results file of another form: {members['form']}"
    lines = {
        name: LineResult(
            line=name,
            figures=tuple(figure_from_json(figure) for figure in line["figures"]),
            error=line["error"],
            at=line["at"],
            took_s=line["took_s"],
            load_before=line["load_before"],
            load_after=line["load_after"],
        )
        for name, line in members["lines"].items()
    }
    return Results(machine=members["machine"], lines=lines)


def merge_into(path: Path, results: Results, *, order: list[str]) -> Results:
    """Replace the lines of the file that were measured again, and return the whole content.

    Lines of another machine are dropped: figures of two machines don't belong on one page.
    """
    before = results_from_json(path.read_text("utf-8")) if path.exists() else results
    kept = before.lines if before.machine == results.machine else {}
    lines = {**kept, **results.lines}
    merged = Results(
        machine=results.machine,
        lines={name: lines[name] for name in order if name in lines},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(merged.to_json(), "utf-8")
    return merged
