"""Other forms of the same thing: which of them an operator can admit, and which nobody can."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from typing import Any

import pytest

from controller.core.adoption.forms import (
    DeclaredFiles,
    FoundContent,
    found_forms,
    found_ports,
    judge_content,
    take_forms,
    with_found_files,
    with_found_sizes,
)
from controller.core.adoption.gaps import judge_gaps
from controller.core.adoption.likeness import comparable
from controller.core.engine_api.parse import parse_create
from controller.core.engine_api.requests import (
    CreateRequest,
    FileRequest,
    HealthcheckRequest,
    MountRequest,
    PortRequest,
    VariableRequest,
)
from controller.core.files.content import content_id
from controller.model.confinement import UNLIMITED, Confinement, ExpectedMount, Gap

SITE = {"site.conf": b"listen 80;"}
CONTENT = content_id(SITE)
TARGET = "/etc/site.conf"
PROJECT = DeclaredFiles("/srv/shop", {TARGET: "conf/site.conf"})
BIND = MountRequest("bind", "/srv/shop/conf/site.conf", TARGET, read_only=True)


def document(kind: str = "config", **options: object) -> dict[str, Any]:
    files = {"Content": CONTENT, "Key": "site.conf", **options}
    mount = {"Type": kind, "Source": "site", "Target": TARGET, "ReadOnly": True, "Trimtab": files}
    data = {"Type": "volume", "Source": "data", "Target": "/data"}
    return {"Image": "x", "HostConfig": {"Mounts": [mount, data]}}


def take(
    *mounts: MountRequest, create: dict[str, Any] | None = None, project: DeclaredFiles = PROJECT
) -> tuple[list[object], list[str], list[str]]:
    """The mounts of the taken create, the forms, and the faults."""
    body = create or document()
    taken = with_found_files(body, CreateRequest(mounts=mounts), project, parse_create(body))
    listed = taken.create["HostConfig"]["Mounts"]
    return listed, [each.text for each in taken.forms], [each.reason for each in taken.findings]


def test_the_declared_file_of_the_project_is_taken_in_place_of_a_config() -> None:
    mounts, forms, faults = take(BIND)
    bind = {"Type": "bind", "Source": BIND.source, "Target": TARGET, "ReadOnly": True}
    assert mounts == [bind, {"Type": "volume", "Source": "data", "Target": "/data"}]
    assert forms == ['it has "/srv/shop/conf/site.conf" of the host in place of the config "site"']
    assert faults == []


def test_a_writable_file_of_the_project_is_named_as_writable() -> None:
    mounts, forms, faults = take(replace(BIND, read_only=False))
    assert "ReadOnly" not in mounts[0]  # type: ignore[operator]
    assert "writable" in forms[0]
    assert faults == []


def test_a_file_in_the_containers_own_layer_is_taken_without_a_mount() -> None:
    mounts, forms, faults = take()
    assert [each["Type"] for each in mounts] == ["volume"]  # type: ignore[index]
    assert (len(forms), faults) == (1, [])


@pytest.mark.parametrize(
    ("mount", "project", "fault"),
    [
        (replace(BIND, source="/srv/other/site.conf"), PROJECT, "isn't in the folder"),
        (replace(BIND, source="/srv/shop/../x/site.conf"), PROJECT, "isn't in the folder"),
        (replace(BIND, source="/srv/shopping/conf/site.conf"), PROJECT, "isn't in the folder"),
        (replace(BIND, source="/srv/shop/site.conf"), PROJECT, "the declared file is"),
        (replace(BIND, source="/srv/shop"), PROJECT, "the declared file is"),
        (BIND, DeclaredFiles("", PROJECT.sources), "no folder of the project is named"),
        (BIND, DeclaredFiles("/srv/shop", {}), "declared by no file"),
        (replace(BIND, type="volume", source="data"), PROJECT, "it has a volume"),
        (replace(BIND, type="tmpfs", source=""), PROJECT, "it has a tmpfs"),
    ],
)
def test_any_other_source_is_refused(
    mount: MountRequest, project: DeclaredFiles, fault: str
) -> None:
    mounts, forms, faults = take(mount, project=project)
    assert (len(mounts), forms) == (1, [])
    assert fault in faults[0]


@pytest.mark.parametrize(
    ("create", "fault"),
    [
        (document(Stable=True), "changes without a new container"),
        (document(Key="", Keys=["a"]), "mounts some files"),
        (document("secret"), "the declared file is"),
    ],
)
def test_some_documents_have_no_other_form(create: dict[str, Any], fault: str) -> None:
    assert fault in take(BIND, create=create)[2][0]


def test_a_secret_needs_its_file_read_only_by_its_name() -> None:
    own = DeclaredFiles("/srv/shop", {TARGET: "site.conf"})
    assert take(BIND, create=document("secret"), project=own)[2] == []
    writable = take(replace(BIND, read_only=False), create=document("secret"), project=own)
    assert writable[2] == ['it can write to the file of the secret "site"']
    assert take(create=document("secret"), project=own)[2] == [
        'the container lacks the secret "site"'
    ]


def test_a_variable_with_a_value_of_a_secret_is_refused() -> None:
    wanted = CreateRequest(
        variables=(VariableRequest("PASSWORD", "db", "pw", CONTENT, "TrimtabEnv[0]"),)
    )
    taken = with_found_files({}, CreateRequest(), PROJECT, wanted)
    assert [each.path for each in taken.findings] == ["spec.env.PASSWORD"]


def packed(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        info = tarfile.TarInfo("site.conf")
        info.size = len(data)
        made.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def test_the_bytes_in_the_container_are_those_of_the_config() -> None:
    found = FoundContent("site", TARGET, FileRequest(CONTENT, key="site.conf"))
    assert list(judge_content(found, packed(SITE["site.conf"]))) == []
    (other,) = judge_content(found, packed(b"listen 81;"))
    assert other.reason == 'its files differ from the config "site"'
    (none,) = judge_content(found, b"")
    assert "something other than plain files" in none.reason


def forms(found: CreateRequest, wanted: CreateRequest) -> tuple[list[Gap], list[str]]:
    """The taken forms, and the fields that still differ."""
    sides = comparable(found, {}), comparable(wanted, {})
    taken, seen = take_forms(*sides, found_forms(found, wanted))
    left = [path for path in sides[0] | taken if sides[0].get(path) != taken.get(path)]
    return [each.gap for each in seen], left


PORT = PortRequest(8080, "tcp", 18430, "127.0.0.1")


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::"])
def test_every_address_is_a_form_of_one_address(address: str) -> None:
    wide = CreateRequest(ports=(replace(PORT, host_ip=address),))
    assert forms(wide, CreateRequest(ports=(PORT,))) == ([Gap.PORTS], [])


@pytest.mark.parametrize(
    "ports",
    [
        (replace(PORT, host_ip="", host=18431),),
        (replace(PORT, host_ip="", container=8081),),
        (replace(PORT, host_ip="", protocol="udp"),),
        (replace(PORT, host_ip="", last=18440),),
        (replace(PORT, host_ip="127.0.0.2"),),
        (replace(PORT, host_ip=""), replace(PORT, host_ip="", container=8081)),
        (),
    ],
)
def test_other_ports_are_no_form(ports: tuple[PortRequest, ...]) -> None:
    assert forms(CreateRequest(ports=ports), CreateRequest(ports=(PORT,))) == ([], ["spec.ports"])


def test_the_ports_are_recorded_as_found() -> None:
    wide = CreateRequest(ports=(replace(PORT, host_ip=""),))
    assert found_ports(wide) == ("0.0.0.0:18430:8080/tcp",)


TMPFS = MountRequest("tmpfs", "", "/run", size=64 << 20)


def test_a_tmpfs_has_its_size_as_found_and_nothing_else() -> None:
    wanted = CreateRequest(mounts=(TMPFS,))
    assert forms(CreateRequest(mounts=(replace(TMPFS, size=0),)), wanted) == ([Gap.TMPFS], [])
    for other in (replace(TMPFS, size=0, executable=True), replace(TMPFS, size=0, mode=0o777)):
        assert forms(CreateRequest(mounts=(other,)), wanted) == ([], ["spec.mounts./run"])
    confined = Confinement(mounts=(ExpectedMount("tmpfs", "/run", size=64 << 20),))
    unbounded = with_found_sizes(confined, CreateRequest(mounts=(replace(TMPFS, size=0),)))
    assert unbounded.mounts[0].size == UNLIMITED
    bounded = with_found_sizes(confined, CreateRequest(mounts=(replace(TMPFS, size=4096),)))
    assert bounded.mounts[0].size == 4096


CHECK = HealthcheckRequest(test=("CMD-SHELL", "pg_isready"), retries=10)


@pytest.mark.parametrize(
    "found",
    [
        None,
        HealthcheckRequest(test=("NONE",)),
        replace(CHECK, retries=20),
        HealthcheckRequest(test=("CMD", "/bin/sh", "-c", "pg_isready")),
    ],
)
def test_a_check_is_missing_or_has_the_same_command(found: HealthcheckRequest | None) -> None:
    taken = forms(CreateRequest(healthcheck=found), CreateRequest(healthcheck=CHECK))
    assert taken == ([Gap.HEALTHCHECK], [])


@pytest.mark.parametrize("test", [("CMD-SHELL", "curl evil"), ("CMD", "pg_isready")])
def test_another_command_of_a_check_is_no_form(test: tuple[str, ...]) -> None:
    found = CreateRequest(healthcheck=HealthcheckRequest(test=test))
    assert forms(found, CreateRequest(healthcheck=CHECK)) == ([], ["spec.healthcheck"])
    assert forms(found, CreateRequest()) == ([], ["spec.healthcheck"])


def test_each_field_of_a_form_needs_the_operators_word() -> None:
    wanted = CreateRequest(mounts=(TMPFS, replace(TMPFS, target="/tmp")))
    found = CreateRequest(mounts=tuple(replace(each, size=0) for each in wanted.mounts))
    listed = list(found_forms(found, wanted))
    refused = [each.path for each in judge_gaps([Gap.TMPFS], ["ports"], listed)]
    assert refused == ["spec.mounts./run", "spec.mounts./tmp"]
    assert list(judge_gaps([Gap.TMPFS], ["tmpfs"], listed)) == []
