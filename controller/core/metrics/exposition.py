"""The text of metrics: Prometheus' exposition format 0.0.4, within bounds.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: The longest value of a label, in characters.
LABEL_MAX: Final = 200
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class MetricsOwner(StrEnum):
    """The process that has the values of a family."""

    BROKER = "broker"
    CONTROLLER = "controller"
    SHIPPER = "shipper"
    #: Broker and controller each have their own; the label ``process`` says whose.
    EACH = "each"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its labels. The name of a counter ends in ``_total``."""

    name: str
    kind: Literal["counter", "gauge"]
    #: One sentence, without a line end.
    about: str
    owner: MetricsOwner
    labels: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The lines before the values."""
        return f"# HELP {self.name} {self.about}\n# TYPE {self.name} {self.kind}\n"

    @property
    def line(self) -> str:
        """The form of a line, for the values of the labels and the value."""
        labels = ",".join(f'{label}="%s"' for label in self.labels)
        return f"{self.name}{{{labels}}} %s\n" if labels else f"{self.name} %s\n"


#: MetricValues by the name of the family and the values of its labels.
MetricValues = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class TextBounds:
    """The most that a process exposes."""

    series: int
    #: Of UTF-8, for the lines of values.
    size: int


#: Together 5,000 series and 1 MiB. The broker's families have few values of labels.
BOUNDS: Final = {
    MetricsOwner.BROKER: TextBounds(series=600, size=100 << 10),
    MetricsOwner.CONTROLLER: TextBounds(series=4_400, size=900 << 10),
}


UNBOUNDED: Final = TextBounds(series=1 << 30, size=1 << 30)


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What a process tells of itself."""

    version: str
    cpu_s: float
    memory_bytes: int
    #: When it began to count, in Unix time.
    began: float


def own_values(owner: MetricsOwner, process: ProcessFacts) -> MetricValues:
    """Return the values that broker and controller each have."""
    return {
        ("trimtab_build_info", owner, process.version): 1,
        ("trimtab_process_cpu_seconds_total", owner): process.cpu_s,
        ("trimtab_process_resident_memory_bytes", owner): process.memory_bytes,
        ("trimtab_process_start_time_seconds", owner): process.began,
    }


def exposition(
    families: Iterable[Family], values: MetricValues, bounds: TextBounds = UNBOUNDED
) -> tuple[str, int]:
    """Return the text of *values*, and how many values are beyond the bounds.

    Families come in their order, the values of a family in the order of *values*. A family without a
    value is left out.
    """
    by_family: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    for (name, *labels), value in values.items():
        by_family.setdefault(name, []).append((tuple(labels), value))
    parts: list[str] = []
    series, size, dropped = 0, 0, 0
    for family in families:
        found, form = by_family.get(family.name, ()), family.line
        lines = []
        for own, value in found:
            text = form % (*map(_escaped, own), _number(value))
            length = len(text.encode())
            if series >= bounds.series or size + length > bounds.size:
                dropped += 1
                continue
            series += 1
            size += length
            lines.append(text)
        if lines:
            parts += [family.head, *lines]
    return "".join(parts), dropped


def _escaped(label: str) -> str:
    return label[:LABEL_MAX].translate(_ESCAPES)


def _number(value: float) -> str:
    """Return a value without needless digits: counters count whole things, times have milliseconds."""
    return str(int(value)) if value == int(value) else f"{value:.3f}"


_LINE: Final = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(r"\\(.)")


def series_of(text: str) -> list[dict[str, Any]]:
    """Return the values of a text of ``exposition``: ``{"name", "labels", "value"}`` each."""
    found = (_LINE.fullmatch(line) for line in text.split("\n"))
    return [
        {
            "name": line["name"],
            "labels": {
                label: _unescaped(value) for label, value in _LABEL.findall(line["labels"] or "")
            },
            "value": float(line["value"]),
        }
        for line in found
        if line is not None
    ]


def _unescaped(label: str) -> str:
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], label)


def joined(texts: Iterable[str]) -> str:
    """Return several texts as one: each family once, with the values of all texts.

    The texts are of ``exposition``: a family's lines follow each other, after its two lines of comments.
    """
    families: dict[str, list[str]] = {}
    for text in texts:
        lines: list[str] = []
        for line in text.split("\n")[:-1]:
            if line.startswith("# HELP "):
                lines = families.setdefault(line.split(" ", 3)[2], [])
                lines += [] if lines else [line]
            elif line not in lines[1:2]:  # the same TYPE as before
                lines.append(line)
    return "".join(f"{line}\n" for lines in families.values() for line in lines)
