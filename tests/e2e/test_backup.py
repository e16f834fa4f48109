"""Backups of a running instance, and what a restore makes of them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from tests.e2e.units import UNITS
from tests.engine import PrivateEngine
from tests.instance import TRIMTAB, Host, eventually, web

GENERATED = """\
apiVersion: trimtab/v1
kind: Secret
metadata: {name: password, owner: team}
spec: {generate: {password: {length: 24}}}
"""
CONFIG = """\
apiVersion: trimtab/v1
kind: Config
metadata: {name: site, owner: team}
spec: {data: {page.html: hello}}
"""
MOUNTS = """\
mounts:
  - {type: config, source: site, target: /site}
  - {type: secret, source: password, target: /run/secrets}
  - {type: volume, source: data, target: /data}
"""


@pytest.fixture
def identity(host: Host) -> Path:
    """A private key of age; beside it, its recipient."""
    key = pyrage.x25519.Identity.generate()
    path = host.folder / "backup.key"
    path.write_text(f"{key}\n")
    path.with_suffix(".pub").write_text(str(key.to_public()))
    return path


def recipient(identity: Path) -> str:
    return identity.with_suffix(".pub").read_text()


def ids(host: Host, service: str) -> list[str]:
    return [each["Id"] for each in host.containers(service)]


def stalled(host: Host, name: str) -> str:
    for condition in host.resource(name).get("conditions", []):
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return str(condition["reason"])
    return ""


def password(host: Host, service: str) -> str:
    (name,) = host.names(service)
    return host.engine.docker("exec", name, "cat", "/run/secrets/password").stdout


@pytest.fixture
def elsewhere() -> Iterator[Host]:
    """A folder beside another engine."""
    host = Host(PrivateEngine())
    try:
        yield host
    finally:
        host.close()
        host.engine.close()


def test_a_restored_folder_takes_over_what_was_made_after_the_backup(
    host: Host, identity: Path
) -> None:
    host.write("secret.yaml", GENERATED)
    host.write("site.yaml", CONFIG)
    host.write("web.yaml", web(extra=MOUNTS))
    file = host.folder / "monday.trimtab"
    with host.running():
        made = host.json(
            "backup", str(file), "--recipient", recipient(identity), "--volumes", "all"
        )
        assert (made["volumes"], made["volumesLeftOut"]) == (["data"], [])
        assert file.stat().st_mode & 0o777 == 0o600
        known = password(host, "web")
        host.write("later.yaml", web("later"))
        host.await_ready("later")
        checked = host.json("backup", "verify", str(file))
        assert checked["ok"]
        assert checked["head"] == made["head"]
        said = host.cli("backup", "verify", str(file)).stdout.splitlines()
        assert said[1] == f"keys and generated values: encrypted to {recipient(identity)}"
        assert said[2] == "volume data: included"
    before = {each["Id"]: each["State"]["StartedAt"] for each in host.containers()}
    instance = host.instance
    restore = ("restore", str(file), "--identity", str(identity))
    assert "[restore.not-empty]" in host.cli(*restore, expect=1).stderr
    present = {each.name: each.lstat().st_ino for each in host.state.iterdir()}
    assert "[restore.unconfirmed]" in host.cli(*restore, "--replace", expect=64).stderr
    assert {each.name: each.lstat().st_ino for each in host.state.iterdir()} == present
    told = host.json(*restore, "--replace", "--yes")
    assert (Path(told["former"]) / "instance.json").is_file()
    assert [each["kind"] for each in told["adopted"]].count("container") == 1
    assert told["left"] == []
    assert host.instance == instance
    with host.running():
        assert {each["Id"]: each["State"]["StartedAt"] for each in host.containers()} == before
        assert host.json("plan")["actions"] == []
        assert password(host, "web") == known
    assert host.nothing_open()


def scheduled_backups_follow_the_settings(host: Host, key: str) -> None:
    """With the capabilities that the unit leaves."""
    assert "no backup is made" in host.cli("backup", "--scheduled").stderr
    folder = host.folder / "kept"
    folder.mkdir()
    settings = host.state / "trimtab.yaml"
    lines = f"backup: {{to: {folder}, recipient: {key}, volumes: [all], keep: 1}}\n"
    settings.write_text(settings.read_text() + lines)
    host.cli("settings", "reload")
    unit = (UNITS / "trimtab-backup.service").read_text()
    (kept,) = re.findall(r"^CapabilityBoundingSet=(.+)$", unit, re.MULTILINE)
    words = "".join(f",+{each.removeprefix('CAP_').lower()}" for each in kept.split())
    bounded = ("setpriv", f"--bounding-set=-all{words}", "--no-new-privs", "--")
    (folder / f"{host.instance}-20260101T000000Z.trimtab").touch()
    (folder / "another.trimtab").touch()
    done = subprocess.run(
        host.engine.inside(*bounded, TRIMTAB, "backup", "--scheduled", "--state", str(host.state)),
        env=host.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "volume data: included" in done.stdout
    made = {each.name for each in folder.iterdir()} - {"another.trimtab"}
    assert len(made) == 1
    assert f"{host.instance}-20260101T000000Z.trimtab" not in made


def test_on_another_engine_services_find_their_data_and_their_passwords(
    host: Host, elsewhere: Host, identity: Path
) -> None:
    host.write("secret.yaml", GENERATED)
    host.write("site.yaml", CONFIG)
    host.write("web.yaml", web(extra=MOUNTS))
    file, bare = host.folder / "monday.trimtab", host.folder / "bare.trimtab"
    with host.running():
        (name,) = host.names("web")
        host.engine.docker("exec", "--user", "0", name, "sh", "-c", "echo kept >/data/rows")
        known = password(host, "web")
        made = host.json(
            "backup", str(file), "--recipient", recipient(identity), "--volumes", "all"
        )
        host.cli("backup", str(bare), "--without-keys")
        scheduled_backups_follow_the_settings(host, recipient(identity))
    restore = ("restore", "--engine", elsewhere.engine.host, "--identity", str(identity))
    assert "[restore.keys-missing]" in elsewhere.cli(*restore, str(bare), expect=1).stderr
    told = elsewhere.cli(*restore, str(file), expect=64)
    assert "volumes that would be made and filled: data" in told.stdout
    assert not elsewhere.state.exists(), "without a confirmation nothing is changed"
    assert elsewhere.engine.docker("volume", "ls", "-q").stdout == ""
    elsewhere.cli(*restore, str(file), "--yes", expect=-9, TRIMTAB_CRASH_AT="restore.move.after")
    begun = elsewhere.instance
    done = elsewhere.json(*restore, str(file), "--yes")
    assert done["instance"] == begun, "it goes on where it was killed"
    assert (done["restoredFrom"], done["filled"]) == (host.instance, ["data"])
    assert elsewhere.instance == done["instance"] != host.instance
    former = elsewhere.state / "former"
    checked = json.loads(
        elsewhere.cli("journal", "verify", str(former / "broker" / "journal"), "--json").stdout
    )
    assert (checked["ok"], checked["last_hash"]) == (True, made["head"])
    first = next(each for each in elsewhere.records() if each["actor"]["role"] == "operator")
    assert first["request"]["route"] == "state.restored"
    assert first["request"]["summary"]["former"] == host.instance
    elsewhere.directory = host.directory
    with elsewhere.running():
        (name,) = elsewhere.names("web")
        assert elsewhere.engine.docker("exec", name, "cat", "/data/rows").stdout == "kept\n"
        assert password(elsewhere, "web") == known
        assert elsewhere.json("plan")["actions"] == []


def test_a_backup_or_a_restore_that_is_killed_leaves_nothing_half(
    host: Host, identity: Path
) -> None:
    host.write("web.yaml", web())
    file = host.folder / "monday.trimtab"
    back_up = ("backup", str(file), "--recipient", recipient(identity))
    with host.running():
        for point in ("backup.member.after:3", "backup.fsync.before"):
            host.cli(*back_up, expect=-9, TRIMTAB_CRASH_AT=point)
            assert not file.exists()
        host.cli(*back_up)
        assert [each.name for each in host.folder.glob(".monday*")] == []
        host.write("later.yaml", web("later"))
        host.await_ready("later")
    before = {each["Id"]: each["State"]["StartedAt"] for each in host.containers()}
    restore = ("restore", str(file), "--identity", str(identity), "--replace", "--yes")
    instance = host.instance
    for point in ("restore.move.before:1", "restore.move.before:3"):
        host.cli(*restore, expect=-9, TRIMTAB_CRASH_AT=point)
        if not host.state.joinpath("instance.json").exists():
            for command in ("plan", "status"):  # nothing starts there
                assert "[state.restoring]" in host.cli(command, expect=1).stderr
            assert "didn't get to its end" in host.cli("doctor", expect=1).stdout
    assert not host.state.joinpath("instance.json").exists()
    host.cli(*restore, expect=-9, TRIMTAB_CRASH_AT="restore.move.after")
    host.up()
    try:
        eventually(host.status, what="it runs")
        problems = [each["code"] for each in host.json("status", expect=(0, 1))["problems"]]
        assert problems == ["state.unconfirmed"]
        assert {each["Id"]: each["State"]["StartedAt"] for each in host.containers()} == before
        assert "later" in host.cli("adopt").stdout
        host.cli("adopt", "--yes")
        host.await_ready("web", "later")
    finally:
        host.stop()
    assert host.instance == instance
    assert {each["Id"]: each["State"]["StartedAt"] for each in host.containers()} == before
    assert host.nothing_open()
