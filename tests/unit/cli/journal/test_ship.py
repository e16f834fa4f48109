"""``ship --status``, as somebody on call types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.cli.main import main
from controller.settings import Instance, StateFolder, write_instance


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    found = StateFolder(root=tmp_path, run=tmp_path / "run")
    found.ship.mkdir()
    write_instance(tmp_path, Instance(id="1" * 16, dir="/d", engine="unix:///e", run="/r"))
    return found


def asked(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["ship", "--status", "--state", str(state.root)])
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def test_each_destination_is_a_row(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    sink = {"name": "siem", "seq": 7, "lag_records": 2, "lag_seconds": 3.4, "missing": 0}
    told = {"at": 1.0, "sinks": [{**sink, "rejected": 1, "error": "it hung up"}]}
    (state.ship / "status.json").write_text(json.dumps(told))
    code, out, _ = asked(state, capsys)
    assert (code, out.splitlines()[1].split()) == (
        0,
        ["siem", "7", "2", "3", "s", "0", "1", "it", "hung", "up"],
    )


def test_what_a_receiver_said_plays_no_tricks(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = {"name": "o", "seq": 7, "lag_records": 2, "lag_seconds": 3.4, "missing": 0}
    told = {"at": 1.0, "sinks": [{**sink, "error": "no\x1b[2J\nall is well\u202e"}]}
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
