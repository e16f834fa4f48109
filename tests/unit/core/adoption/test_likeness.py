"""An existing container against the create of its document: equal, or each difference by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from controller.core.admission.adoption import Defaults
from controller.core.adoption.likeness import (
    comparable,
    differences,
    fingerprint_of,
    judge_identity,
    judge_limits,
    judge_mode,
    judge_reserved_labels,
    request_of,
)
from controller.core.engine_api.parse import parse_create
from controller.core.engine_api.translate import settings
from controller.model.observed import Settings

SHOWN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "inspected.json").read_text())
CHECK = SHOWN["Config"]["Healthcheck"]
IMAGE: dict[str, Any] = {
    "Id": SHOWN["Image"],
    "Config": {
        "User": "65534:65534",
        "Env": ["PATH=/bin"],
        "Cmd": ["/bin/serve"],
        "Healthcheck": CHECK,
        "WorkingDir": "/",
        "Labels": {"maintainer": "x"},
    },
}
DEFAULTS = Defaults("host", "runc")
#: The document's create: the settings of the image count, written or not.
DOCUMENT: dict[str, Any] = {
    "Image": SHOWN["Image"],
    "Env": ["A=1"],
    "Cmd": ["/bin/serve"],
    "StopTimeout": 10,
    "HostConfig": {
        "Init": True,
        "ShmSize": 33554432,
        "NetworkMode": "platform-network",
        "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18080"}]},
        "Mounts": SHOWN["HostConfig"]["Mounts"],
    },
}


def by_hand(change: Callable[[dict[str, Any]], object] = lambda _: None) -> dict[str, Any]:
    """A container as somebody without trimtab starts it: no labels, no hardening, no limits."""
    inspect = deepcopy(SHOWN)
    inspect["Name"] = "/old"
    inspect["Config"]["Labels"] = {"maintainer": "x"}
    del inspect["Config"]["StopTimeout"]
    inspect["HostConfig"] |= {
        "CapAdd": None,
        "CapDrop": None,
        "SecurityOpt": None,
        "NetworkMode": "bridge",
        "Memory": 0,
        "MemorySwap": 0,
        "NanoCpus": 0,
        "PidsLimit": None,
        "LogConfig": {"Type": "json-file", "Config": {}},
        "ReadonlyRootfs": False,
        "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
    }
    change(inspect)
    return inspect


def paths(inspect: dict[str, Any], document: dict[str, Any] = DOCUMENT) -> list[str]:
    """The fields that differ, and the findings of the schema."""
    existing, wanted = request_of(inspect, IMAGE, DEFAULTS), parse_create(document)
    pair = (comparable(existing, IMAGE), comparable(wanted, IMAGE))
    return [
        *(f"{each.rule} {each.path}" for each in existing.findings),
        *(each.path for each in differences(*pair, ({}, {}))),
    ]


def put(section: str, member: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda inspect: inspect[section].update({member: value})


def test_a_container_that_lacks_hardening_and_limits_is_like_its_document() -> None:
    assert paths(by_hand()) == []


@pytest.mark.parametrize(
    ("section", "member", "value", "differs"),
    [
        ("HostConfig", "Privileged", True, "privileged HostConfig.Privileged"),
        ("HostConfig", "PidMode", "host", "namespace.pid HostConfig.PidMode"),
        ("HostConfig", "UTSMode", "host", "namespace.uts HostConfig.UTSMode"),
        ("HostConfig", "UsernsMode", "host", "namespace.user HostConfig.UsernsMode"),
        ("HostConfig", "VolumesFrom", ["x"], "mount.volumes-from HostConfig.VolumesFrom"),
        ("HostConfig", "Sysctls", {"net.core.somaxconn": "1"}, "spec.sysctls"),
        ("HostConfig", "MaskedPaths", [], "masked-paths HostConfig.MaskedPaths"),
        ("HostConfig", "CgroupParent", "/x", "namespace.cgroup HostConfig.CgroupParent"),
        ("HostConfig", "NextYears", {"a": 1}, "body.unknown HostConfig.NextYears"),
        ("HostConfig", "IpcMode", "host", "container.ipcMode"),
        ("HostConfig", "AutoRemove", True, "container.autoRemove"),
        ("HostConfig", "Runtime", "kata", "spec.security.runtime"),
        ("HostConfig", "Init", None, "spec.init"),
        ("HostConfig", "GroupAdd", ["docker"], "spec.groupAdd"),
        ("HostConfig", "ExtraHosts", ["db:1.2.3.4"], "spec.extraHosts"),
        ("HostConfig", "OomScoreAdj", 5, "spec.oomScoreAdj"),
        ("HostConfig", "Binds", ["/etc:/host"], "spec.mounts./host"),
        ("HostConfig", "Mounts", SHOWN["HostConfig"]["Mounts"][:1], "spec.mounts./data"),
        (
            "HostConfig",
            "PortBindings",
            {"8080/tcp": [{"HostIp": "", "HostPort": "18080"}]},
            "spec.ports",
        ),
        ("Config", "Env", ["A=2", "PATH=/bin"], "spec.env.A"),
        ("Config", "Env", ["A=1", "PATH=/bin", "LD_PRELOAD=x"], "spec.env.LD_PRELOAD"),
        ("Config", "Cmd", ["/bin/sh"], "spec.command"),
        ("Config", "Entrypoint", ["/bin/sh"], "spec.entrypoint"),
        ("Config", "User", "0", "spec.user"),
        ("Config", "WorkingDir", "/tmp", "spec.workingDir"),
        ("Config", "StopTimeout", 99, "spec.stopGracePeriod"),
        ("Config", "Healthcheck", {"Test": ["CMD", "/x"]}, "spec.healthcheck"),
        ("Config", "Hostname", "db", "spec.hostname"),
        ("Config", "Tty", True, "spec.tty"),
    ],
)
def test_each_other_difference_is_named(
    section: str, member: str, value: object, differs: str
) -> None:
    assert paths(by_hand(put(section, member, value))) == [differs]


def test_values_that_may_be_secret_are_not_told() -> None:
    existing = request_of(
        by_hand(put("Config", "Env", ["A=hunter2", "PATH=/bin"])), IMAGE, DEFAULTS
    )
    pair = (comparable(existing, IMAGE), comparable(parse_create(DOCUMENT), IMAGE))
    (found,) = differences(*pair, ({}, {}))
    assert "hunter2" not in found.reason


def test_an_unnamed_volume_is_a_difference() -> None:
    mounts = [{"Type": "volume", "Name": "f" * 64, "Destination": "/var/lib/x"}]
    unnamed = by_hand(lambda inspect: inspect.update(Mounts=mounts))
    assert paths(unnamed) == ["spec.mounts./var/lib/x"]
    existing = request_of(unnamed, IMAGE, DEFAULTS)
    (found,) = differences(
        comparable(existing, IMAGE), comparable(parse_create(DOCUMENT), IMAGE), ({}, {})
    )
    assert found.remedy.endswith(f'the engineName "{"f" * 64}"')


def test_an_unnamed_volume_is_like_a_document_that_names_it() -> None:
    mounts = [{"Type": "volume", "Name": "f" * 64, "Destination": "/var/lib/x"}]
    existing = request_of(by_hand(lambda each: each.update(Mounts=mounts)), IMAGE, DEFAULTS)
    named = deepcopy(DOCUMENT)
    volume = {"Type": "volume", "Source": "f" * 64, "Target": "/var/lib/x"}
    named["HostConfig"]["Mounts"] = [*named["HostConfig"]["Mounts"], volume]
    wanted = parse_create(named)
    pair = (comparable(existing, IMAGE), comparable(wanted, IMAGE))
    assert list(differences(*pair, ({}, {}))) == []


def test_a_variable_without_a_value_only_removes_that_of_the_image() -> None:
    changed = by_hand(lambda each: each["Config"]["Env"].append("MESSAGE"))
    assert paths(changed) == []
    assert paths(by_hand(lambda each: each["Config"]["Env"].append("PATH"))) == ["spec.env.PATH"]


def test_a_label_of_the_document_is_compared_and_others_are_not() -> None:
    labels = ({"tier": "db", "other": "1"}, {"tier": "web"})
    found = list(differences({}, {}, labels))
    assert [each.path for each in found] == ["spec.containerLabels.tier"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda i: i.update(Name="/web.1-0a1b2c3d"), "adopt.name"),
        (lambda i: i.update(Name="/shop.migrate.run-7-0a1b2c3d"), "adopt.name"),
        (lambda i: i["State"].update(Status="exited"), "adopt.not-running"),
        (lambda i: i["State"].update(Status="paused"), "adopt.not-running"),
        (put("HostConfig", "NetworkMode", "host"), "network.mode"),
        (put("HostConfig", "NetworkMode", "container:abc"), "network.mode"),
    ],
)
def test_a_look_alike_is_refused(change: Callable[[dict[str, Any]], object], rule: str) -> None:
    assert [each.rule for each in judge_identity(by_hand(change))] == [rule]
    assert list(judge_identity(by_hand())) == []


@pytest.mark.parametrize(
    "key",
    [
        "io.trimtab.instance",
        "IO.TRIMTAB.OWNER",
        "io.trimtab.slot",
        "io.trimtab.adopted",
        "io.trimtab.x",
    ],
)
def test_labels_of_ours_refuse_a_container(key: str) -> None:
    assert [each.rule for each in judge_reserved_labels({key: "1"}, {})] == ["adopt.labels"]


def test_only_a_label_without_a_meaning_may_come_from_the_image() -> None:
    image = {"io.trimtab.demo": "1", "io.trimtab.instance": "i1"}
    assert list(judge_reserved_labels({"io.trimtab.demo": "1"}, image)) == []
    assert len([*judge_reserved_labels({"io.trimtab.demo": "2"}, image)]) == 1
    assert len([*judge_reserved_labels({"io.trimtab.instance": "i1"}, image)]) == 1


def test_a_container_without_a_network_gets_none_later() -> None:
    none = by_hand(put("HostConfig", "NetworkMode", "none"))
    document = parse_create(DOCUMENT)
    assert [each.path for each in judge_mode(none, document)] == ["spec.network.mode"]
    assert list(judge_mode(by_hand(), document)) == []


def test_a_limit_that_no_update_unsets_is_a_difference() -> None:
    wanted = Settings("old", memory=1 << 30, memory_swap=1 << 30, nano_cpus=10**9, pids=9)
    assert list(judge_limits(settings(by_hand()), wanted)) == []
    assert [
        each.path
        for each in judge_limits(
            Settings("old", cpuset="0", cpu_quota=5, memory=1, others=("BlkioWeight=5",)), wanted
        )
    ] == ["container.cpu_quota", "container.cpuset", "container.others"]


def test_the_fingerprint_changes_with_everything_that_is_judged() -> None:
    def made(inspect: dict[str, Any]) -> object:
        fields = comparable(request_of(inspect, IMAGE, DEFAULTS), IMAGE)
        return fingerprint_of(fields, inspect["HostConfig"], settings(inspect))

    plain = made(by_hand())
    assert plain == made(by_hand())
    for member, value in (("CapAdd", ["CHOWN"]), ("Init", False), ("Memory", 5)):
        assert made(by_hand(put("HostConfig", member, value))) != plain
