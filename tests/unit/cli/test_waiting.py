"""What is told while a command waits: how far pulls are, each change once."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from controller.cli import waiting
from controller.cli.conditions import conditions_of
from controller.cli.waiting import pulls_of, telling_pulls


def resource(reason: str, message: str) -> dict[str, Any]:
    conditions = [
        {"type": "Degraded", "status": "True", "reason": "TooFew", "message": "0 of 1 serve"},
        {"type": "Progressing", "status": "True", "reason": reason, "message": message},
    ]
    return {"namespace": "default", "name": "web", "conditions": conditions}


def test_only_pulls_are_told() -> None:
    assert pulls_of({"resources": [resource("Pulling", "x: 1 of 2 layers")]}) == {
        "default/web": "x: 1 of 2 layers"
    }
    assert pulls_of({"resources": [resource("Retrying", "x")]}) == {}


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


def test_each_change_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 0.02)
    path = tmp_path / "controller.sock"
    said = ["x: 1 of 2 layers", "x: 1 of 2 layers", "x: 2 of 2 layers"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        all_asked = threading.Event()

        def answer() -> None:
            for message in (*said, said[-1]):
                peer, _ = listener.accept()
                with peer:
                    peer.recv(4096)
                    status = {"resources": [resource("Pulling", message)]}
                    peer.sendall(json.dumps(status).encode() + b"\n")
            all_asked.set()

        thread = threading.Thread(target=answer)
        thread.start()
        with telling_pulls(path):
            assert all_asked.wait(20)
        thread.join(20)
    assert capsys.readouterr().err.splitlines() == [
        "default/web: pulling x: 1 of 2 layers",
        "default/web: pulling x: 2 of 2 layers",
    ]
