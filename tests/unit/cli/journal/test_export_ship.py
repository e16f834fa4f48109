"""``ship --status``, as somebody on call types it."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.cli.main import main
from controller.cli.output.times import current_time
from controller.settings import Instance, StateFolder, write_instance


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    found = StateFolder(root=tmp_path, run=tmp_path / "run")
    found.ship.mkdir()
    write_instance(tmp_path, Instance(id="1" * 16, dir="/d", run=str(tmp_path / "run")))
    return found


def asked(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["ship", "--status", "--state", str(state.root)])
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def test_each_destination_is_a_row(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    sink = {"name": "siem", "seq": 7, "lag_records": 2, "lag_seconds": 3.4, "missing": 0}
    told = {"at": current_time(), "sinks": [{**sink, "rejected": 1, "error": "it hung up"}]}
    (state.ship / "status.json").write_text(json.dumps(told))
    code, out, _ = asked(state, capsys)
    assert (code, out.splitlines()[1].split()) == (
        0,
        ["siem", "7", "2", "3", "s", "0", "1", "it", "hung", "up"],
    )


def test_without_a_shipper_it_says_so_and_how_far_the_journal_is(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = {"name": "siem", "seq": 762, "lag_records": 0, "lag_seconds": 0.0, "missing": 0}
    told = {"at": current_time() - 1140, "sinks": [{**sink, "error": ""}]}
    (state.ship / "status.json").write_text(json.dumps(told))
    state.run.mkdir()
    with answering(state.broker_socket, {"journal": {"seq": 866}}):
        code, out, err = asked(state, capsys)
    assert (code, out.splitlines()[1].split()[:4]) == (1, ["siem", "762", "104", "?"])
    assert "no shipper runs: this is its last state, 19m old" in err


@contextmanager
def answering(path: Path, health: dict[str, object]) -> Iterator[None]:
    """Answer a request on a broker's socket."""
    body = json.dumps(health).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            try:
                peer, _ = listener.accept()
            except OSError:
                return  # nobody asked
            with peer:
                peer.recv(65536)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                peer.sendall(head.encode() + body)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_what_a_receiver_said_plays_no_tricks(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = {"name": "o", "seq": 7, "lag_records": 2, "lag_seconds": 3.4, "missing": 0}
    told = {"at": current_time(), "sinks": [{**sink, "error": "no\x1b[2J\nall is well\u202e"}]}
    (state.ship / "status.json").write_text(json.dumps(told))
    _, out, _ = asked(state, capsys)
    assert out.splitlines()[1].endswith("no\\u001b[2J\\u000aall is well\\u202e")


@pytest.mark.parametrize("told", [None, "", "[]", "null", "{}", '{"sinks": [{}]}', '{"sinks": 1}'])
def test_where_no_shipper_left_a_status_that_is_said(
    state: StateFolder, capsys: pytest.CaptureFixture[str], told: str | None
) -> None:
    if told is not None:
        (state.ship / "status.json").write_text(told)
    code, out, err = asked(state, capsys)
    assert (code, out) == (1, "")
    assert "[ship.unknown]" in err


def as_a_link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text(json.dumps({"at": current_time(), "sinks": []}))
    path.symlink_to(elsewhere)


def nested(path: Path) -> None:
    path.write_text("[" * 500_000)


@pytest.mark.parametrize("act", [as_a_link, os.mkfifo, nested])
def test_a_usurped_shipper_leads_no_operator_elsewhere(
    state: StateFolder, capsys: pytest.CaptureFixture[str], act: Callable[[Path], None]
) -> None:
    act(state.ship / "status.json")
    code, _, err = asked(state, capsys)
    assert (code, "[ship.unknown]" in err) == (1, True)
