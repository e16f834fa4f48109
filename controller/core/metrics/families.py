"""Metrics: the table of all families, and their text in Prometheus' exposition format 0.0.4, within bounds.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
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

    Families come in their order, the values of a family in the order of *values*, and none after the first one
    that is beyond the bounds. A family without a value is left out.
    """
    by_family: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    for (name, *labels), value in values.items():
        by_family.setdefault(name, []).append((tuple(labels), value))
    parts: list[str] = []
    series, size, dropped, is_full = 0, 0, 0, False
    for family in families:
        found, form = by_family.get(family.name, ()), family.line
        lines = []
        for own, value in found:
            if not is_full:
                text = form % (*map(_escaped, own), _number(value))
                series, size = series + 1, size + len(text.encode())
                is_full = series > bounds.series or size > bounds.size
            if is_full:
                dropped += 1
            else:
                lines.append(text)
        if lines:
            parts += [family.head, *lines]
    return "".join(parts), dropped


#: Most labels, of which ``translate`` would take most of a scrape.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._/-]*")


def _escaped(label: str) -> str:
    shown = label[:LABEL_MAX]
    return shown if _PLAIN.fullmatch(shown) else shown.translate(_ESCAPES)


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


_broker = partial(Family, owner=MetricsOwner.BROKER)
_controller = partial(Family, owner=MetricsOwner.CONTROLLER)
_shipper = partial(Family, owner=MetricsOwner.SHIPPER, labels=("sink",))
_each = partial(Family, owner=MetricsOwner.EACH)
_RESOURCE = ("kind", "namespace", "name")
_SERVICE = ("namespace", "name")

_SERIES_DROPPED: Final = _each(
    "trimtab_series_dropped",
    "gauge",
    "Values that are left out, because the process has more than it exposes.",
    labels=("process",),
)
_UP: Final = _each(
    "trimtab_up",
    "gauge",
    "1 if the process answered, so that its metrics are in the text.",
    labels=("process",),
)
#: In the order of the text. What comes first is kept if there is too much: sums before single services,
#: and what is wrong before what is not.
FAMILIES: Final = (
    _each(
        "trimtab_build_info",
        "gauge",
        "1, for each process with its version.",
        labels=("process", "version"),
    ),
    _each(
        "trimtab_process_cpu_seconds_total",
        "counter",
        "Processor time of the process, in user and system mode.",
        labels=("process",),
    ),
    _each(
        "trimtab_process_resident_memory_bytes",
        "gauge",
        "Memory of the process.",
        labels=("process",),
    ),
    _each(
        "trimtab_process_start_time_seconds",
        "gauge",
        "When the process began to count, in Unix time.",
        labels=("process",),
    ),
    _SERIES_DROPPED,
    _UP,
    # The broker
    _broker(
        "trimtab_admissions_total",
        "counter",
        "Judged changes by verdict (allow, mutate, deny, audit-deny), with the deciding rule of a denial.",
        labels=("verdict", "rule"),
    ),
    _broker(
        "trimtab_changes_total",
        "counter",
        "Recorded outcomes of changes: done, failed, or recovered after a lost answer.",
        labels=("outcome",),
    ),
    _broker(
        "trimtab_violations_total",
        "counter",
        "Containers whose effective state was not what was admitted, by rule.",
        labels=("rule",),
    ),
    _broker("trimtab_open_intents", "gauge", "Recorded changes without a recorded outcome."),
    _broker(
        "trimtab_unknown_containers",
        "gauge",
        "Containers with this instance's label that the broker did not create.",
    ),
    _broker("trimtab_journal_records_total", "counter", "Records of the journal."),
    _broker(
        "trimtab_journal_unsigned_records",
        "gauge",
        "Records after the last signed checkpoint.",
    ),
    _broker(
        "trimtab_journal_writable",
        "gauge",
        "1 while records can be written; nothing changes on the engine while they can't.",
    ),
    _broker("trimtab_journal_free_bytes", "gauge", "Free space on the journal's file system."),
    _broker(
        "trimtab_journal_reserved",
        "gauge",
        "1 while the rest of the disk is kept for the controller, operators and closing records.",
    ),
    _broker(
        "trimtab_journal_clock_doubted",
        "gauge",
        "1 while the clock is in doubt, and no record is removed for its age.",
    ),
    _broker(
        "trimtab_journal_index_behind_records",
        "gauge",
        "Records that the index of the journal lacks.",
    ),
    _broker(
        "trimtab_unrecorded_refusals_total",
        "counter",
        "Refusals that were answered and could not be recorded.",
    ),
    _broker(
        "trimtab_quota_fullest_percent",
        "gauge",
        "Use of the fullest quota; trimtab doctor names the quota.",
    ),
    _broker(
        "trimtab_clients_waiting",
        "gauge",
        "Clients that are refused changes because they spent their share of the journal.",
    ),
    _broker(
        "trimtab_engine_requests_total",
        "counter",
        "Requests to the engine by method and class of the answer (2xx to 5xx, or lost).",
        labels=("method", "answer"),
    ),
    _broker(
        "trimtab_engine_identified",
        "gauge",
        "1 once the engine has told the broker who it is.",
    ),
    _broker(
        "trimtab_event_loop_longest_stall_seconds",
        "gauge",
        "The longest turn of the broker's event loop in the last one to two minutes.",
    ),
    _broker(
        "trimtab_connections",
        "gauge",
        "Connections that are served now, by group of peers.",
        labels=("group",),
    ),
    _broker(
        "trimtab_connections_refused_total",
        "counter",
        "Connections that were refused, since their group or their user has too many.",
    ),
    _broker(
        "trimtab_reload_failed",
        "gauge",
        "1 while a file is invalid, and what was in force before stays in force.",
        labels=("file",),
    ),
    # The controller
    _controller(
        "trimtab_engine_reachable",
        "gauge",
        "1 if the last observation reached the engine.",
    ),
    _controller(
        "trimtab_observed_timestamp_seconds",
        "gauge",
        "When everything was observed last, in Unix time.",
    ),
    _controller(
        "trimtab_passes_total",
        "counter",
        "Passes by outcome: done, acted, retry, wait, stalled, crashed.",
        labels=("outcome",),
    ),
    _controller("trimtab_pass_seconds_total", "counter", "Duration of all passes."),
    _controller("trimtab_queue_keys", "gauge", "Resources that wait for a pass."),
    _controller(
        "trimtab_actions_total",
        "counter",
        "Actions that the controller asked for, by verb and outcome (done, failed).",
        labels=("verb", "outcome"),
    ),
    _controller(
        "trimtab_heals_total",
        "counter",
        "Containers put back after they drifted, by what was found: missing, altered, stopped, unhealthy.",
        labels=("drift",),
    ),
    _controller(
        "trimtab_rollouts_total",
        "counter",
        "Rollouts by outcome: good, failed, rolled-back.",
        labels=("outcome",),
    ),
    _controller(
        "trimtab_resources",
        "gauge",
        "Resources by their worst condition; Ready means as declared.",
        labels=("condition",),
    ),
    _controller(
        "trimtab_problems",
        "gauge",
        "Problems of the report, in files and outside of them.",
    ),
    _controller(
        "trimtab_source_ready",
        "gauge",
        "1 for a Git source that serves its newest commit without an error.",
        labels=("source", "state"),
    ),
    _controller(
        "trimtab_resource_condition",
        "gauge",
        "1 for the worst condition of each resource that is not as declared.",
        labels=(*_RESOURCE, "condition", "reason"),
    ),
    _controller(
        "trimtab_resource_condition_since_seconds",
        "gauge",
        "Since when a resource has its worst condition, in Unix time.",
        labels=(*_RESOURCE, "condition"),
    ),
    _controller(
        "trimtab_resource_ready",
        "gauge",
        "1 if a resource is as declared.",
        labels=_RESOURCE,
    ),
    _controller(
        "trimtab_service_restarts_total",
        "counter",
        "Failures of a service's containers: exits, and checks that failed for too long.",
        labels=_SERVICE,
    ),
    _controller(
        "trimtab_service_cpu_seconds_total",
        "counter",
        "Processor time of a service's containers, those that were replaced included.",
        labels=_SERVICE,
    ),
    _controller(
        "trimtab_service_memory_bytes",
        "gauge",
        "Memory of a service's containers, without inactive pages of files.",
        labels=_SERVICE,
    ),
    # The shipper
    _shipper("trimtab_ship_lag_records", "gauge", "Records that aren't delivered yet."),
    _shipper("trimtab_ship_lag_seconds", "gauge", "Age of the oldest record that isn't delivered."),
    _shipper("trimtab_ship_delivered_total", "counter", "Records delivered since the start."),
    _shipper(
        "trimtab_ship_missing_total",
        "counter",
        "Records that were pruned before they were delivered.",
    ),
    _shipper(
        "trimtab_ship_rejected_total",
        "counter",
        "Records that the receiver refused for good, since the start.",
    ),
    _shipper("trimtab_ship_up", "gauge", "1 while the last delivery succeeded, and none hangs."),
)


def merged(texts: Mapping[MetricsOwner, str | None]) -> str:
    """Return the texts of processes as one, with ``trimtab_up``; None: the process doesn't answer."""
    answers: MetricValues = {(_UP.name, owner): text is not None for owner, text in texts.items()}
    up, _ = exposition([_UP], answers)
    return joined([up, *(text for text in texts.values() if text is not None)])


def text_of(owner: MetricsOwner, values: MetricValues, process: ProcessFacts) -> str:
    """Return the text of broker or controller, with the values that each process has."""
    families = [each for each in FAMILIES if each.owner in {owner, MetricsOwner.EACH}]
    own = own_values(owner, process)
    text, dropped = exposition(families, {**own, **values}, BOUNDS[owner])
    last, _ = exposition([_SERIES_DROPPED], {(_SERIES_DROPPED.name, owner): dropped})
    return text + last
