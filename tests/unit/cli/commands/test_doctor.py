"""What ``doctor`` finds without an engine."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from controller import __version__
from controller.cli.commands import doctor
from controller.cli.commands.doctor import (
    CheckResult,
    boot_findings,
    disk_findings,
    engine_findings,
    own_findings,
    resource_findings,
    socket_finding,
)
from controller.model.notifications import Desk, NoticeState
from controller.model.settings import InForce, InstanceSettings
from controller.notify.state_file import write_notices
from controller.settings import SYSTEM_SETTINGS, StateFolder, write_in_force
from controller.system.sockets import ACL, access_list, broker_sockets
from tests.unit.cli.reports import condition, resource


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("free", "level"), [(900 << 20, "warning"), (4 << 30, "warning"), (20 << 30, "ok")]
)
def test_a_disk_with_little_room_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage(100 << 30, 0, free))
    (found,) = disk_findings("state folder", tmp_path / "state")
    assert (found.check, found.level) == ("disk", level)
    assert f"{free / 1024**3:.1f} GiB free of 100.0 GiB" in found.message


def test_the_space_of_a_small_disk_is_in_mebibytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage(32 << 20, 0, 9 << 20))
    (found,) = disk_findings("state folder", tmp_path)
    assert "9.0 MiB free of 32.0 MiB" in found.message


def test_the_versions_and_a_missing_entry_in_path_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    versions, path = own_findings()
    assert versions.message.startswith(f"version {__version__}, Python 3.")
    assert (path.check, path.level) == ("PATH", "hint")
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/trimtab")
    assert [finding.check for finding in own_findings()] == ["trimtab"]


@pytest.mark.parametrize("served", [True, False])
def test_a_closed_socket_is_an_error_unless_a_broker_serves_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    def refuse(_path: str, _target: str, **_options: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "ask_engine", refuse)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        (found,) = engine_findings(f"unix://{tmp_path}/docker.sock", served=served)
    assert found.level == ("ok" if served else "error")
    assert bool(found.remedy) is not served


@pytest.mark.parametrize(("version", "untested"), [("26.1.5", 0), ("99.0.1", 1)])
def test_an_untested_engine_is_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, untested: int
) -> None:
    answers = {
        "/version": {"Version": version, "ApiVersion": "1.60"},
        "/info": {"Driver": "overlay2", "DockerRootDir": str(tmp_path)},
    }
    monkeypatch.setattr(
        doctor, "ask_engine", lambda _path, target, **_more: answers.get(target, {})
    )
    found = [*engine_findings(f"unix://{tmp_path}/docker.sock", served=False)]
    hints = [each for each in found if each.level == "hint"]
    assert [each.check for each in hints] == ["engine"] * untested
    assert all("docs/engines.md" in each.remedy for each in hints)


def test_a_hint_has_a_remedy_and_is_no_ok() -> None:
    file = Path("/srv/state/trimtab.yaml")
    begin = "to keep them, stopped, for a day: write 'quarantine: 24h' into"
    assert doctor._quarantine(0, file) == CheckResult(
        "quarantine",
        "hint",
        "pruned containers are removed at once",
        f"{begin} {file}, then start 'trimtab up' again",
    )
    units = "'systemctl restart trimtab-broker trimtab-controller'"
    assert (
        doctor._quarantine(0, SYSTEM_SETTINGS).remedy == f"{begin} {SYSTEM_SETTINGS}, then {units}"
    )


def test_refused_resources_and_unfinished_rollouts_are_findings() -> None:
    resources = [
        resource("web"),
        resource("api", condition("PolicyViolation"), condition("Paused", status="False")),
        *(resource(f"job{n}", condition("Paused"), namespace="shop") for n in range(12)),
        resource("db", condition("Progressing")),
    ]
    found = [(each.check, each.level, each.message) for each in resource_findings(resources)]
    first = ", ".join(f"shop/job{n}" for n in range(10))
    assert found == [
        ("policy", "warning", "the policy refuses resources: api"),
        ("rollout", "warning", f"a rollout failed, and is paused: {first} and 2 more"),
        ("rollout", "ok", "in progress: db"),
    ]
    assert [*resource_findings([resource("web")])] == []


def test_secrets_that_nothing_restores_before_the_engine_are_a_finding(tmp_path: Path) -> None:
    (found,) = boot_findings([resource("web"), {**resource("db"), "kind": "Secret"}], tmp_path)
    assert (found.check, found.level) == ("boot", "warning")
    assert "behave as with restart.boot: Ordered" in found.message
    assert f"--state {tmp_path}" in found.remedy
    assert [*boot_findings([resource("web")], tmp_path)] == []


def _source(**changes: object) -> dict[str, object]:
    row = {"name": "team", "state": "Ready", "message": "", "remedy": ""}
    return {**row, "lastSuccess": "2026-01-01T00:00:00Z", **changes}


def test_sources_and_what_fetching_needs_are_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    now = 1767225600.0 + 60  # a minute after the last success
    rows = [_source(), _source(name="late", lastSuccess="2025-12-31T00:00:00Z")]
    rows.append(_source(name="held", state="Held", message="unsigned", remedy="sign it"))
    feedback = {"reason": "forge.denied", "message": "the forge refuses", "remedy": "renew it"}
    rows.append(_source(name="mute", feedback=feedback))
    found = [(f.check, f.level, f.message, f.remedy) for f in doctor.source_findings(
        rows, tmp_path, now=now)]  # fmt: skip
    assert found == [
        ("git", "error", "the git command isn't installed", "install git"),
        ("fetcher", "ok", str(tmp_path), ""),
        ("source", "ok", "source team is Ready", ""),
        (
            *("source", "warning"),
            "source late is Ready; the last successful fetch was 24h ago",
            "look at 'trimtab describe late'",
        ),
        ("source", "warning", "source held is Held: unsigned", "sign it"),
        ("source", "ok", "source mute is Ready", ""),
        (
            *("source", "warning"),
            "source mute: commit statuses aren't sent: the forge refuses",
            "renew it",
        ),
    ]


def test_without_sources_nothing_of_them_is_checked(tmp_path: Path) -> None:
    assert list(doctor.source_findings([], tmp_path / "fetcher", now=0.0)) == []


def test_a_missing_reserved_socket_is_a_warning(tmp_path: Path) -> None:
    folder = StateFolder(root=tmp_path, run=tmp_path)
    folder.controller.mkdir()
    missing = socket_finding(folder)
    assert (missing.level, missing.check) == ("warning", "sockets")
    assert "broker-controller.sock: No such file" in missing.message
    for each in broker_sockets(folder.broker_socket):
        each.touch(mode=0o600)
    assert socket_finding(folder).level == "ok", "both have one user"


@pytest.mark.needs_root
def test_a_reserved_socket_without_a_list_for_the_controller_is_a_warning(tmp_path: Path) -> None:
    folder = StateFolder(root=tmp_path, run=tmp_path)
    folder.controller.mkdir()
    os.chown(folder.controller, 61001, -1)
    for each in broker_sockets(folder.broker_socket):
        each.touch(mode=0o600)
    found = socket_finding(folder)
    assert (found.level, "no access control list" in found.message) == ("warning", True)
    os.setxattr(broker_sockets(folder.broker_socket)[1], ACL, access_list([61001]))
    assert socket_finding(folder).level == "ok"


def test_full_quotas_and_clients_that_must_wait_are_warnings() -> None:
    use = {"key": "quotas.volumesPerOwner", "owner": "alice", "count": 190, "most": 200}
    fullest = [{**use, "percent": 95}, {**use, "owner": "bob", "count": 2, "percent": 1}]
    full, waiting = doctor._quotas({"fullest": fullest, "waiting": {"1000": 12}})
    assert (full.check, full.level) == ("quota", "warning")
    assert full.message == "alice: 190 of 200 (quotas.volumesPerOwner)"
    assert waiting.message == (
        "uid 1000 spent its share of changes or of the journal: 12 s to wait"
    )
    (well,) = doctor._quotas({"fullest": fullest[1:], "waiting": {}})
    assert (well.level, well.message) == ("ok", "the fullest quota is used to 1%")
    assert [*doctor._quotas({})] == [], "an earlier broker tells of none"


def test_a_policy_file_that_others_can_change_is_an_error(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path, tmp_path / "run")
    folder.broker.mkdir()
    folder.controller.mkdir()
    policy = tmp_path / "policy.yaml"
    policy.write_text("name: test\n")
    policy.chmod(0o644)
    assert doctor._policy_file(policy, folder) == CheckResult("policy", "ok", str(policy))
    policy.chmod(0o666)
    assert doctor._policy_file(policy, folder) == CheckResult(
        "policy",
        "error",
        f"{policy} can be written by every user (mode 0666)",
        f"chmod go-w {policy}",
    )
    policy.unlink()
    assert doctor._policy_file(policy, folder).level == "error"


def test_containers_whose_rows_are_too_long_are_named() -> None:
    assert [*doctor._long_containers({"count": 0, "some": {}})] == []
    (told,) = doctor._long_containers({"count": 2, "some": {"c" * 64: "shop-web"}})
    assert (told.level, "2 containers" in told.message) == ("warning", True)
    assert "shop-web (cccccccccccc)" in told.message


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (NoticeState(at=1000.0, desks={"a": Desk()}), [("ok", "destination a")]),
        (
            NoticeState(at=1000.0, desks={"a": Desk(failing_since=900.0, error="h: refused")}),
            [("warning", "destination a gets nothing: h: refused")],
        ),
        (
            NoticeState(at=1000.0, blind_since=990.0),
            [
                (
                    "warning",
                    "the process that sends notifications gets no view from the controller",
                ),
                ("ok", "destination a"),
            ],
        ),
        (
            NoticeState(at=700.0),
            [("warning", "no process sends notifications"), ("ok", "destination a")],
        ),
    ],
)
def test_who_gets_no_notifications_is_a_finding(
    tmp_path: Path, state: NoticeState, expected: list[tuple[str, str]]
) -> None:
    folder = StateFolder(tmp_path, tmp_path / "run")
    assert [*doctor.notify_findings(folder, now=1010.0)] == []
    targets = json.dumps({"a": {"webhook": "https://example.org/x"}})
    write_in_force(tmp_path, InForce(InstanceSettings(notify_destinations=targets)))
    folder.notify.mkdir()
    write_notices(folder.notify, state)
    found = [(each.level, each.message) for each in doctor.notify_findings(folder, now=1010.0)]
    assert found == expected
    (folder.notify / "notices.json").write_text("{")
    (damaged,) = doctor.notify_findings(folder, now=1010.0)
    assert damaged.level == "warning"
