"""A Release and its chart as the request to the chart worker, and the worker's answer in parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller.core.charts.chart import Chart, RenderedTexts
from controller.core.manifests.declaration import Declaration
from controller.core.manifests.parse import read_text
from controller.model.errors import Problem

#: Characters of a text in one part: fewer than ``framed_child.PART_MAX`` bytes with every escape.
_PART_CHARACTERS = 16 * 1024
_PLACE = ("line", "column")
_TEXTS = ("code", "message", "file", "expected", "remedy", "field")


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One request: JSON, and the texts of the chart."""

    body: dict[str, Any]
    texts: tuple[bytes, ...]


def request_of(release: Declaration, chart: Chart) -> RenderRequest:
    """Return the request for a Release. The chart has no problems."""
    texts = [text.encode(errors="surrogateescape") for _, text in chart.files]
    body = {
        "document": release.document.text,
        "file": release.document.file,
        "line": release.document.line,
        "name": chart.name,
        "place": chart.place,
        "files": [[name, len(text)] for (name, _), text in zip(chart.files, texts, strict=True)],
    }
    return RenderRequest(body, tuple(texts))


def read_request(body: Mapping[str, Any], raw: bytes) -> tuple[Declaration, Chart]:
    """Return the Release and the chart of a request."""
    files, at = [], 0
    for name, length in body["files"]:
        text = raw[at : at + length].decode(errors="surrogateescape")
        files.append((name, text))
        at += length
    # The lines of problems count from the beginning of the file.
    document = "\n" * (body["line"] - 1) + body["document"]
    (parsed,) = read_text(document, body["file"])
    assert parsed.declaration is not None, "only a Release without errors is rendered"
    return parsed.declaration, Chart(body["name"], body["place"], tuple(files))


def parts_of(rendered: RenderedTexts) -> Iterator[dict[str, Any]]:
    """Yield an answer in parts."""
    if not isinstance(rendered, dict):
        for problem in rendered:
            texts = {name: getattr(problem, name) for name in _TEXTS}
            yield {"problem": texts | {name: getattr(problem, name) for name in _PLACE}}
        return
    for file, text in rendered.items():
        for at in range(0, max(len(text), 1), _PART_CHARACTERS):
            yield {"file": file, "text": text[at : at + _PART_CHARACTERS]}


def read_parts(answer: Mapping[str, Any]) -> RenderedTexts:
    """Return the texts, or the problems, of an answer.

    Raises:
        ValueError: the answer has another form.
    """
    texts: dict[str, list[str]] = {}
    problems: list[Problem] = []
    try:
        for part in answer["parts"]:
            if "problem" in part:
                problems.append(_problem(part["problem"]))
            else:
                texts.setdefault(_text(part["file"]), []).append(_text(part["text"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"a part of another form: {error!r:.100}") from None
    return tuple(problems) or {file: "".join(parts) for file, parts in texts.items()}


def _problem(value: Mapping[str, Any]) -> Problem:
    line, column = (value[name] for name in _PLACE)
    if not isinstance(line, int) or not isinstance(column, int):
        raise TypeError("a place")
    code, message, file, expected, remedy, field = (_text(value[name]) for name in _TEXTS)
    return Problem(code, message, file, line, column, expected, remedy, field=field)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
