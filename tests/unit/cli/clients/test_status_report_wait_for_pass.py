"""What is shown while a command waits, and what a pass came to."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from controller.cli.clients import status_report
from controller.cli.clients.status_report import (
    ProgressPrinter,
    name_of,
    show_changes,
    showing_progress,
)
from controller.cli.commands.apply import done_text
from controller.cli.status.table import conditions_of


def resource(reason: str, message: str) -> dict[str, Any]:
    conditions = [
        {"type": "Degraded", "status": "True", "reason": "TooFew", "message": "0 of 1 running"},
        {"type": "Progressing", "status": "True", "reason": reason, "message": message},
    ]
    return {"namespace": "default", "name": "web", "conditions": conditions}


def test_a_pull_is_shown_beside_what_is_grave() -> None:
    assert [c["type"] for c in conditions_of(resource("Pulling", "x"))] == [
        "Degraded",
        "Progressing",
    ]
    assert [c["type"] for c in conditions_of(resource("Acting", "x"))] == ["Degraded"]


@pytest.mark.parametrize("reason", ["Waiting", "Retrying"])
def test_what_is_waited_for_is_shown_where_nothing_else_says_why(reason: str) -> None:
    found = resource(reason, "waiting for db to start")
    assert [c["type"] for c in conditions_of(found)] == ["Degraded", "Progressing"]
    found["conditions"].append({"type": "Stalled", "status": "True", "message": "x"})
    assert [c["type"] for c in conditions_of(found)] == ["Stalled", "Degraded"]


def test_each_act_and_each_change_of_a_pull_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_report, "POLL_S", 0.02)
    path = tmp_path / "controller.sock"
    pulls = ["", "x: 1 of 2 layers", "x: 1 of 2 layers", "x: 2 of 2 layers", ""]
    asked: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        all_asked = threading.Event()

        def answer() -> None:
            while not asked or asked[-1] != len(pulls) + 8:
                peer, _ = listener.accept()
                with peer:
                    since = json.loads(peer.recv(4096))["since"]
                    asked.append(since)
                    number = 8 if len(asked) == 1 else since + (since - 8 < len(pulls))
                    peer.sendall(json.dumps(progress(since, number)).encode() + b"\n")
            all_asked.set()

        def progress(since: int, number: int) -> dict[str, Any]:
            texts = {11: "web: created web.1", 12: None}
            acts = [{"text": texts.get(number, "web: \x1b[1m")}] if number > max(since, 9) else []
            pull = pulls[min(number - 9, len(pulls) - 1)] if number > 8 else "old"
            return {
                "acts": acts if number in (11, 12) else [],
                "last": number,
                "working": {"Service/default/web": pull} if pull else {},
            }

        thread = threading.Thread(target=answer)
        thread.start()
        with showing_progress(path):
            assert all_asked.wait(20)
        thread.join(20)
    assert asked[0] == 0, "what was done before is passed over"
    assert capsys.readouterr().err.splitlines() == [
        "web: pulling x: 1 of 2 layers",
        "web: created web.1",
        "web: pulling x: 2 of 2 layers",
    ]


def test_on_a_terminal_pulls_share_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    both = {"Service/default/web": "a: 1 of 2 layers", "Service/default/db": "b: 3 of 9 layers"}
    answers = [
        {"acts": [], "last": 1, "working": {"Service/default/web": "a: 1 of 2 layers"}},
        {"acts": [{"text": "db: created db.1"}], "last": 2, "working": both},
        {"acts": [], "last": 2, "working": both},
        {"acts": [], "last": 2, "working": {}},
    ]
    progress = Scripted(answers)
    for _ in answers:
        progress.update()
    first = "web: pulling a: 1 of 2 layers"
    assert capsys.readouterr().err.split("\r\x1b[K") == [
        "",
        first,
        "db: created db.1\n",
        first,
        "web: pulling a: 1 of 2 layer…",
        "",
    ]


class Scripted(ProgressPrinter):
    """Gets its answers from a list."""

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        super().__init__(Path("/nowhere"))
        self.answers = list(answers)

    def ask(self) -> Any:
        return self.answers.pop(0)


def test_a_command_waits_for_a_controller_that_says_nothing(tmp_path: Path) -> None:
    with showing_progress(tmp_path / "no.sock"):
        pass


def test_names_are_those_that_commands_take() -> None:
    assert [name_of(key) for key in ("Service/default/web", "Network/team/net")] == [
        "web",
        "team/net",
    ]


ANSWER: dict[str, Any] = {
    "converged": True,
    "seconds": 12.3,
    "acts": [{}],
    "summary": {"text": "1 created"},
}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({}, "Applied in 12 s: 1 created."),
        ({"seconds": 0.42}, "Applied in 420 ms: 1 created."),
        ({"converged": False, "seconds": 300.2}, "Done in 5 min 0 s: 1 created."),
        (
            {
                "converged": False,
                "acts": [],
                "summary": {"text": "nothing was done"},
                "recently": "1 created",
            },
            "Done in 12 s: nothing was done; done within the last minute: 1 created.",
        ),
        ({"acts": []}, "Nothing to do."),
        (
            {"acts": [], "recently": "1 replaced"},
            "Nothing left to do; done within the last minute: 1 replaced.",
        ),
    ],
)
def test_a_pass_is_summed_up_in_one_line(answer: dict[str, Any], text: str) -> None:
    assert done_text({**ANSWER, **answer}) == text


def test_the_fields_that_are_about_to_change_are_shown_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = {"text": "spec.image: web:1 -> web:2"}
    show_changes(
        [
            {"object": "Service/default/web", "effect": "replace", "changes": [image, image]},
            {"object": "Service/team/new", "effect": "create", "new": True, "changes": [image]},
            {"object": "Service/team/held", "effect": "held", "changes": [image]},
        ]
    )
    assert capsys.readouterr().err == "web: spec.image: web:1 -> web:2\n"
