"""Charts in configs/, read inside the folder, and rendered by a child.

Charts in configs/, read whole and only inside the folder. ``core.charts`` renders charts.

Releases rendered by the chart worker, a child with bounded time and memory.

A Release that takes too much is a problem of its own, and isn't rendered again before its document or
its chart changes. The worker lives as long as one reading of a folder needs it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from controller.core.charts.releases import (
    CHART,
    DEFERRED,
    MAX_CHART_BYTES,
    MAX_TEMPLATES,
    SCHEMA,
    TEMPLATES,
    TOO_COSTLY,
    VALUES,
    Chart,
    RenderedTexts,
    RenderRequest,
    read_parts,
    request_of,
    too_big_chart,
    too_many_templates,
    unnamed,
    unusable,
)
from controller.core.manifests.declaration import Declaration
from controller.core.manifests.validation_errors import FieldProblem
from controller.core.yaml.documents import decode
from controller.model.errors import Problem
from controller.sources.safe_read import FolderWalk, SourceFile, is_inside, read_whole
from controller.system.child_programs import ChildBounds, FramedChild, WorkerFailed


def load_chart(
    charts: Path | None, name: str, *, prefix: str = "", directory: Path | None = None
) -> Chart:
    """Read the chart *name* below *charts*. Problems are in the result. Never raises.

    *prefix* precedes the names of files. *directory* is DIR, where people look for charts too.
    """
    if charts is None:
        problem = Problem("chart.missing", "there is no directory of charts (configs/)")
        return Chart(name, problems=(problem,))
    if (wrong := unnamed(name)) is not None:
        return wrong
    place = f"{prefix}{charts.name}/{name}"
    try:
        top = os.path.realpath(charts / name, strict=True)
        is_in_charts = is_inside(top, os.path.realpath(charts, strict=True))
        listed = {entry.name for entry in Path(top).iterdir()}
    except OSError as error:
        message = f"there is no chart {name} in {charts}: {error.strerror}"
        remedy = ""
        if directory is not None and (directory / charts.name / name / CHART).is_file():
            remedy = f"move {directory / charts.name} to {charts}, outside the documents' folder"
        return Chart(name, place, problems=(Problem("chart.missing", message, remedy=remedy),))
    templates = os.path.realpath(f"{top}/{TEMPLATES}")
    if not is_in_charts or not is_inside(templates, top):
        problem = Problem("file.outside", "the chart leads out of its directory", place)
        return Chart(name, place, problems=(problem,))
    files: list[SourceFile] = [
        SourceFile(f"{place}/{file}", f"{top}/{file}")
        for file in (CHART, VALUES, SCHEMA)
        if file in listed
    ]
    problems: list[Problem] = []
    if TEMPLATES in listed:
        walk = FolderWalk(templates)
        templates_found = [
            replace(file, name=f"{place}/{TEMPLATES}/{file.name}") for file in walk.files()
        ]
        files += templates_found[:MAX_TEMPLATES]
        problems += [replace(p, file=f"{place}/{TEMPLATES}/{p.file}") for p in walk.problems]
        if len(templates_found) > MAX_TEMPLATES:
            problems.append(too_many_templates(place))
    texts, unread = _read_files(files, top, place)
    return Chart(name, place, texts, (*problems, *unread), top)


def _read_files(
    files: list[SourceFile], top: str, place: str
) -> tuple[tuple[tuple[str, str], ...], list[Problem]]:
    """Return the names and texts of a chart's files, and the problems of the reads."""
    texts: list[tuple[str, str]] = []
    problems: list[Problem] = []
    left = MAX_CHART_BYTES
    for file in files:
        content = read_whole(file, top, is_known=lambda _content: False)
        if isinstance(content, Problem):
            problems.append(content)
            continue
        left -= len(content)
        if left < 0:
            return tuple(texts), [*problems, too_big_chart(place)]
        texts.append((file.name, decode(content)))
    return tuple(texts), problems


#: -I: nothing of the environment adds code. The child gets no environment anyway.
COMMAND = (sys.executable, "-I", "-m", "controller.process.chart_worker")
#: The time is a bound for a worker that gets no processor; the worker itself bounds the processor time.
BOUNDS = ChildBounds(request_s=20.0, answer_max=32 << 20, renewed_after=1_000_000)
#: Workers that may fail in one reading. The Releases after that are left to a later one.
FAILURES_MAX = 3
#: Remembered Releases that take too much.
REMEMBERED_MAX = 1_000

#: Renders one Release.
RenderRelease = Callable[[Declaration, Chart], RenderedTexts]
#: Begins a reading. The context ends it.
BeginReading = Callable[[], AbstractContextManager[RenderRelease]]


class ChartRenderer:
    """Renders Releases in a child. Threads take turns, a reading each."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        command: Sequence[str] = COMMAND,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._child = FramedChild(command, BOUNDS, monotonic=monotonic, wait=wait)
        self._lock = threading.Lock()
        #: The problems of Releases that take too much, by the digests of their requests.
        self._costly: dict[bytes, tuple[Problem, ...]] = {}
        self._failures = 0

    @contextmanager
    def reading(self) -> Iterator[RenderRelease]:
        """Yield the function that renders the Releases of one reading, and end the worker."""
        with self._lock:
            self._failures = 0
            try:
                yield self._render
            finally:
                self._child.stop()

    def _render(self, release: Declaration, chart: Chart) -> RenderedTexts:
        if chart.problems:
            return unusable(release, chart.problems)
        request = request_of(release, chart)
        digest = _digest(request)
        if (known := self._costly.get(digest)) is not None:
            return known
        rendered = self._ask(release, request)
        if not isinstance(rendered, dict) and any(each.code == TOO_COSTLY for each in rendered):
            if len(self._costly) >= REMEMBERED_MAX:
                del self._costly[next(iter(self._costly))]
            self._costly[digest] = rendered
        return rendered

    def _ask(self, release: Declaration, request: RenderRequest) -> RenderedTexts:
        if self._failures >= FAILURES_MAX:
            return _deferred(release, f"the render worker failed {FAILURES_MAX} times before")
        try:
            self._child.start()
        except WorkerFailed as error:
            self._failures = FAILURES_MAX
            return _deferred(release, f"the render worker failed: {error}")
        try:
            with self._child.turn() as ask:
                return read_parts(ask(request.body, [memoryview(each) for each in request.texts]))
        except (WorkerFailed, ValueError) as error:
            self._failures += 1
            # Killed by us, because it got no processor in time, or by the kernel for want of memory.
            if self._child.last_exit == -signal.SIGKILL:
                return _deferred(release, f"the render worker failed: {error}")
        remedy = "simplify its schema and templates, or the values"
        message = "rendering takes too much time or memory"
        return (FieldProblem(_CHART, TOO_COSTLY, message, remedy=remedy).at(release.document),)


_CHART = ("spec", "chart")


def _deferred(release: Declaration, message: str) -> tuple[Problem, ...]:
    remedy = "a later reading tries again; correct Releases with chart.too-costly"
    return (FieldProblem(_CHART, DEFERRED, message, remedy=remedy).at(release.document),)


def _digest(request: RenderRequest) -> bytes:
    made = hashlib.sha256(json.dumps(request.body).encode())
    for text in request.texts:
        made.update(text)
    return made.digest()
