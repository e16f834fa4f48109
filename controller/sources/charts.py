"""Charts in configs/, read whole and only inside the folder. ``core.charts`` renders charts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from controller.core.charts.chart import (
    CHART,
    MAX_CHART_BYTES,
    MAX_TEMPLATES,
    SCHEMA,
    TEMPLATES,
    VALUES,
    Chart,
    too_big_chart,
    too_many_templates,
    unnamed,
)
from controller.core.yaml.documents import decode
from controller.model.errors import Problem
from controller.sources.safe_read import FolderWalk, SourceFile, is_inside, read_whole


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
