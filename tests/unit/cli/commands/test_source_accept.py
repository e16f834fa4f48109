"""``source accept`` from the arguments to the record: what is shown, asked and sent, and what is refused."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from controller.settings import StateFolder
from tests.unit.cli.commands.test_service import Both, run
from tests.unit.cli.commands.test_service import state as state  # noqa: PLC0414 - a fixture
from tests.unit.cli.status.test_status_signed import LINE, SOURCE

NEW = LINE["commit"]
OTHER = "ef" * 20


class Broker(Both):
    """A broker at which the commit *line* waits; keeps the acts that it gets."""

    def __init__(self, state: StateFolder, line: dict[str, Any]) -> None:
        self.line = line
        super().__init__(state, {})

    def _record(self, peer: socket.socket) -> None:
        file = peer.makefile("rb")
        is_question = file.readline().startswith(b"GET ")
        length = 0
        while (text := file.readline().strip().lower()) != b"":
            if text.startswith(b"content-length:"):
                length = int(text.partition(b":")[2])
        status, answer = 200, {"sources": [{**SOURCE, "line": self.line}]}
        if not is_question:
            self.said.append(("broker", json.loads(file.read(length))))
            status, answer = self.denied or (200, {"id": "record-1", **LINE})
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\n\r\n"
        peer.sendall(head.encode() + data)


@contextmanager
def waiting(state: StateFolder, line: dict[str, Any] = LINE) -> Iterator[Broker]:
    broker = Broker(state, line)
    try:
        yield broker
    finally:
        broker.close()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


SENT = {"act": "source.line", "object": "shop", "digest": LINE["digest"], "note": ""}


def test_a_confirmed_commit_is_approved_as_it_was_shown(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with waiting(state) as broker:
        assert run(state, "source", "accept", "shop", NEW, "--yes", "--note", "rebased") == 0
    assert broker.said == [("broker", {**SENT, "note": "rebased"})]
    out = capsys.readouterr().out
    for text in (LINE["accepted"], NEW, "bob@example.org", "approved cdcdcdcdcdcd"):
        assert text in out
    assert "\x1b" not in out


@pytest.mark.parametrize(("answer", "code", "sent"), [("y\n", 0, 1), ("n\n", 130, 0), ("", 130, 0)])
def test_a_terminal_is_asked(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, sent: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with waiting(state) as broker:
        assert run(state, "source", "accept", "shop", NEW) == code
    assert len(broker.said) == sent


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_without_a_terminal_nothing_is_approved_unasked(
    state: StateFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with waiting(state) as broker:
        assert run(state, "source", "accept", "shop", NEW, *more) == 64
    assert broker.said == []
    told = capsys.readouterr()
    assert "--yes" in told.err + told.out


def test_json_is_the_record_alone(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with waiting(state):
        assert run(state, "source", "accept", "shop", NEW, "--yes", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"id": "record-1", **LINE}


@pytest.mark.parametrize(
    ("name", "commit", "code"),
    [
        ("shop", OTHER, "source.other-commit"),
        # The first digits can be chosen by whoever spells an old signature anew.
        ("shop", NEW[:39], "source.other-commit"),
        ("lab", NEW, "source.no-line"),
    ],
)
def test_only_the_commit_that_waits_is_approved_by_its_whole_id(
    state: StateFolder, capsys: pytest.CaptureFixture[str], name: str, commit: str, code: str
) -> None:
    with waiting(state) as broker:
        assert run(state, "source", "accept", name, commit, "--yes") == 64
    assert broker.said == []
    assert code in capsys.readouterr().err


def test_another_commit_than_the_shown_one_is_refused_by_the_broker(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with waiting(state) as broker:
        refusal = {"rule": "approval.changed", "reason": "another commit waits", "remedy": "look"}
        broker.denied = (409, {"message": "another commit waits", "trimtab": refusal})
        assert run(state, "source", "accept", "shop", NEW, "--yes") == 4
    assert "approval.changed" in capsys.readouterr().err
