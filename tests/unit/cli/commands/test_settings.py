"""``trimtab settings`` and ``trimtab schema settings``: what is printed, and with which exit code."""

from __future__ import annotations

import json
import os

import jsonschema
import pytest

from controller.app.process import hold_process_lock
from controller.cli.clients.status_report import settings_problems
from controller.model.settings import (
    KEYS,
    InForce,
    InstanceSettings,
    Process,
    digest_of,
)
from controller.settings import StateFolder, write_in_force
from tests.unit.cli.commands.test_service import run as exit_code
from tests.unit.cli.commands.test_service import state as state  # noqa: PLC0414 - a fixture
from tests.unit.cli.commands.test_volume_group import answering

Printed = tuple[int, str, str]


def run(capsys: pytest.CaptureFixture[str], state: StateFolder, *arguments: str) -> Printed:
    code = exit_code(state, *arguments)
    out, err = capsys.readouterr()
    return code, out, err


IN_FORCE = InForce(InstanceSettings(policy="home", quarantine="1h"), "sha256:1")


@pytest.fixture
def written(state: StateFolder) -> StateFolder:
    """A state folder whose settings in force differ from those of its file."""
    write_in_force(state.root, IN_FORCE)
    (state.root / "trimtab.yaml").write_text(
        "policy: strict\nquarantine: 1h\ngit: {webhook: x:1}\n"
    )
    return state


def test_a_difference_tells_what_each_key_needs(
    written: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, written, "settings", "diff")
    assert code == 2
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["policy", "home", "strict"],
        ["git.webhook", "-", "x:1"],
    ]
    assert "trimtab settings reload" in out
    assert "needs a restart of 'trimtab up'" in out
    (written.root / "trimtab.yaml").write_text("policy: home\nquarantine: 1h\n")
    assert run(capsys, written, "settings", "diff")[0] == 0


def test_all_keys_are_shown_with_their_defaults(
    written: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, written, "settings", "show")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    assert [*rows] == [key.name for key in KEYS]
    assert rows["policy"].split() == ["home", "reload"]
    assert rows["quarantine"].split() == ["1h", "restart"]
    assert rows["git.webhook"].split() == ["-", "(none)", "restart"]
    told = json.loads(run(capsys, written, "settings", "show", "--json")[1])
    shown = {"engine": "unix:///var/run/docker.sock", "policy": "home", "quarantine": "1h"}
    shown["log"] = "WARNING"
    assert told == {"digest": "sha256:1", "settings": shown}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("polizy: home\n", "settings.invalid"),
        ("policy: /nonexistent/p.yaml\n", "policy.unreadable"),
        ("ship: {to: [a=nowhere:///x]}\n", "ship.destination"),
    ],
)
def test_a_check_finds_what_would_stop_a_start(
    written: StateFolder, capsys: pytest.CaptureFixture[str], text: str, code: str
) -> None:
    assert run(capsys, written, "settings", "check")[0] == 0
    other = written.root / "new.yaml"
    other.write_text(text)
    failed, _, err = run(capsys, written, "settings", "check", str(other))
    assert failed != 0
    assert f"[{code}]" in err


def test_a_reload_tells_key_by_key(
    written: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    keys: dict[str, list[str]] = {"policy": [], "quarantine": ["trimtab-controller.service"]}
    health = {"settings": {"waiting": ["engine"], "error": ""}}
    answers: dict[str, tuple[int, object]] = {
        "/settings": (200, {"id": "x", "digest": "sha256:2", "restart": keys}),
        "/health": (200, health),
    }
    with answering(written, answers):
        code, out, err = run(capsys, written, "settings", "reload")
    assert code == 0
    assert out.splitlines() == [
        "policy: in force",
        "quarantine: needs a restart of 'trimtab up'",
    ]
    assert "trimtab-broker runs with other settings of engine than those in force" in err


def test_a_process_with_other_settings_is_told_until_it_starts_again(state: StateFolder) -> None:
    write_in_force(state.root, IN_FORCE)
    started = {"settings": digest_of(IN_FORCE.settings, Process.CONTROLLER)}
    assert settings_problems(state, None, started) == []
    live = InstanceSettings(policy="strict", quarantine="1h", webhook="x:1")
    write_in_force(state.root, InForce(live, "sha256:2"))
    assert settings_problems(state, None, started) == []
    write_in_force(state.root, InForce(InstanceSettings(quarantine="2h"), "sha256:3"))
    (problem,) = settings_problems(state, None, started)
    assert (problem.code, problem.severity.value) == ("settings.restart", "warning")
    health = {"settings": {"error": "f:1: no\nf:2: no", "waiting": ["engine"]}}
    codes = [each.code for each in settings_problems(state, health, None)]
    assert codes == ["settings.invalid", "settings.restart"]


@pytest.mark.parametrize(
    ("process", "folder"),
    [
        (Process.FETCHER, "fetcher"),
        (Process.SHIPPER, "ship"),
        (Process.NOTIFIER, "notify"),
        (Process.WEB, "page"),
    ],
)
def test_a_process_without_a_socket_of_its_own_is_told_while_it_runs(
    state: StateFolder, process: Process, folder: str
) -> None:
    write_in_force(state.root, IN_FORCE)
    path = state.root / folder / "lock"
    path.parent.mkdir(parents=True)
    started = digest_of(IN_FORCE.settings, process)
    lock = hold_process_lock(path, program=process, settings=started)
    assert settings_problems(state, None, {}) == []
    write_in_force(state.root, InForce(InstanceSettings(log="DEBUG"), "sha256:2"))
    (problem,) = settings_problems(state, None, {})
    assert problem.message.startswith(f"{process} runs with other settings")
    os.close(lock)
    assert settings_problems(state, None, {}) == []


def test_the_schema_is_one_for_editors(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = json.loads(run(capsys, state, "schema", "settings")[1])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"policy": "home"}, schema)
