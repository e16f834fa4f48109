"""Lines of containers on the screen: prefixes, colours, streams, JSON."""

from __future__ import annotations

import json

import pytest

from controller.cli.commands import log_lines
from controller.cli.commands.log_lines import LineOrigin, LinePrinter
from controller.cli.commands.logs import print_run, select
from controller.cli.commands.replicas import ContainerTarget
from controller.model.container_output import LogLine, StreamName
from controller.model.names import service_key
from tests.unit.core.drift.test_failures_failed_runs import line, run_of

ONE, TEN = LineOrigin("web.1", 1, "web.1-a"), LineOrigin("web.10", 10, "web.10-a")


def said(text: str, stream: StreamName = "stdout") -> LogLine:
    return LogLine("2026-03-01T12:00:00.000000001Z", stream, text)


def printer(*, timestamps: bool = False, as_json: bool = False) -> LinePrinter:
    return LinePrinter(timestamps=timestamps, as_json=as_json)


def test_one_replica_has_no_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    out = printer()
    out.print(ONE, said("a\x1b[31mb\x1b[2J"))
    out.print(ONE, said("err", "stderr"))
    assert capsys.readouterr() == ("ab\\u001b[2J\n", "err\n")


def test_several_have_prefixes_of_one_width(capsys: pytest.CaptureFixture[str]) -> None:
    out = printer(timestamps=True)
    out.expect(["web.1", "web.10"])
    out.print(ONE, said("a"))
    out.print(TEN, said("b", "stderr"))
    time = "2026-03-01T12:00:00.000000001Z"
    assert capsys.readouterr() == (f"web.1  | {time} a\n", f"web.10 | {time} b\n")


def test_each_replica_has_a_colour_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "has_colours", lambda _stream: True)
    out = printer()
    out.expect(["web.1", "web.10"])
    out.print(ONE, said("a"))
    out.print(TEN, said("\x1b[31mb"))
    assert capsys.readouterr().out == (
        "\x1b[36mweb.1  | \x1b[0ma\n\x1b[33mweb.10 | \x1b[0m\x1b[31mb\x1b[0m\n"
    )


def test_json_has_every_line_as_it_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    printer(as_json=True).print(TEN, said("a\x1b[31mb", "stderr"))
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (
        {
            "time": "2026-03-01T12:00:00.000000001Z",
            "slot": 10,
            "container": "web.10-a",
            "stream": "stderr",
            "line": "a\x1b[31mb",
        },
        "",
    )


def test_a_failed_run_is_named_before_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(lines=(line("one"), line("two")))
    print_run(run, printer(), tail="1", since="")
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"web.1-bbbbbbbb exited with 1 at {run.at}\ntwo\n")
    print_run(run_of(), printer(), tail="all", since="")
    assert (
        capsys.readouterr().err == f"web.1-bbbbbbbb exited with 1 at {run.at}; it printed nothing\n"
    )


def test_previous_means_the_last_failed_run_of_each_slot() -> None:
    runs = [run_of(1), run_of(2), run_of(3, slot=2), run_of(4, key=service_key("shop", "web"))]
    assert select(runs, ContainerTarget.parse("default/web")) == [runs[1], runs[2]]
    assert select(runs, ContainerTarget.parse("shop/web.1")) == [runs[3]]
    assert select(runs, ContainerTarget.parse("web.3")) == []
