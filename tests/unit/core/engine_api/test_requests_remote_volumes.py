"""Volumes of other machines: the options of the engine's driver, by name and form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.admission.networks_volumes import admit_volume
from controller.core.engine_api.parse import parse_volume
from controller.core.engine_api.requests import Grant
from controller.core.policy.grants import apply_grant, grant_of
from controller.core.rules.context import VolumeFacts
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.policy.document import Policy
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    FACTS,
    STAMP,
    STRICT,
    denials,
    judged,
    policy,
)

OWNERS = [{"name": "alice", "namespaces": ["default"]}, {"name": "bob", "namespaces": ["default"]}]
PLACE = {"owner": "alice", "namespace": "default"}
NFS = {**PLACE, "type": "nfs", "server": "10.0.0.9", "path": "/export/media"}
CIFS = {**PLACE, "type": "cifs", "server": "nas.lan", "path": "/share"}
OPEN = policy(owners=OWNERS, mounts={"remote": [NFS, CIFS]})


def options(kind: str, o: str, device: str) -> dict[str, str]:
    return {"type": kind, "o": o, "device": device}


MEDIA = options("nfs", "addr=10.0.0.9,rw,nfsvers=4.1,soft", ":/export/media/films")
SHARE = options("cifs", "guest,vers=3.0,uid=1000,file_mode=0644", "//nas.lan/share/films")


def created(
    driver_options: dict[str, Any], *, rules: Policy = OPEN, owner: str = "", **more: Any
) -> AdmissionDecision:
    labels = {names.OWNER: owner, names.NAMESPACE: "default"} if owner else {}
    return admit_volume(
        parse_volume({"Name": "films", "DriverOpts": driver_options, "Labels": labels}),
        actor=CONTROLLER if owner else CLIENT,
        policy=rules,
        existing=more.get("existing"),
        stamp=STAMP,
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            MEDIA,
            {
                "type": "nfs",
                "o": "addr=10.0.0.9,nosuid,nodev,nfsvers=4.1,rw,soft",
                "device": "10.0.0.9:/export/media/films",
            },
        ),
        (
            options("nfs4", "addr=10.0.0.9", "10.0.0.9:/export/media"),
            {
                "type": "nfs",
                "o": "addr=10.0.0.9,nosuid,nodev,vers=4",
                "device": "10.0.0.9:/export/media",
            },
        ),
        (
            SHARE,
            {
                "type": "cifs",
                "o": "addr=nas.lan,nosuid,nodev,file_mode=0644,guest,uid=1000,vers=3.0",
                "device": "//nas.lan/share/films",
            },
        ),
    ],
)
def test_a_granted_folder_is_mounted_without_rights_of_its_files(
    given: dict[str, str], expected: dict[str, str]
) -> None:
    for owner in ("", "alice"):
        body: Any = created(given, owner=owner).body
        assert body["DriverOpts"] == expected
    assert created(expected).findings == (), "what the gate wrote is admitted again"
    assert denials(created(given, rules=STRICT)) == ("volume.remote",)
    assert denials(created(given, owner="bob")) == ("volume.remote",)


@pytest.mark.parametrize(
    ("kind", "o", "device"),
    [
        ("nfs", "addr=10.0.0.8", ":/export/media"),
        ("nfs", "addr=10.0.0.9", ":/export"),
        ("nfs", "addr=10.0.0.9", ":/export/media2"),
        ("cifs", "guest", "//nas.lan/other"),
        ("cifs", "guest", "//other.lan/share"),
    ],
)
def test_another_folder_is_not_granted(kind: str, o: str, device: str) -> None:
    assert denials(created(options(kind, o, device))) == ("volume.remote",)


@pytest.mark.parametrize(
    "given",
    [
        options("none", "bind", "/"),
        options("ext4", "", "/dev/sda1"),
        options("overlay", "lowerdir=/etc", "overlay"),
        options("tmpfs", "suid", "tmpfs"),
        options("NFS", "addr=10.0.0.9", ":/export/media"),
        options("nfs", "addr=10.0.0.9,bind", ":/export/media"),
        options("nfs", "addr=10.0.0.9,suid", ":/export/media"),
        options("nfs", "addr=10.0.0.9,dev", ":/export/media"),
        options("nfs", "addr=10.0.0.9", "10.0.0.8:/export/media"),
        options("nfs", "addr=10.0.0.9,addr=10.0.0.8", ":/export/media"),
        options("nfs", "addr=10.0.0.9", ":/export/media/../../etc"),
        options("nfs", "addr=10.0.0.9", "/etc"),
        options("nfs", "", ":/export/media"),
        options("nfs", "addr=10.0.0.9,ro,ro", ":/export/media"),
        options("nfs", "addr=10.0.0.9,sec=krb5", ":/export/media"),
        options("nfs", "addr=10.0.0.9,clientaddr=10.0.0.1", ":/export/media"),
        options("cifs", "credentials=/etc/shadow", "//nas.lan/share"),
        options("cifs", "guest,file_mode=04777", "//nas.lan/share"),
        options("cifs", "guest,ip=10.0.0.8", "//nas.lan/share"),
        options("cifs", "guest", "\\\\nas.lan\\share"),
        {**MEDIA, "mountopt": "x"},
    ],
)
def test_no_other_option_is_admitted(given: dict[str, str]) -> None:
    assert denials(created(given)) == ("volume.options",)


def test_a_remote_volume_has_no_size() -> None:
    refused = denials(created({**MEDIA, "size": "1g"}))
    assert {*refused} == {"volume.options", "resources.volume"}


def test_a_password_is_refused_and_not_repeated() -> None:
    secret = options("cifs", "username=me,password=hunter2,vers=3.0", "//nas.lan/share")
    admission = created(secret)
    assert denials(admission) == ("volume.options",)
    assert "hunter2" not in repr(admission)
    assert "credentials in a file of root's" in admission.verdict.reason


def test_the_refusal_names_the_line() -> None:
    (finding,) = created(MEDIA, rules=policy(owners=OWNERS)).findings
    grant = grant_of(finding, policy(owners=OWNERS))
    assert grant == Grant("add", "mounts.remote", {**NFS, "path": "/export/media/films"})
    assert grant is not None
    loosened = apply_grant(policy(owners=OWNERS), grant)
    assert loosened is not None
    assert denials(created(MEDIA, rules=loosened)) == ()


def test_a_volume_keeps_its_folder() -> None:
    mine = VolumeFacts("films", ours=True, owner="alice", options=tuple(MEDIA.items()))
    assert denials(created(MEDIA, existing=mine)) == ()
    other = options("nfs", "addr=10.0.0.9", ":/export/media")
    assert denials(created(other, existing=mine)) == ("volume.foreign",)
    assert denials(created({}, existing=mine)) == ("volume.foreign",)


def test_a_container_mounts_a_remote_volume_while_it_is_granted() -> None:
    films = VolumeFacts("films", ours=True, owner="alice", options=tuple(MEDIA.items()))
    facts = replace(FACTS, volumes={"films": films})
    host = {"Mounts": [{"Type": "volume", "Source": "films", "Target": "/films"}]}
    assert denials(judged(host=host, rules=OPEN, facts=facts)) == ()
    assert denials(judged(host=host, rules=STRICT, facts=facts)) == ("volume.remote",)
    bound = replace(films, options=(("device", "/"), ("o", "bind"), ("type", "none")))
    facts = replace(FACTS, volumes={"films": bound})
    assert denials(judged(host=host, rules=OPEN, facts=facts)) == ("volume.options",)
