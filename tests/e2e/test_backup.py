"""Backups of a running instance under load, and what a restore makes of them."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any

import pyrage
import pytest

from controller.journal.verify.verify import verify
from tests.e2e.units import UNITS
from tests.engine import PrivateEngine
from tests.instance import TRIMTAB, Host, eventually, web
from tools import dockerd

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
#: A service that writes numbers into its volume, and goes on where it was.
COUNTER = f"""\
user: "0"
entrypoint: [/bin/sh, -c]
command:
  - |
    trap 'exit 0' TERM
    touch /data/rows; count=$(wc -l </data/rows)
    while :; do count=$((count + 1)); echo $count >>/data/rows; sleep 0.05; done
{MOUNTS}"""
CLIENTS = 3


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


def rows(host: Host, service: str) -> list[int]:
    (name,) = host.names(service)
    return [
        int(row) for row in host.engine.docker("exec", name, "cat", "/data/rows").stdout.split()
    ]


@contextmanager
def acts(host: Host) -> Iterator[Callable[[], int]]:
    """Have clients make and remove containers through the gate during the block. The last one of each stays.

    Yield the count of acts so far.
    """
    ended, made, failed = threading.Event(), list[str](), list[object]()
    gate = f"unix://{host.broker_socket}"
    body = json.dumps({"Image": "trimtab.local/worker:1"}).encode()

    def act(client: int) -> None:
        for number in count():
            name = f"act-{client}-{number}"
            status, told = dockerd.call(gate, "POST", f"/containers/create?name={name}", body=body)
            failed.extend([] if status == HTTPStatus.CREATED else [told])
            made.append(name)
            if ended.is_set():
                return
            status, told = dockerd.call(gate, "DELETE", f"/containers/{name}")
            failed.extend([] if status == HTTPStatus.NO_CONTENT else [told])

    threads = [threading.Thread(target=act, args=(number,)) for number in range(CLIENTS)]
    for each in threads:
        each.start()
    try:
        yield lambda: len(made)
    finally:
        ended.set()
        for each in threads:
            each.join()
    assert failed == []


def back_up_under_load(host: Host, file: Path, identity: Path) -> dict[str, Any]:
    """Make a backup with all volumes while clients act, and return what the command printed."""
    with acts(host) as made_so_far:
        eventually(made_so_far, what="the first act")
        before = made_so_far()
        made = host.json(
            "backup", str(file), "--recipient", recipient(identity), "--volumes", "all"
        )
        at_end = made_so_far()
        eventually(lambda: made_so_far() > at_end + CLIENTS, what="acts after the backup")
    assert at_end > before + CLIENTS
    return dict(made)


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
    host.write("web.yaml", web(extra=COUNTER).replace("web:1", "worker:1"))
    file = host.folder / "monday.trimtab"
    with host.running():
        made = back_up_under_load(host, file, identity)
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
    # The service, and the last container of each client.
    assert [each["kind"] for each in told["adopted"]].count("container") == 1 + CLIENTS
    assert told["left"] == []
    assert host.instance == instance
    with host.running():
        assert {each["Id"]: each["State"]["StartedAt"] for each in host.containers()} == before
        assert host.json("plan")["actions"] == []
        assert password(host, "web") == known
    # An act of the moment of the cut stays open until its deadline.
    assert verify(host.state / "broker" / "journal").ok


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
    host.write("web.yaml", web(extra=COUNTER).replace("web:1", "worker:1"))
    file, bare = host.folder / "monday.trimtab", host.folder / "bare.trimtab"
    with host.running():
        known, before = password(host, "web"), rows(host, "web")
        made = back_up_under_load(host, file, identity)
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
        found = rows(elsewhere, "web")
        assert found == [*range(1, len(found) + 1)]
        assert len(found) > len(before)
        assert password(elsewhere, "web") == known
        assert elsewhere.json("plan")["actions"] == []


def test_each_refusal_of_a_backup_and_of_a_restore_is_named(host: Host, identity: Path) -> None:
    host.write("web.yaml", web())
    file, key = host.folder / "monday.trimtab", recipient(identity)
    other = identity.with_name("other.key")
    other.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    back_up, absent = ("backup", str(file), "--recipient", key), host.folder / "absent.trimtab"

    def refused(*argv: str, expect: int = 1) -> str:
        said = host.cli(*argv, expect=expect).stderr
        return "".join(re.findall(r"\[([a-z.-]+)\]", said)[:1])

    with host.running():
        assert refused("backup", str(file), expect=64) == "backup.keys"
        assert refused(*back_up, "--without-keys", expect=64) == "backup.keys"
        assert (
            refused("backup", str(file), "--recipient", "age1", expect=64) == "backup.bad-recipient"
        )
        assert refused(*back_up, "--volumes", "absent") == "volume.unknown"
        assert refused("backup", "/absent/monday.trimtab", "--without-keys") == "backup.unwritable"
        assert not file.exists()
        host.cli(*back_up)
        assert refused(*back_up) == "backup.exists"
        restore = ("restore", str(file), "--identity", str(identity), "--replace", "--yes")
        assert refused(*restore) == "state.served"
    others = ("--replace", "--yes")
    assert refused("backup", str(absent), "--without-keys") == "nothing.running"
    assert refused("restore", str(file), "--identity", str(other), *others) == "secret.wrong-key"
    assert refused("restore", str(file), *others) == "restore.identity"
    assert refused("restore", str(absent), *others) == "backup.unreadable"
    whole = file.read_bytes()
    for content, code in ((whole[:-100], "backup.cut-short"), (b"text", "backup.invalid")):
        file.write_bytes(content)
        assert refused(*restore) == code
    # None of them changed anything.
    with host.running():
        assert host.is_ready("web")


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
