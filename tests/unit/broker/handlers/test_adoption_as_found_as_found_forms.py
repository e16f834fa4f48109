"""Adoption of containers with other forms of files, ports, sizes and checks than their document."""

from __future__ import annotations

import io
import tarfile
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from controller.broker.gate.commands import Command, CommandResult, ReadEngine
from controller.broker.gate.state import GateState
from controller.core.files.content import content_id
from controller.model.confinement import GAPS, MountinfoLine, MountPath, Root
from controller.model.records import Reply
from tests.unit.broker.dialogue import CONTROLLER
from tests.unit.broker.handlers.test_adoption_as_found_as_found import (
    CREATE,
    EFFECTIVE,
    OLD,
    Host,
    adopt,
    broker,
    question,
    rules,
)

SITE, TARGET = b"listen 80;", "/etc/site.conf"
FOLDER = "/var/lib/platform/shop"
SOURCE = f"{FOLDER}/conf/site.conf"


def archive(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        info = tarfile.TarInfo("site.conf")
        info.size = len(data)
        made.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@dataclass
class FileHost(Host):
    """A host with a container that sees a file."""

    seen: bytes = SITE

    def _answer(self, command: Command, knows: GateState) -> CommandResult:
        if isinstance(command, ReadEngine) and "/archive?" in command.path:
            assert command.path == f"/containers/{OLD}/archive?path=%2Fetc%2Fsite.conf"
            return Reply(200, archive(self.seen)) if self.seen else Reply(404, b"{}")
        return super()._answer(command, knows)


def create(**mount: object) -> dict[str, Any]:
    made = deepcopy(CREATE)
    files = {"Content": content_id({"site.conf": SITE}), "Key": "site.conf"}
    entry = {"Type": "config", "Source": "site", "Target": TARGET, "ReadOnly": True}
    made["HostConfig"]["Mounts"] = [{**entry, "Trimtab": files, **mount}]
    return made


def bound(source: str = SOURCE, **more: Any) -> FileHost:
    """A container with a bind of docker compose, as the engine and the kernel show it."""
    host = FileHost(**more)
    bind = {"Type": "bind", "Source": source, "Target": TARGET, "ReadOnly": True}
    host.containers[OLD]["HostConfig"]["Mounts"] = [bind]
    line = MountinfoLine(
        *(2, source, TARGET, frozenset({"ro"}), False, "ext4", frozenset({"rw"}), 1)
    )
    host.kernel = EFFECTIVE.__class__(
        capabilities=EFFECTIVE.capabilities,
        no_new_privileges=False,
        mounts=(*EFFECTIVE.mounts, line),
        reached=(MountPath(TARGET, 2),),
        roots=(Root(2, 3, 7, "dir"),),
        limits=EFFECTIVE.limits,
    )
    return host


def asked(**more: Any) -> dict[str, Any]:
    """The request for a project whose Config is declared by a file."""
    body = question(*GAPS, create=more.pop("create", create()), folder=FOLDER, **more)
    body["containers"][0]["files"] = {TARGET: "conf/site.conf"}
    return body


def judged(host: FileHost, body: dict[str, Any]) -> list[tuple[str, str]]:
    knows = broker()
    status, told = host.ask(knows, "POST", "/trimtab/v1/adoptions", {**body, "dryRun": True})
    assert (status, host.entries, host.forwarded) == (200, [], [])
    return [(each["rule"], each["path"]) for each in told["containers"][0]["findings"]]


def test_a_file_of_the_project_is_adopted_as_found() -> None:
    host, knows = bound(), broker()
    status, told = host.ask(knows, "POST", "/trimtab/v1/adoptions", asked())
    assert (status, told.get("adopted")) == (200, [OLD]), told
    summary: Any = host.entries[0].request["summary"]
    assert "files" in summary["gaps"]
    assert [(m["type"], m["source"]) for m in summary["mounts"]] == [("bind", SOURCE)]
    item = knows.inventory.containers[OLD]
    assert item.confined is not None
    (mount,) = item.confined.mounts
    assert (mount.type, mount.source, mount.device, mount.inode) == ("bind", SOURCE, 3, 7)


def test_the_gap_names_the_file_and_nobody_else_admits_it() -> None:
    body = asked()
    body["containers"][0]["admit"] = [gap for gap in GAPS if gap != "files"]
    assert judged(bound(), body) == [("adopt.gap", f"spec.mounts.{TARGET}")]
    host, knows = bound(), broker()
    status, _ = host.ask(knows, "POST", "/trimtab/v1/adoptions", asked(), CONTROLLER)
    assert (status, host.forwarded) == (403, [])


def test_other_bytes_than_the_configs_are_a_difference() -> None:
    for seen in (b"listen 81;", b""):
        assert judged(bound(seen=seen), asked()) == [("adopt.files", f"spec.mounts.{TARGET}")]


def test_a_file_elsewhere_or_beyond_the_policy_is_refused() -> None:
    assert judged(bound("/var/lib/platform/x/site.conf"), asked()) == [
        ("adopt.files", f"spec.mounts.{TARGET}")
    ]
    body = asked()
    body["folder"] = "/var/lib/docker"
    source = "/var/lib/docker/conf/site.conf"
    assert judged(bound(source), body) == [("mount.never", "document")]
    body["folder"] = "/home/me"
    assert judged(bound("/home/me/conf/site.conf"), body)[0][1] == "document"


def test_a_file_that_docker_compose_copied_is_compared_by_its_bytes() -> None:
    body = asked()
    del body["containers"][0]["files"]
    assert judged(FileHost(), body) == []
    assert judged(FileHost(seen=b"other"), body) == [("adopt.files", f"spec.mounts.{TARGET}")]


def test_a_malformed_folder_or_list_of_files_is_refused() -> None:
    for folder in ("/", "srv", "/srv/../etc"):
        host = FileHost()
        status, told = adopt(host, broker(), folder=folder)
        assert (status, told["trimtab"]["rule"]) == (400, "adopt.invalid"), told
    body = asked()
    body["containers"][0]["files"] = ["site.conf"]
    status, _ = FileHost().ask(broker(), "POST", "/trimtab/v1/adoptions", body)
    assert status == 400


def test_a_missing_check_and_every_address_are_adopted_by_name() -> None:
    made = deepcopy(CREATE)
    made["Healthcheck"] = {
        "Test": ["CMD", "/bin/check"],
        "Interval": 10**10,
        "Timeout": 5 * 10**9,
        "Retries": 3,
        "StartPeriod": 10**10,
    }
    host = Host()
    assert rules(host, broker(), create=made) == []
    assert rules(host, broker(), "capabilities", "new-privileges", "logs", create=made) == [
        "adopt.gap"
    ]
