"""The output of a child on a terminal: the parent writes it, escaped."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.app.process import OneLine
from controller.process.process_group import ProcessGroup, Recipe

PROJECT = Path(__file__).parents[3]
CHILD = (
    "import os, sys; sys.stdout.write('a\\x1b]0;pwned\\x07\\n'); sys.stdout.flush();"
    "sys.stderr.write('b\\x9b2J\\u202e\\n'); sys.stderr.flush();"
    "print(*(os.isatty(fd) for fd in (0, 1, 2)))"
)
PARENT = f"""
import sys
from controller.process.process_group import start_child
child = start_child("x", [sys.executable, "-c", {CHILD!r}], environment={{}}, inherited_fds=())
child.process.wait()
assert child.exit_code == 0
"""


def screen_of(terminal: int) -> bytes:
    screen = b""
    while True:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # the last writer is gone
            return screen
        if not read:
            return screen
        screen += read


def test_a_child_has_no_terminal_and_its_words_are_escaped() -> None:
    ours, theirs = os.openpty()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=PROJECT, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = screen_of(ours).decode().splitlines()
    os.close(ours)
    assert parent.wait(timeout=30) == 0
    assert screen == ["a\\u001b]0;pwned\\u0007", "b\\u009b2J\\u202e", "False False False"]


def test_into_a_pipe_a_child_writes_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT], cwd=PROJECT, capture_output=True, check=True, timeout=30
    )
    assert done.stdout == b"a\x1b]0;pwned\x07\nFalse False False\n"
    assert done.stderr == "b\x9b2J\u202e\n".encode()


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("sys.exit(3)", "exited with 3"),
    ],
)
def test_the_death_of_a_child_and_its_next_start_are_logged(
    end: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    group = ProcessGroup(monotonic=lambda: now[0], wait=lambda _s: None)
    argv = (sys.executable, "-c", f"import os, signal, sys; {end}")
    group.start(Recipe("controller", argv, {}, {})).process.wait(timeout=30)
    group.restart_ended()
    now[0] = 0.5
    group.restart_ended()
    pid = group.running[0].child.process.pid
    assert caplog.messages == [
        f"the controller {how}; it starts again in 0.5 s",
        f"the controller was started again as pid {pid}",
    ]
    group.running[0].child.process.wait(timeout=30)


def test_further_lines_of_a_log_message_are_escaped_and_indented() -> None:
    error = ValueError("\x1b[2J\x07\r\n2026-01-01 broker INFO policy.reloaded")
    raised = (ValueError, error, None)
    record = logging.LogRecord(
        "x", logging.ERROR, "", 0, "failed", (), raised, sinfo="Stack:\n\x9b"
    )
    first, *further = OneLine("%(levelname)s %(message)s").format(record).split("\n")
    assert first == "ERROR failed"
    assert all(line.startswith("  ") and line.isprintable() for line in further)
    assert "  2026-01-01 broker INFO policy.reloaded" in further
    assert "  ValueError: \\u001b[2J\\u0007\\u000d" in further
    assert further[-1] == "  \\u009b"


def test_a_log_message_is_one_line() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "it said %s", ("a\x1b\nroot# ok",), None)
    assert OneLine("%(levelname)s %(message)s").format(record) == (
        "ERROR it said a\\u001b\\u000aroot# ok"
    )
