"""The Releases of a proven commit, rendered by the charts of the same commit."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext

from controller.core.charts.chart import (
    CHART,
    MAX_CHART_BYTES,
    MAX_RELEASES,
    MAX_TEMPLATES,
    SCHEMA,
    TEMPLATES,
    VALUES,
    Chart,
    RenderLimit,
    too_big_chart,
    too_many_templates,
    unnamed,
)
from controller.core.charts.releases import render_release
from controller.core.git.tree_checks import CHARTS
from controller.core.manifests.declaration import Declaration, ParsedDocument
from controller.core.yaml.documents import decode
from controller.core.yaml.file_limit import MAX_BYTES, too_big
from controller.model.desired.spec.service import ReleaseSpec
from controller.model.errors import Problem

_SUFFIXES = (".yaml", ".yml")


def is_read(path: str) -> bool:
    """Return True for a YAML file that the controller's walk of a folder finds."""
    is_hidden = any(part.startswith(".") for part in path.split("/"))
    return path.endswith(_SUFFIXES) and not is_hidden


def render_releases(
    documents: Iterable[ParsedDocument],
    charts: Mapping[str, bytes],
    prefix: str,
    limit: RenderLimit = nullcontext,
) -> Iterator[tuple[ParsedDocument, str, Mapping[str, bytes]]]:
    """Yield each document of the Releases, with its folder in the chart, and the chart's files.

    Args:
        documents: the documents of the commit, with the Releases.
        charts: the files of the charts, by their paths in the folder of the charts.
        prefix: the beginning of the names of files.
        limit: bounds the rendering of one Release.
    """
    releases = [*_releases(documents)]
    known: dict[str, Chart] = {}
    for release in releases[:MAX_RELEASES]:
        assert isinstance(release.spec, ReleaseSpec), "only Releases were taken"
        name = release.spec.chart
        if name not in known:
            known[name] = chart_of(name, charts, prefix)
        chart, inside = known[name], _inside(charts, name)
        for document in render_release(release, chart, limit):
            file = document.declaration.source.file if document.declaration is not None else ""
            folder = posixpath.dirname(file).removeprefix(chart.place).strip("/")
            yield document, folder, inside
    if len(releases) > MAX_RELEASES:
        message = f"there are more than {MAX_RELEASES} Releases; the rest wasn't rendered"
        problem = Problem("source.too-many", message, releases[MAX_RELEASES].source.file)
        yield ParsedDocument(None, (problem,), None), "", {}


def _releases(documents: Iterable[ParsedDocument]) -> Iterator[Declaration]:
    for document in documents:
        declaration = document.declaration
        if declaration is not None and isinstance(declaration.spec, ReleaseSpec):
            yield declaration


def chart_of(name: str, charts: Mapping[str, bytes], prefix: str) -> Chart:
    """Return the chart *name* among the files of the charts, as the controller reads its folder."""
    wrong = unnamed(name)
    if wrong is not None:
        return wrong
    place, inside = f"{prefix}{CHARTS}/{name}", _inside(charts, name)
    if not inside:
        problem = Problem("chart.missing", f"the commit has no chart {name}")
        return Chart(name, place, problems=(problem,))
    files = [file for file in (CHART, VALUES, SCHEMA) if file in inside]
    templates = f"{TEMPLATES}/"
    found = [
        path
        for path in sorted(inside)
        if path.startswith(templates) and is_read(path.removeprefix(templates))
    ]
    problems: list[Problem] = []
    if len(found) > MAX_TEMPLATES:
        problems.append(too_many_templates(place))
    problems += [
        Problem("file.special", "is no regular file", f"{place}/{folder}")
        for folder in (CHART, VALUES, SCHEMA)
        if any(path.startswith(f"{folder}/") for path in inside)
    ]
    texts: list[tuple[str, str]] = []
    left = MAX_CHART_BYTES
    for file in (*files, *found[:MAX_TEMPLATES]):
        if len(inside[file]) > MAX_BYTES:
            problems.append(too_big(f"{place}/{file}"))
            continue
        left -= len(inside[file])
        if left < 0:
            problems.append(too_big_chart(place))
            break
        texts.append((f"{place}/{file}", decode(inside[file])))
    return Chart(name, place, tuple(texts), tuple(problems))


def _inside(charts: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    top = f"{name}/"
    return {path.removeprefix(top): charts[path] for path in charts if path.startswith(top)}
