"""The log of a build: its step, and its last lines without the builder's own words."""

from __future__ import annotations

import json

from controller.core.engine_api.streams import KEPT_LINES, BuildLog, advance_build, describe_build


def after(*texts: str) -> BuildLog:
    log = BuildLog()
    for text in texts:
        log = advance_build(log, json.dumps({"stream": text}).encode())
    return log


def test_the_step_is_the_last_one_that_began() -> None:
    assert describe_build("web:1", BuildLog()) == "web:1: sending the context"
    log = after("Step 1/2 : FROM sha256:0 AS stage-0\n", "Step 2/2 : RUN make\n", "cc -c a.c\n")
    assert describe_build("web:1", log) == "web:1: step 2/2, RUN make"


def test_lines_are_kept_without_colours_and_the_builders_own() -> None:
    log = after(
        " ---> Running in 0123\n", "\x1b[91msh: ", "no such file\n\x1b[0m", "\n", "a\x07b\n"
    )
    assert log.lines == ("sh: no such file", "a\\x07b")


def test_the_last_lines_are_kept() -> None:
    log = after(*(f"{number}\n" for number in range(100)))
    assert log.lines == tuple(str(number) for number in range(100 - KEPT_LINES, 100))
    (line,) = after("x" * 5000 + "\n").lines
    assert len(line) == 200


def test_what_is_no_output_changes_nothing() -> None:
    log = after("a\n")
    for line in (
        b"",
        b"{",
        b"[]",
        b'{"status":"x"}',
        b'{"stream":1}',
        b'{"aux":{"ID":"sha256:0"}}',
    ):
        assert advance_build(log, line) == log
