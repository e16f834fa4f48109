from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.cli.main import main
from controller.core.records.record import line_of
from controller.journal.store.reader import records
from controller.model.records import Entry
from controller.settings import Instance, StateFolder, write_instance
from tests.unit.journal.builders import FixedClock, entry, open_log, uuid7

CONTAINER = "c0ffee" + "0" * 58
ACTOR: dict[str, object] = {
    "uid": 4_000_000,
    "gid": 4_000_000,
    "pid": 77,
    "role": "controller",
    "separated": True,
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose journal tells of a create, a refusal and an open stop."""
    root = tmp_path / "state"
    layout = StateFolder(root=root, run=root / "run")
    layout.broker.mkdir(parents=True)
    write_instance(root, Instance(id="1" * 16, dir="/d", run=str(layout.run)))
    clock = FixedClock()
    log = open_log(layout.journal, clock=clock)
    for one in the_entries():
        clock.time += 1
        log.append(one)
    log.close()
    return root


def the_entries() -> Sequence[Entry]:
    labels = {"io.trimtab.service": "web", "io.trimtab.namespace": "default"}
    return (
        Entry(
            uuid7(1),
            "intent",
            actor=ACTOR,
            request={
                "method": "POST",
                "route": "container.create",
                "object": "web.1-1f0c22aa",
                "summary": {"name": "web.1-1f0c22aa", "labels": labels, "env": ["A", "B"]},
                "digest": "d" * 64,
            },
            verdict={
                "decision": "mutate",
                "rules": ["defaults.memory"],
                "mutations": ["memory is 2 GiB"],
                "policy": "e" * 64,
            },
            claims={
                "cause": "slot 1 is empty",
                "source": {"file": "web.yaml", "line": 3, "commit": ""},
                "plan": "f" * 64,
                "onBehalfOf": "",
            },
        ),
        Entry(
            uuid7(1),
            "outcome",
            actor=ACTOR,
            result={"status": 201, "error": "", "durationMs": 120, "container": CONTAINER},
        ),
        Entry(
            uuid7(2),
            "refusal",
            actor={"uid": 0, "gid": 0, "pid": 5, "role": "operator", "separated": False},
            request={"method": "POST", "route": "container.create", "object": "\x1b[2Jx"},
            verdict={"decision": "deny", "rules": ["privileged"]},
            result={"status": 403, "error": "privileged containers are never admitted"},
        ),
        Entry(
            uuid7(3),
            "intent",
            actor=ACTOR,
            request={"method": "POST", "route": "container.stop", "object": CONTAINER},
            verdict={"decision": "allow"},
            claims={"cause": "web is scaled to 0"},
        ),
    )


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["journal", *map(str, arguments)])
    printed = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, printed.out, printed.err


def listed(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[int]:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return [json.loads(line)["seq"] for line in out.splitlines()]


TABLE = """\
SEQ   TIME                       ACTOR        ACTION   OBJECT           VERDICT   RESULT                WHY
2     2026-01-01T12:00:01.000Z   controller   create   web.1-1f0c22aa   -         created in 120 ms     slot 1 is empty
4     2026-01-01T12:00:03.000Z   root?        create   \\u001b[2Jx       -         refused: privileged   privileged containers are never admitted
5     2026-01-01T12:00:04.000Z   controller   stop     web.1-1f0c22aa   -         open                  web is scaled to 0
"""
ALL = """\
SEQ   TIME                       ACTOR                STAGE     ACTION             OBJECT           VERDICT                  RESULT          WHY
1     2026-01-01T12:00:00.000Z   broker               segment   -                  -                -                        -
2     2026-01-01T12:00:01.000Z   controller:4000000   intent    container.create   web.1-1f0c22aa   mutate defaults.memory   -               slot 1 is empty
3     2026-01-01T12:00:02.000Z   controller:4000000   outcome   container.create   web.1-1f0c22aa   -                        201 in 120 ms
4     2026-01-01T12:00:03.000Z   operator:root?       refusal   container.create   \\u001b[2Jx       deny privileged          403             privileged containers are never admitted
5     2026-01-01T12:00:04.000Z   controller:4000000   intent    container.stop     web.1-1f0c22aa   allow                    -               web is scaled to 0
"""


def test_changes_are_listed_in_a_table(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list", "--state", state) == (0, TABLE, "")


@pytest.mark.parametrize(
    "filters", [["--verdict", "mutate"], ["--until", "2026-01-01T12:00:01.500Z"]]
)
def test_a_change_has_its_outcome_also_where_a_filter_leaves_that_out(
    state: Path, capsys: pytest.CaptureFixture[str], filters: list[str]
) -> None:
    code, out, _ = run(capsys, "list", *filters, "--state", state)
    assert (code, out.splitlines()[-1].split()[5:10]) == (0, ["-", "created", "in", "120", "ms"])


def test_each_record_is_listed_if_asked(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list", "--all", "--state", state) == (0, ALL, "")


def test_a_limit_counts_changes(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for limit, seqs in ((3, ["2", "4", "5"]), (1, ["5"]), (0, ["2", "4", "5"])):
        code, out, _ = run(capsys, "list", "--limit", limit, "--state", state)
        assert (code, [line.split()[0] for line in out.splitlines()[1:]]) == (0, seqs)


@pytest.mark.parametrize(
    "arguments", [["--state"], ["--limit", "50", "--state"], ["--since", "2026-01-01", "--state"]]
)
def test_without_a_command_records_are_listed(
    state: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(capsys, *arguments, state) == (0, TABLE, "")


def test_as_json_the_lines_are_those_of_the_journal(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line_of(record).decode() for record in records(state / "broker" / "journal")]
    for arguments in (["list", "--json", "--state", state], ["--state", state, "--json", "list"]):
        assert run(capsys, *arguments) == (0, "\n".join(lines) + "\n", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--service", "web"], [2, 3, 5]),
        (["--service", "default/web", "--stage", "intent"], [2, 5]),
        (["--verdict", "deny"], [4]),
        (["--actor", "root"], [4]),
        (["--actor", "operator:root?"], [4]),
        (["--actor", "controller:4000000"], [2, 3, 5]),
        (["--actor", "client:4000000"], []),
        (["--actor", "controller", "--limit", "1"], [5]),
        (["--action", "stop"], [5]),
        (["--container", CONTAINER[:6]], [3, 5]),
        (["--container", "web.1-1f0c22aa"], [2, 3, 5]),
        (["--since", "2026-01-01T12:00:03Z"], [4, 5]),
        (["--since", "2026-01-01T13:00:03+01:00", "--until", "2026-01-01T12:00:03.5Z"], [4]),
        (["--limit", "2"], [4, 5]),
        (["--limit", "0"], [1, 2, 3, 4, 5]),
        (["--service", "none"], []),
        (["--since", "10000d"], [1, 2, 3, 4, 5]),
    ],
)
def test_records_are_filtered(
    state: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[int]
) -> None:
    assert listed(capsys, "--state", state, *arguments) == expected


def test_nothing_found_is_said(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "--service", "none", "--state", state)
    assert done == (0, "No records.\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "yesterday"],
        ["--since", "1h30m"],
        ["--since", "1h", "--until", "2h"],
        ["export", "--since", "1h", "--until", "2h"],
        ["--actor", "client:nobody-of-this-name"],
        ["--verdict", "maybe"],
        ["--limit", "-1"],
        ["--limit", "9" * 20],
        ["export", "--from", "9" * 20],
        ["export", "--to", "9" * 20],
        ["show"],
        ["shew", "1"],
        ["verify", "--since", "1h"],
    ],
)
def test_wrong_usage_is_64(
    state: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (64, "")
    assert err.startswith("error: ")
    assert "[usage.wrong]" in err


STORY = f"""\
intent         record 2 at 2026-01-01T12:00:01.000Z, id {uuid7(1)}
  actor        controller:4000000 (uid 4000000, gid 4000000, pid 77)
  asked        POST container.create web.1-1f0c22aa
    env        A, B
    labels     io.trimtab.namespace=default, io.trimtab.service=web
    name       web.1-1f0c22aa
  verdict      mutate by defaults.memory
    injected   memory is 2 GiB
    policy     {"e" * 64}
  claimed      slot 1 is empty
    source     web.yaml:3
    plan       {"f" * 64}
outcome        record 3 at 2026-01-01T12:00:02.000Z, id {uuid7(1)}
  actor        controller:4000000 (uid 4000000, gid 4000000, pid 77)
  result       201 in 120 ms
    container  {CONTAINER}
after          record 5 at 2026-01-01T12:00:04.000Z: container.stop intent by controller:4000000 allow (web is scaled to 0)
"""


@pytest.mark.parametrize("record", ["2", "3", uuid7(1)])
def test_a_change_is_shown_whole_by_either_record_or_its_id(
    state: Path, capsys: pytest.CaptureFixture[str], record: str
) -> None:
    assert run(capsys, "show", record, "--state", state) == (0, STORY, "")


@pytest.mark.parametrize(
    ("record", "expected"), [("1", [1]), ("2", [2, 3]), ("3", [2, 3]), ("4", [4]), ("5", [5])]
)
def test_a_record_is_shown_with_those_of_its_id_as_json(
    state: Path, capsys: pytest.CaptureFixture[str], record: str, expected: list[int]
) -> None:
    assert listed(capsys, "show", record, "--state", state) == expected


@pytest.mark.parametrize("record", ["", "0", "6", "99999999999999999999", "x", uuid7(9)])
def test_a_record_that_isnt_there_is_an_error(
    state: Path, capsys: pytest.CaptureFixture[str], record: str
) -> None:
    code, _, err = run(capsys, "show", record, "--state", state)
    assert (code, err) == (
        1,
        (
            f"error: there is no record {record} [record.unknown]\n"
            "remedy: 'trimtab journal list' shows the last ones\n"
        ),
    )


def test_an_intact_journal_is_verified(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = (
        "5 records, chain intact, 1 open intents\n"
        "note: no record is signed\n"
        f"open: record 5, intent {uuid7(3)}, has no closing record yet\n"
    )
    assert run(capsys, "verify", "--state", state) == (0, expected, "")
    assert run(capsys, "verify", state / "broker" / "journal") == (0, expected, "")


def test_a_changed_journal_is_named_with_its_first_bad_record(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment = state / "broker" / "journal" / "00000000000000000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"201", b"202"))
    place = "00000000000000000001.jsonl, line 3"
    lines = [
        f"record 3 is bad ({place}): its hash isn't that of its content",
        "2 earlier records are intact",
        f"open: record 2, intent {uuid7(1)}, has no closing record yet\n",
    ]
    assert run(capsys, "verify", "--state", state) == (10, "\n".join(lines), "")
    code, out, _ = run(capsys, "verify", "--state", state, "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["first_bad"]) == (10, False, 3)
    code, _, err = run(capsys, "list", "--state", state)
    assert code == 1
    assert "[journal.damaged]" in err


def test_repairs_and_outages_are_told(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = state / "broker" / "journal"
    with (folder / "00000000000000000001.jsonl").open("ab") as file:
        file.write(b"torn")
    code, out, _ = run(capsys, "verify", "--state", state)
    assert code == 0
    assert "note: 4 bytes after the last record aren't one yet" in out
    log = open_log(folder)
    log.append(entry(9))
    log.close()
    code, out, _ = run(capsys, "verify", "--state", state)
    assert code == 0
    assert "note: record 6 says: 4 torn bytes were moved aside: its line is cut short" in out
    _, out, _ = run(capsys, "--stage", "segment", "--state", state)
    assert "a torn end was moved aside: its line is cut short" in out


def test_a_summary_tells_how_much_it_stands_for(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(state / "broker" / "journal")
    counts = {"foreign": 2, "route.denied": 40}
    result: dict[str, object] = {"total": 43, "counts": counts, "reads": {"container.logs": 1}}
    actor: dict[str, object] = {"uid": 4_000_000, "role": "client"}
    log.append(Entry(uuid7(9), "summary", actor=actor, result=result))
    log.close()
    _, out, _ = run(capsys, "--stage", "summary", "--state", state)
    assert ["client:4000000", "summary"] == out.splitlines()[1].split()[2:4]
    assert "43 more of route.denied 40, foreign 2, container.logs 1" in out


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "--json"], ["export"], ["verify"], ["state", "--json"]]
)
def test_where_nothing_can_be_printed_that_is_said_in_a_line(
    state: Path, arguments: list[str]
) -> None:
    argv = [sys.executable, "-m", "controller", "journal", *arguments, "--state", str(state)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "error: the output can't be written: No space left on device [system.error]\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_no_state_and_no_journal_are_errors_with_a_remedy(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "--state", tmp_path / "nowhere")
    assert (code, "[state.missing]" in err, "remedy: " in err) == (1, True, True)
    for name in ("00000000000000000001.jsonl", ".head"):
        (state / "broker" / "journal" / name).unlink()
    (state / "broker" / "journal").rmdir()
    for command in ("list", "verify"):
        code, _, err = run(capsys, command, "--state", state)
        assert (code, "[journal.missing]" in err, "remedy: " in err) == (1, True, True)


def test_who_may_not_read_it_is_told_how(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Outside of pytest's own folder, which is closed to others as a whole.
    with tempfile.TemporaryDirectory() as outside:
        Path(outside).chmod(0o755)
        copy = shutil.copytree(state, Path(outside) / "state")
        with as_somebody(copy / "broker" / "journal"):
            code, out, err = run(capsys, "list", "--state", copy)
    assert (code, out) == (1, "")
    assert "[journal.unreadable]" in err
    assert "this user can't read the journal, and no broker answers: nothing runs behind" in err
    assert "remedy: ask as root, with sudo; or start the broker with 'trimtab up'" in err


@contextmanager
def as_somebody(folder: Path) -> Iterator[None]:
    """Be a user who may not read a folder: nobody where we are root, else by its mode."""
    if os.geteuid() == 0:
        os.seteuid(65_534)
    else:
        folder.chmod(0)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        else:
            folder.chmod(0o700)
