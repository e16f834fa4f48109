"""Backups of a running instance, and what a restore makes of them."""

from __future__ import annotations

from pathlib import Path

import pyrage
import pytest

from tests.instance import Host, web

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
