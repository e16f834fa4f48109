"""No text of the controller, an engine, a repository or a record controls the reader's terminal.

Each text that a command prints is made from a value, and each string of the value is made hostile in
turn. Values are those of the commands' own tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.cli.clients.status_report import ProgressPrinter, show_changes
from controller.cli.commands import apply, service, source
from controller.cli.commands.apply import Pending, show_done, why_not_converged
from controller.cli.commands.doctor import CheckResult, show_findings
from controller.cli.commands.log_lines import LineOrigin, LinePrinter
from controller.cli.exit_codes import report as report_error
from controller.cli.journal import explain
from controller.cli.journal.table import (
    clock_for,
    render_changes,
    render_records,
    render_story,
    row,
)
from controller.cli.options import print_json
from controller.cli.output.terminal import echo
from controller.cli.status.description import describe_resource
from controller.cli.status.live_view import ChangeLines, reachable_services, screen_of
from controller.cli.status.sources import describe_source, render_sources
from controller.cli.status.table import TableView, fit_status, render_status
from controller.core.encoding.text import printable
from controller.core.records.provenance import provenance
from controller.core.records.query import QueryResult, RecordContext, chronicle, story
from controller.core.review import plan_text
from controller.core.review.plan_json import review_json
from controller.model.container_output import LogLine
from controller.model.errors import UsageError
from controller.model.records import Record
from tests.golden.record_forms import gate_records
from tests.golden.scenes import plan_of, scenes
from tests.unit.cli.hostile import HOSTILE, faults, variants, with_text
from tests.unit.cli.reports import condition, problem, report, resource, slot
from tests.unit.cli.status.test_description import WEB
from tests.unit.cli.status.test_sources import SOURCE
from tests.unit.core.happened import found_in

pytestmark = pytest.mark.slow

NOW = 1_772_366_400.0
WIDTHS = (None, 200, 60)
COMMIT: dict[str, Any] = SOURCE["candidate"]
REPORT: dict[str, Any] = {
    **report(
        WEB,
        resource("data", kind="Volume", engineName="data"),
        resource("net", kind="Network", engineName="net"),
        resource("all", kind="Release", members=["Service/default/web"]),
        resource(
            "old",
            condition("Stalled", "it failed", reason="Failed"),
            condition("Ready", status="False"),
            slots=[slot(cause="x")],
        ),
        problems=[
            problem("Service/default/web: it is wrong", file="web.yaml", line=2, column=3),
            problem("nothing works", expected="a number", remedy="look at the log"),
        ],
    ),
    "sources": [{**SOURCE, "current": COMMIT}, {**SOURCE, "name": "second"}],
}
FORGE = {"forge_reason": "forge.denied", "forge_message": "no right", "forge_remedy": "grant it"}
FETCHED: list[dict[str, Any]] = [{**each, **FORGE} for each in REPORT["sources"]]
PIN = {"by": "uid:0", "since": "2026-01-01T00:00:00Z", "reason": "it was wrong"}
HISTORY: dict[str, Any] = {
    "kind": "Service",
    "namespace": "default",
    "name": "web",
    "generation": 2,
    "suspended": PIN,
    "pin": {**PIN, "revision": "v2:" + "a" * 64},
    "restarting": {"by": "uid:0", "containers": 2},
    "revisions": [
        {
            "revision": "v2:" + "b" * 64,
            "generation": 1,
            "since": "2026-01-01T00:00:00Z",
            "image": "ghcr.io/p/web:1",
            "digest": "sha256:1",
            "file": "team:web.yaml",
            "line": 1,
            "commit": "c" * 40,
            "outcome": "failed",
            "reason": "exited with 1",
            "current": True,
            "declared": True,
            "pinned": True,
            "containers": 1,
            "failure": {"line": "no such file"},
        }
    ],
}
DONE: dict[str, Any] = {
    "converged": False,
    "unmet": [{"object": f"Service/default/{HOSTILE}", "condition": HOSTILE}],
    "stuck": True,
    "seconds": 1.0,
    "summary": {"text": "1 removed"},
    "recently": "2 created",
    "acts": [],
    "status": REPORT,
}
CHANGES: list[dict[str, Any]] = [
    {
        "object": "Service/default/web",
        "effect": "update",
        "changes": [{"text": "memory 1Gi"}],
    }
]


def views() -> Iterator[TableView]:
    for width in WIDTHS:
        for wide in (False, True):
            yield TableView(width, NOW, wide)


def status(value: Any) -> Iterator[str]:
    for view in views():
        yield render_status(value, view)
        if view.width is not None:
            yield fit_status(value, view, 12)


def descriptions(value: Any) -> Iterator[str]:
    for view in views():
        for each in value["resources"]:
            yield describe_resource(each, value, view, events=["41  created"])
    for each in value["sources"]:
        yield describe_source(each)
    for width in WIDTHS:
        yield from render_sources(value, width=width, now=NOW)


def histories(value: Any) -> Iterator[str]:
    for width in WIDTHS:
        yield service.render_history(value, width=width)


Printed = Callable[[Any], None]


def print_lines(value: Any) -> None:
    ChangeLines(as_json=False, timestamps=False).show(value)


def print_sources(value: Any) -> None:
    for each in value:
        source._show(each)
        echo("  ".join(source._row(each)))


def print_error(value: Any) -> None:
    report_error(UsageError(value["code"], value["message"], remedy=value["remedy"]))


def print_unready(value: Any) -> None:
    echo(printable(why_not_converged(value, 60.0)))


def print_findings(value: Any) -> None:
    show_findings(
        CheckResult(each["check"], "error", each["message"], each["remedy"]) for each in value
    )


def print_logs(value: Any) -> None:
    printer = LinePrinter(timestamps=True, as_json=False)
    printer.expect([each["label"] for each in value])
    for each in value:
        origin = LineOrigin(each["label"], 1, each["container"])
        printer.print(origin, LogLine(each["time"], "stdout", each["line"]))


def print_screen(value: Any) -> None:
    for width in (200, 60):
        view = TableView(width, NOW)
        echo(screen_of(reachable_services(value), value, view, height=20))


def print_approval(value: Any) -> None:
    echo("\n".join(apply._lines(value)))


class Answered(ProgressPrinter):
    """Progress with one answer of a controller."""

    def __init__(self, answer: Any) -> None:
        super().__init__(Path())
        self._answer = answer

    def ask(self) -> Any:
        return self._answer


def print_progress(value: Any) -> None:
    printer = Answered(value)
    printer.update()
    printer._line.show(*value["working"].values())


def print_all(render: Callable[[Any], Iterator[str]], value: Any) -> None:
    for text in render(value):
        echo(text)


ERROR = {"code": "a.code", "message": "it is wrong", "remedy": "correct it"}
PROGRESS: dict[str, Any] = {
    "acts": [{"text": "created web.1"}],
    "last": 1,
    "working": {"Service/default/web": "12 of 30 MiB"},
}
FINDINGS = [{"check": "engine", "message": "it doesn't answer", "remedy": "start it"}]
LINES = [
    {"label": label, "container": "web.1-0", "time": "2026-03-01T12:00:00Z", "line": "ready"}
    for label in ("web.1", "web.2")
]
PENDING = Pending(
    plan="be" * 32,
    objects=(
        {
            "kind": "container",
            "service": "Service/default/web",
            "container": "web.1-0",
            "owner": "team",
            "since": "2026-01-01T12:00:00Z",
            "why": "its document is gone",
        },
        {
            "kind": "volume",
            "name": "data",
            "namespace": "shop",
            "owner": "users",
            "since": "2026-01-02T12:00:00Z",
            "mounts": ["web.1-1"],
            "why": "nobody needs it",
        },
    ),
    unknown=({"id": "ab" * 32, "reason": "the broker doesn't know it", "why": "it is old"},),
    shown=(),
)
CASES: dict[str, tuple[Printed, Any]] = {
    "status": (partial(print_all, status), REPORT),
    "describe": (partial(print_all, descriptions), REPORT),
    "history": (partial(print_all, histories), HISTORY),
    "status --json": (print_json, REPORT),
    "up": (print_lines, REPORT),
    "apply": (show_done, DONE),
    "apply, not converged": (print_unready, DONE),
    "changes": (show_changes, CHANGES),
    "progress": (print_progress, PROGRESS),
    "source list": (print_sources, FETCHED),
    "an error": (print_error, ERROR),
    "doctor": (print_findings, FINDINGS),
    "logs": (print_logs, LINES),
    "up on a terminal": (print_screen, REPORT),
    "approve": (print_approval, PENDING),
}


@pytest.fixture(autouse=True)
def with_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are printed, as on a terminal: click would take escape sequences of others along."""
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda *_: False)


@pytest.mark.parametrize("case", CASES)
def test_no_field_of_an_answer_reaches_the_terminal_raw(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show, value = CASES[case]
    show(value)
    assert faults("".join(capsys.readouterr())) == []
    wrong: dict[str, list[str]] = {}
    reached = 0
    for text, changed in variants(value):
        try:
            show(changed)
        except (KeyError, ValueError, IndexError):
            continue  # not a value that the command can show
        printed = "".join(capsys.readouterr())
        reached += "all is well" in printed
        if found := faults(printed):
            wrong[text] = found
    assert wrong == {}
    assert reached > 0, "no string of the value is printed at all"


@pytest.mark.parametrize("scene", scenes())
def test_no_field_of_a_plan_reaches_the_terminal_raw(
    scene: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, review = plan_of(scene)
    wrong: dict[str, list[str]] = {}
    for text, changed in variants(review):
        try:
            value: dict[str, Any] = review_json(changed)
            for width in (None, 80):
                options: dict[str, Any] = {"width": width, "paint": plan_text.paint}
                echo(plan_text.render_plan(value, **options, verbose=True))
                echo(plan_text.render_differences(value["objects"], **options))
            echo(plan_text.render_markdown(value, title="plan"))
            print_json(value)
        except (KeyError, ValueError, IndexError, AssertionError):
            continue
        if found := faults("".join(capsys.readouterr())):
            wrong[text] = found
    assert wrong == {}


RECORDS = gate_records()


def printed_of(records: list[Record]) -> Iterator[str]:
    """Yield what ``journal list``, ``show`` and ``blame`` print of records."""
    context = RecordContext()
    results = [QueryResult(each, context.learn(each)) for each in records]
    find = partial(found_in, records)
    for result in results:
        yield "   ".join(row(result))
        if (told := story(find, str(result.record.seq))) is not None:
            yield render_story(told)
    for width in (None, 100):
        clock = clock_for(NOW, utc=True, exact=width is None)
        yield render_records(results, clock, width=width)
        yield render_changes(results, clock, limit=0, width=width)
    containers = {
        str(each.record.entry.result.get("container"))
        for each in results
        if each.record.entry.result.get("container")
    }
    for identifier in sorted(containers):
        origin = provenance(chronicle(find, identifier))
        if origin is not None:
            yield explain.render(origin)
            yield "  ".join(explain._state_row(origin))


@pytest.mark.parametrize("first", range(0, len(RECORDS), 30))
def test_no_member_of_a_record_reaches_the_terminal_raw(
    first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in RECORDS[first : first + 30]:
        for text, changed in variants(record.entry):
            if text in {record.entry.id, record.entry.stage}:
                continue
            poisoned = Record(record.seq, record.time, changed, record.prev, record.hash)
            try:
                for printed in printed_of([poisoned]):
                    echo(printed)
            except (KeyError, ValueError):
                continue
            assert faults("".join(capsys.readouterr())) == [], (record.seq, text)


def test_the_output_of_a_command_is_escaped_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"a{HOSTILE}")
    out = capsys.readouterr().out
    # The line end is taken for the command's own, and so are colours: fields escape them.
    assert "\\u001b]0;pwned\\u0007\x1b[5;7m\\u009b2J" in out
    assert out.endswith("\\u000d\nroot# all is well\n")


def test_json_for_programs_keeps_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    value = with_text({"text": "x"}, "x", HOSTILE + "\U000e0001")
    print_json(value)
    out = capsys.readouterr().out
    assert out.removesuffix("\n").isprintable()
    assert json.loads(out) == value
