"""``journal metrics``: what Prometheus is told of the journal is what its broker says, or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.cli.journal.export import render
from controller.cli.main import main
from tests.unit.cli.journal.test_explain_queries import made, served, the_story


def values(text: str) -> dict[str, int]:
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {name: int(value) for name, value in lines}


def asked(capsys: pytest.CaptureFixture[str], state: Path) -> dict[str, int]:
    with pytest.raises(SystemExit) as ended:
        main(["journal", "metrics", "--state", str(state)])
    assert ended.value.code == 0
    return values(capsys.readouterr().out)


def test_programs_are_told_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = made(tmp_path / "state", the_story())
    with pytest.raises(SystemExit) as ended:
        main(["journal", "metrics", "--json", "--state", str(state)])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out) == {"trimtab_broker_up": 0}


def test_how_the_journal_is_is_told_while_the_broker_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = made(tmp_path / "state", the_story())
    assert asked(capsys, state) == {"trimtab_broker_up": 0}, "nothing is said of the journal"
    with served(state):
        told = asked(capsys, state)
    assert told.pop("trimtab_journal_free_bytes") > 0
    assert told.pop("trimtab_journal_records") >= 11
    assert told == {
        "trimtab_broker_up": 1,
        "trimtab_broker_longest_stall_milliseconds": 0,
        "trimtab_broker_connections_refused": 0,
        "trimtab_quota_fullest_percent": 0,
        "trimtab_clients_waiting": 0,
        "trimtab_journal_writable": 1,
        "trimtab_journal_reserved": 0,
        "trimtab_journal_signed": 0,
        "trimtab_journal_unrecorded": 0,
        "trimtab_journal_clock_doubted": 0,
    }


def test_a_journal_that_cant_be_written_is_a_gauge_at_zero_for_everybody() -> None:
    assert render({"journal": {"writable": False}}) == (
        "# HELP trimtab_broker_up 1 while the broker answers.\n"
        "# TYPE trimtab_broker_up gauge\n"
        "trimtab_broker_up 1\n"
        "# HELP trimtab_journal_writable 1 if the last write succeeded; else changes are refused.\n"
        "# TYPE trimtab_journal_writable gauge\n"
        "trimtab_journal_writable 0\n"
    )
