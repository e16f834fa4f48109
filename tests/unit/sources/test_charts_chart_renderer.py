"""The renderer of Releases: a failing worker fails one Release, and verdicts are remembered."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from controller.core.charts.releases import Chart, RenderedTexts, render_texts
from controller.core.manifests.declaration import Declaration
from controller.core.manifests.parse import read_text
from controller.model.errors import Problem
from controller.sources.charts import FAILURES_MAX, ChartRenderer

#: The second document of its file, so that places aren't those of its own text.
TEXT = "a: 1\n---\napiVersion: trimtab/v1\nkind: Release\nmetadata: {name: one, owner: team}\nspec:\n  chart: app\n"
HEAD = ("c/app/Chart.yaml", "{apiVersion: trimtab/v1, name: app, version: '1'}")
SCHEMA = (
    "c/app/values.schema.json",
    '{"properties": {"a": {"type": "string"}}, "required": ["b"]}',
)


def release(values: str = "{}") -> Declaration:
    declaration = read_text(f"{TEXT}  values: {values}\n", "d.yaml")[1].declaration
    assert declaration is not None
    return declaration


def chart(*files: tuple[str, str]) -> Chart:
    return Chart("app", "c/app", (HEAD, *files))


#: Charts, good and bad ones, with the values of a Release.
CHARTS = {
    "texts": (chart(("c/app/templates/a.yaml", "é\u2028\U0001f600\udc80" * 9_000)), "{}"),
    "several": (chart(("c/app/templates/a.yaml", ""), ("c/app/templates/b.yaml", "{{ values.a }}")), "{a: x}"),
    "none": (chart(), "{}"),
    "values": (chart(SCHEMA), "{a: 1}"),
    "defaults": (chart(SCHEMA, ("c/app/values.yaml", "a: 1")), "{}"),
    "template": (chart(("c/app/templates/a.yaml", "\n{{ values.b }}")), "{}"),
    "syntax": (chart(("c/app/templates/a.yaml", "{% if %}")), "{}"),
    "head": (Chart("app", "c/app", (("c/app/Chart.yaml", "name: x"),)), "{}"),
}  # fmt: skip


@pytest.fixture(scope="module")
def answers() -> dict[str, RenderedTexts]:
    """Return the worker's answers, all of one reading."""
    with ChartRenderer().reading() as render:
        return {name: render(release(values), each) for name, (each, values) in CHARTS.items()}


@pytest.mark.parametrize("name", CHARTS)
def test_the_worker_renders_as_the_process_itself(
    answers: dict[str, RenderedTexts], name: str
) -> None:
    each, values = CHARTS[name]
    assert answers[name] == render_texts(release(values), each)


START = """
import json, os, signal
def write(answer):
    data = json.dumps(answer).encode()
    os.write(1, len(data).to_bytes(4, "big") + data)
def read():
    assert os.read(0, 1 << 20)
    open(PLACE, "a").write("asked ")
write({"ready": True})
"""
FAULTS = {
    "ended by a limit of the kernel": (
        "read(); os.kill(os.getpid(), signal.SIGVTALRM)",
        "chart.too-costly",
        "rendering takes too much time or memory",
    ),
    "ended by an error": ("read(); raise MemoryError", "chart.too-costly", "rendering takes"),
    "killed": (
        "read(); os.kill(os.getpid(), signal.SIGKILL)",
        "chart.deferred",
        "the render worker failed: it ended",
    ),
    "of another form": (
        "read(); write({'parts': 1}); write({'problem': {}}); signal.pause()",
        "chart.deferred",
        "the render worker failed: a part of another form",
    ),
}


def problem_of(rendered: RenderedTexts) -> Problem:
    assert not isinstance(rendered, dict), rendered
    (problem,) = rendered
    return problem


def asked(place: Path) -> int:
    return place.read_text().count("asked") if place.exists() else 0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_that_fails_is_a_problem_of_the_release(tmp_path: Path, fault: str) -> None:
    body, code, words = FAULTS[fault]
    place = tmp_path / "asked"
    program = f"PLACE = {str(place)!r}\n{START}\n{body}"
    renderer = ChartRenderer(command=(sys.executable, "-c", program), wait=lambda _s: None)
    for reading in (1, 2):
        with renderer.reading() as render:
            problem = problem_of(render(release(), chart()))
        assert (problem.code, problem.file, problem.line) == (code, "d.yaml", 7)
        assert problem.message.startswith(words)
        # What takes too much isn't asked again, until something changes.
        assert asked(place) == (1 if code == "chart.too-costly" else reading)
    with renderer.reading() as render:
        render(release("{a: 1}"), chart())
    assert asked(place) == (2 if code == "chart.too-costly" else 3)


def test_a_reading_starts_few_workers_that_fail(tmp_path: Path) -> None:
    place = tmp_path / "asked"
    program = f"PLACE = {str(place)!r}\n{START}\nread(); os.kill(os.getpid(), signal.SIGKILL)"
    renderer = ChartRenderer(command=(sys.executable, "-c", program), wait=lambda _s: None)
    with renderer.reading() as render:
        for number in range(FAILURES_MAX + 2):
            problem = problem_of(render(release(f"{{a: {number}}}"), chart()))
            assert problem.code == "chart.deferred"
    assert asked(place) == FAILURES_MAX


def test_a_worker_that_cannot_start_defers_every_release() -> None:
    renderer = ChartRenderer(command=("/nonexistent",), wait=lambda _s: None)
    with renderer.reading() as render:
        for _ in range(2):
            problem = problem_of(render(release(), chart()))
            assert problem.code == "chart.deferred"
