"""The chart worker: renders one Release after the other by its chart, and can do nothing else.

Readers of documents start ``python -I -m controller.process.chart_worker`` (``process.locked_worker``) for
one reading of a folder. Templates and schemas are programs of their authors, so time and memory
are bounded here (docs/decisions/0099-charts-in-a-child.md).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from controller.core.charts.releases import (
    MAX_CHART_BYTES,
    MAX_RELEASES,
    RenderLimitError,
    RenderRequest,
    parts_of,
    read_request,
    render_texts,
)
from controller.process.locked_worker import WorkerLimits, serve

#: Seconds of processor time: of a Release; of all Releases of a reading before the time gets short; of
#: each Release from then on.
RELEASE_S, READING_S, SHORTENED_S = 2.0, 10.0, 0.2
LIMITS = WorkerLimits(
    requests=MAX_RELEASES + 1,
    request_bytes=MAX_CHART_BYTES + (2 << 20),
    memory_bytes=256 << 20,
    cpu_s=300,
)
#: Time between two signals after the first. An exception in a destructor is lost, and raised again.
_AGAIN_S = 0.25

_RELEASE = """apiVersion: trimtab/v1
kind: Release
metadata: {name: %s, namespace: shop, owner: ops}
spec: {chart: %s, values: {%s}}
"""
_SCHEMA = b"""{"type": "object", "additionalProperties": false,
"properties": {"names": {"type": "array", "items": {"type": "string", "pattern": "^a"}}}}
"""
_TEMPLATE = b"""{% macro image(name) %}{{ name | lower }}:1{% endmacro %}
{% for name in values.names %}{% if name is defined and not loop.last or true %}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: {{ name | quote }}}
spec: {image: {{ image(name) | quote }}, env: {{ {"A": release.name ~ chart.version} | toyaml | indent(2) }}}
{% endif %}{% endfor %}
"""
#: Charts that load every module which is loaded on use.
WARM_UP_CHARTS = {
    "good/Chart.yaml": b"{apiVersion: trimtab/v1, name: good, version: '1'}",
    "good/values.yaml": b"names: []",
    "good/values.schema.json": _SCHEMA,
    "good/templates/all.yaml": _TEMPLATE,
    "broken/Chart.yaml": b"{apiVersion: trimtab/v1, name: broken, version: '1'}",
    "broken/values.schema.json": b'{"type": 7}',
    "undefined/Chart.yaml": b"{apiVersion: trimtab/v1, name: undefined, version: '1'}",
    "undefined/templates/a.yaml": b"{{ values.unknown }}",
    "undefined/templates/b.yaml": b"{% if %}",
}
#: The values of the Releases of these charts.
WARM_UP_VALUES = (
    ("good", "names: [a]"),
    ("good", "names: 1, more: 2"),
    ("broken", ""),
    ("undefined", ""),
)


class RenderClock:
    """Bounds the processor time of each Release, and of the Releases of one reading together.

    A Release beyond its time gets a ``RenderLimitError``. If no Python code runs that could raise it,
    the kernel ends the process a second later.
    """

    def __init__(self) -> None:
        self._used_s = self._limit_s = 0.0
        signal.signal(signal.SIGPROF, self._expire)

    def begin(self) -> None:
        """Begin a reading."""
        self._used_s = 0.0

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Bound one Release during the block."""
        self._limit_s = RELEASE_S if self._used_s < READING_S else SHORTENED_S
        before = time.process_time()
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, self._limit_s + 1.0)
            signal.setitimer(signal.ITIMER_PROF, self._limit_s, _AGAIN_S)
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self._used_s += time.process_time() - before

    def _expire(self, _signal: int, _frame: object) -> None:
        raise RenderLimitError(self._limit_s, is_shortened=self._limit_s < RELEASE_S)


def main() -> None:
    """Load everything, lock the process, and serve."""
    clock = RenderClock()

    def answer(body: dict[str, Any], raw: bytes) -> list[dict[str, Any]]:
        release, chart = read_request(body, raw)
        return list(parts_of(render_texts(release, chart, clock.limit)))

    for name, values in WARM_UP_VALUES:
        request = _warm_up(name, values)
        answer(request.body, b"".join(request.texts))
    clock.begin()
    serve(answer, LIMITS)


def _warm_up(chart: str, values: str) -> RenderRequest:
    found = {name: text for name, text in WARM_UP_CHARTS.items() if name.startswith(f"{chart}/")}
    files = [[name, len(text)] for name, text in found.items()]
    document = _RELEASE % (chart, chart, values)
    names = {"document": document, "file": "warm-up", "line": 1, "name": chart, "place": chart}
    return RenderRequest({**names, "files": files}, tuple(found.values()))


if __name__ == "__main__":
    main()
