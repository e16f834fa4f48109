"""``status`` where nothing runs, and ``status --watch`` on a terminal and in a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest

from controller.cli.clients.status_report import complete_names, complete_namespaces
from controller.cli.main import main
from controller.cli.status.live_view import ChangeLines
from controller.model.errors import EngineUnavailable
from controller.settings import Instance, StateFolder, state_of, write_instance
from tests.unit.cli.reports import condition, problem, report, resource

TRIMTAB = str(Path(sys.executable).parent / "trimtab")
PATIENCE_S = 30.0


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    (tmp_path / "run").mkdir()
    (tmp_path / "controller").mkdir()
    instance = Instance("1" * 8, "/srv/desired", run=str(tmp_path / "run"))
    write_instance(tmp_path, instance)
    return state_of(tmp_path, instance)


@contextmanager
def answering(state: StateFolder, *reports: dict[str, Any]) -> Iterator[None]:
    """Answer each question to the controller with the next report, and go on with the last one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(state.controller_socket))
        listener.listen()

        def answer() -> None:
            left = list(reports)
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(4096)
                    peer.sendall(json.dumps(left[0]).encode() + b"\n")
                left = left[1:] or left

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)


def test_where_nothing_runs_the_last_known_state_is_shown_with_its_age(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = state.controller / "status.json"
    path.write_text(json.dumps(report(resource("web"))))
    written = path.stat().st_mtime - 7300
    os.utime(path, (written, written))
    for command, text in (
        (["status"], r"Service +default +web +1/1 +Ready"),
        (["describe", "web"], r"Ready: +1/1"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--state", str(state.root)])
        shown = capsys.readouterr()
        assert ended.value.code == 1
        assert re.search(text, shown.out)
        assert "this is the last known state, 2h old" in shown.err
        assert re.search(r"remedy: .*trimtab up", shown.err)


@pytest.mark.parametrize("what", ["nothing", "FIFO", "link", "garbage"])
def test_where_nothing_was_known_it_says_that_nothing_runs(
    state: StateFolder, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path = state.controller / "status.json"
    if what == "FIFO":
        os.mkfifo(path)
    elif what == "link":
        path.with_suffix(".real").write_text(json.dumps(report(resource("web"))))
        path.symlink_to(path.with_suffix(".real"))
    elif what == "garbage":
        path.write_text("[]")
    with pytest.raises(SystemExit) as ended:
        main(["status", "--state", str(state.root)])
    assert ended.value.code == 1
    assert "nothing runs behind" in capsys.readouterr().err


def test_an_unknown_name_gets_the_nearest_one(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(state, report(resource("gateway"))):
        for command in ("status", "describe"):
            with pytest.raises(SystemExit) as ended:
                main([command, "gatway", "--state", str(state.root)])
            assert ended.value.code == 1
            assert capsys.readouterr().err == (
                "error: there is no resource gatway [resource.unknown]\n"
                "remedy: did you mean gateway? 'trimtab status' lists all\n"
            )


SINCE = "2026-03-01T12:00:00Z"
UNREAD = report() | {"unread": {"since": SINCE}}
NOT_SEEN = resource("web", condition("Ready", reason="NotSeen", status="Unknown"))


@pytest.mark.parametrize(
    ("shown", "code"),
    [
        (report(resource("web")), 0),
        (report(), 0),
        (report(resource("web"), resource("api", condition("CrashLoop"))), 5),
        (report(resource("web", condition("Degraded"))), 5),
        (report(resource("web"), problems=[problem("no")]), 5),
        (report(NOT_SEEN), 1),
        (UNREAD, 1),
    ],
)
def test_the_exit_code_says_whether_all_is_as_declared(
    state: StateFolder, shown: dict[str, Any], code: int
) -> None:
    with answering(state, shown), pytest.raises(SystemExit) as ended:
        main(["status", "--exit-code", "--state", str(state.root)])
    assert ended.value.code == code


def test_no_resources_is_not_said_before_all_was_read(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(state, UNREAD):
        with pytest.raises(SystemExit) as ended:
            main(["status", "--state", str(state.root)])
        assert ended.value.code == 1
        assert capsys.readouterr().out.startswith(f"Not read yet, since {SINCE} (")
        with pytest.raises(SystemExit) as ended:
            main(["status", "--json", "--state", str(state.root)])
        assert json.loads(capsys.readouterr().out)["unread"] == {"since": SINCE}
        for name in ("status", "describe"):
            with pytest.raises(SystemExit):
                main([name, "web", "--state", str(state.root)])
            assert "[controller.starting]" in capsys.readouterr().err


def test_names_are_completed_from_what_runs(state: StateFolder) -> None:
    shop = resource("gateway", namespace="shop")
    context = click.Context(click.Command("describe"))
    context.params = {"state": state.root}
    with answering(state, report(resource("gateway"), resource("web"), shop)):
        assert complete_names(context, click.Argument(["name"]), "ga") == ["gateway", "gateway"]
        assert complete_names(context, click.Argument(["name"]), "sh") == ["shop/gateway"]
    assert complete_names(context, click.Argument(["name"]), "ga") == []


def test_namespaces_are_completed_from_what_runs(state: StateFolder) -> None:
    context = click.Context(click.Command("stop"))
    context.params = {"state": state.root}
    rows = [resource("a", namespace=name) for name in ("shop", "shop", "site", "blog")]
    with answering(state, report(*rows)):
        found = complete_namespaces(context, click.Argument(["namespace"]), "s")
    assert found == ["shop", "site"]
    assert complete_namespaces(context, click.Argument(["namespace"]), "s") == []


def test_only_one_namespace_is_shown_if_asked(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(state, report(resource("web"), resource("db", namespace="shop"))):
        with pytest.raises(SystemExit):
            main(["status", "-n", "shop", "-o", "json", "--state", str(state.root)])
        assert [r["name"] for r in json.loads(capsys.readouterr().out)["resources"]] == ["db"]


def test_in_a_pipe_each_change_is_a_line_with_the_time(state: StateFolder) -> None:
    broken = resource("web", condition("CrashLoop", "it exited with 1"), ready=0)
    with answering(state, report(resource("web")), report(broken)):
        process = subprocess.Popen(
            [TRIMTAB, "status", "--watch", "--state", str(state.root)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        process.stdout.close()
    printed = [line.split("  ", 1) for line in lines]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time, _ in printed)
    assert [text for _, text in printed] == [
        "Service/default/web  Ready  1/1\n",
        "Service/default/web  CrashLoop  0/1  it exited with 1\n",
    ]


def test_a_terminal_is_redrawn_at_once_when_its_size_changes(state: StateFolder) -> None:
    why = "the registry has no such image: push it, or correct the name"
    stalled = resource("web", condition("Stalled", why), ready=0)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
    with answering(state, report(stalled)):
        process = subprocess.Popen(
            [TRIMTAB, "status", "--watch", "--state", str(state.root)],
            stdin=follower,
            stdout=follower,
            # pytest's workers set a width of their own.
            env={**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""},
            start_new_session=True,
        )
        shown = read_until(leader, "correct the name")
        assert "\x1b[?1049h" in shown, "the alternate screen"
        assert "registry.example.com" in shown
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        process.send_signal(signal.SIGWINCH)
        assert "…/web:1.4" in read_until(leader, "…/web:1.4")
        process.send_signal(signal.SIGINT)
        assert "\x1b[?1049l" in read_until(leader, "\x1b[?1049l"), "the terminal is as it was"
        assert process.wait(PATIENCE_S) == 130
    os.close(leader)
    os.close(follower)


def read_until(descriptor: int, text: str) -> str:
    shown = b""
    while text.encode() not in shown:
        ready, _, _ = select.select([descriptor], [], [], PATIENCE_S)
        assert ready, f"{text!r} wasn't shown: {shown!r}"
        shown += os.read(descriptor, 65536)
    return shown.decode()


def test_a_change_is_a_line_and_a_problem_of_a_resource_is_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = ChangeLines(as_json=False, timestamps=False)
    web = resource("web", condition("Stalled", "no such volume (declare it)"), ready=0)
    typo = problem("unknown key", file="web.yaml", line=6, code="field.unknown")
    changes.wait(EngineUnavailable("nothing.running", "nothing runs"))
    for one in (
        report(web, problems=[problem("no such volume"), typo]),
        report(web, problems=[problem("no such volume"), typo]),
        report(resource("web")),
        report(),
    ):
        changes.show(one)
    assert capsys.readouterr().out.splitlines() == [
        "waiting: nothing runs",
        "Service/default/web  Stalled  0/1  no such volume (declare it)",
        "problem web.yaml:6 field.unknown  unknown key",
        "Service/default/web  Ready  1/1",
        "problem web.yaml:6 field.unknown  gone",
        "Service/default/web  gone",
    ]


def test_a_line_for_a_change_plays_no_tricks_on_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problem = {"code": "x", "file": "", "line": 0, "column": 0, "field": "", "message": "\x1b[2J"}
    ChangeLines(as_json=False, timestamps=False).show({"resources": [], "problems": [problem]})
    assert capsys.readouterr().out == "problem x  \\u001b[2J\n"


def test_notes_on_compose_files_are_one_line_of_changes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    note = problem("build has no effect", code="compose.by-policy", file="c.yaml", line=3)
    changes = ChangeLines(as_json=False, timestamps=False)
    changes.show(report(problems=[note, {**note, "line": 4}]))
    changes.show(report(problems=[note, {**note, "line": 4}]))
    told = "notes  2 notes on Compose files; 'trimtab validate' shows them\n"
    assert capsys.readouterr().out == told
