"""Devices: who may ask for which one, and what the host says of it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from controller.core.engine_api.cdi import CdiFile, read_devices
from controller.core.records.parts import CreatePart
from controller.core.rules.context import CreateFacts
from controller.core.rules.verdict import AdmissionDecision
from controller.model.host_paths import PathFacts
from controller.model.policy.document import Policy
from tests.unit.core.creates import (
    CLIENT,
    FACTS,
    OPERATOR,
    STRICT,
    denials,
    host_of,
    judged,
    judged_for_controller,
    policy,
)

FUSE, CARD = "/dev/fuse", "vendor.example/card=0"
OWNERS = [
    {"name": "alice", "namespaces": ["default", "team"]},
    {"name": "bob", "namespaces": ["default"]},
]


def granting(
    *devices: str, owner: str = "alice", namespace: str = "default", **more: Any
) -> Policy:
    """Return a policy with one grant."""
    grant = {"owner": owner, "namespace": namespace, "devices": list(devices), **more}
    return policy(owners=OWNERS, devices={"grants": [grant]})


def node(path: str = FUSE, major: int = 10, minor: int = 229, **changes: Any) -> PathFacts:
    """Return the facts of a character device."""
    device = PathFacts(path, "other", device_type="character", number=os.makedev(major, minor))
    return replace(device, **changes)


def seen(*paths: PathFacts, **changes: Any) -> CreateFacts:
    """Return facts with these paths of the host."""
    return replace(FACTS, paths={each.path: each for each in paths}, **changes)


def by_path(source: str = FUSE, target: str = "", permissions: str = "rw") -> dict[str, Any]:
    """Return a HostConfig with one device."""
    return {
        "Devices": [
            {
                "PathOnHost": source,
                "PathInContainer": target or source,
                "CgroupPermissions": permissions,
            }
        ]
    }


def by_name(*names: str) -> dict[str, Any]:
    """Return a HostConfig with CDI names."""
    return {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": list(names)}]}


def refused(admission: AdmissionDecision) -> str:
    """Return the rule that leads a refusal, '' for an admission."""
    return (denials(admission) or ("",))[0]


def test_a_granted_device_is_forwarded_and_recorded_with_its_number() -> None:
    admission = judged(host=by_path(), rules=granting(FUSE), facts=seen(node()))
    assert host_of(admission)["Devices"] == by_path()["Devices"]
    (part,) = CreatePart.read(admission.summary).devices
    assert (part.source, part.target, part.permissions, part.numbers) == (
        FUSE,
        FUSE,
        "rw",
        ("10:229",),
    )


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        (STRICT, "devices"),
        (granting(FUSE, owner="bob"), "devices"),
        (granting(FUSE, namespace="team"), "devices"),
        (granting("/dev/kvm"), "devices"),
        (granting(FUSE), ""),
    ],
)
def test_a_grant_is_for_an_owner_in_a_namespace(rules: Policy, rule: str) -> None:
    facts = seen(node())
    assert refused(judged(host=by_path(), rules=rules, facts=facts)) == rule
    service = judged_for_controller(
        {"NetworkingConfig": {}},
        host={**by_path(), "NetworkMode": "none"},
        rules=rules,
        facts=facts,
    )
    assert refused(service) == rule


def test_an_operator_has_no_grant_of_an_owner() -> None:
    admission = judged(host=by_path(), rules=granting(FUSE), facts=seen(node()), actor=OPERATOR)
    assert refused(admission) == "devices"


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        (node(kind="missing", device_type="", number=0), "device.missing"),
        (node(kind="symlink", device_type="", number=0), "device.kind"),
        (node(kind="unreadable", device_type="", number=0), "device.kind"),
        (node(kind="file", device_type="", number=0), "device.never"),
        (node(device_type="block", major=8, minor=0), "device.never"),
        # The host decides what a path is: these have the numbers of memory, terminals and disks.
        (node(major=1, minor=1), "device.never"),
        (node(major=1, minor=11), "device.never"),
        (node(major=4, minor=63), "device.never"),
        (node(major=4, minor=64, console=True), "device.never"),
        (node(major=188, minor=0, console=True), "device.never"),
        (node(major=204, minor=63), "device.never"),
        (node(major=5, minor=1), "device.never"),
        (node(major=136, minor=3), "device.never"),
        (node(major=229, minor=0), "device.never"),
        (node(major=21, minor=0), "device.never"),
        (node(major=1, minor=5), ""),
        (node(major=226, minor=128), ""),
        # Serial ports.
        (node(major=4, minor=64), ""),
        (node(major=166, minor=0), ""),
        (node(major=188, minor=31), ""),
        (node(major=204, minor=64), ""),
    ],
)
def test_the_host_says_what_a_path_is(facts: PathFacts, rule: str) -> None:
    assert refused(judged(host=by_path(), rules=granting(FUSE), facts=seen(facts))) == rule


@pytest.mark.parametrize(
    "host",
    [
        by_path("/etc/passwd"),
        by_path("/dev"),
        by_path("/dev/../etc/passwd"),
        by_path("/dev/fuse/"),
        by_path(FUSE, "/etc/x"),
        by_path(FUSE, "/dev/null"),
        by_path(FUSE, "/dev/pts/0"),
        by_path(FUSE, FUSE, "rx"),
        {"Devices": by_path()["Devices"] * 2},
        {"Devices": [{**by_path()["Devices"][0], "Extra": 1}]},
        {"Devices": by_path()["Devices"] * 65},
        {"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]},
        {"DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": ["0"]}]},
        {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": []}]},
        by_name("no-cdi-name"),
        {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": [CARD], "Options": {"a": "b"}}]},
        {"DeviceCgroupRules": ["c 10:229 rwm"]},
    ],
)
def test_what_is_no_single_device_is_refused_whatever_is_granted(host: dict[str, Any]) -> None:
    admission = judged(host=host, rules=granting(FUSE, CARD), facts=seen(node()))
    assert refused(admission) in {"devices", "device.driver", "body.unknown"}


@pytest.mark.parametrize(
    "device",
    [
        *(
            "/dev/mem",
            "/dev/kmem",
            "/dev/port",
            "/dev/kmsg",
            "/dev/tty",
            "/dev/tty1",
            "/dev/ttyUSB",
            "/dev/ttyUSB0x",
            "/dev/ttyprintk",
        ),
        *(
            "/dev/console",
            "/dev/pts/1",
            "/dev/sda",
            "/dev/sda1",
            "/dev/nvme0n1",
            "/dev/vda",
            "/dev/xvdb",
        ),
        *(
            "/dev/mapper/root",
            "/dev/disk/by-id/x",
            "/dev/loop0",
            "/dev/dm-0",
            "/dev/sg0",
            "/dev/bsg/0",
        ),
        *("/etc/passwd", "/dev/../etc/x", "nvidia.com", "gpu=0"),
    ],
)
def test_no_policy_grants_disks_terminals_and_memory(device: str) -> None:
    with pytest.raises(ValueError, match=r"expected a path|no policy can grant"):
        granting(device)


@pytest.mark.parametrize("device", ["/dev/ttyACM0", "/dev/ttyUSB3", "/dev/ttyS1", "/dev/ttyAMA10"])
def test_a_policy_grants_serial_ports(device: str) -> None:
    facts = seen(node(device, major=188, minor=0))
    assert refused(judged(host=by_path(device), rules=granting(device), facts=facts)) == ""
    assert refused(judged(host=by_path(device), facts=facts)) == "devices"


TUN = "/dev/net/tun"


def test_the_capability_of_a_private_network_comes_with_its_device() -> None:
    facts = seen(node(TUN, major=10, minor=200))
    host = {**by_path(TUN), "CapAdd": ["NET_ADMIN"]}
    granted = granting(TUN, capAdd=["NET_ADMIN"])
    admission = judged(host=host, rules=granted, facts=facts)
    assert refused(admission) == ""
    assert host_of(admission)["CapAdd"] == ["NET_ADMIN"]
    assert host_of(admission)["SecurityOpt"] == ["no-new-privileges:true"]
    # Not without the device, the line, or a network of its own.
    for other, rules in (
        ({"CapAdd": ["NET_ADMIN"]}, granted),
        (host, granting(TUN)),
        (host, granting(TUN, owner="bob", capAdd=["NET_ADMIN"])),
        ({**host, "CapAdd": ["NET_ADMIN", "SYS_ADMIN"]}, granted),
    ):
        assert "capabilities" in denials(judged(host=other, rules=rules, facts=facts))
    shared = judged_for_controller(
        {"TrimtabShares": {"Service": "db", "Network": True}}, host=host, rules=granted, facts=facts
    )
    assert "capabilities" in denials(shared)


def test_a_device_brings_no_other_capability() -> None:
    with pytest.raises(ValueError, match="NET_ADMIN"):
        granting(TUN, capAdd=["SYS_ADMIN"])


@pytest.mark.parametrize(
    ("owners", "grant"),
    [
        (None, {"owner": "alice", "namespace": "default"}),
        (OWNERS, {"owner": "carol", "namespace": "default"}),
        (OWNERS, {"owner": "bob", "namespace": "team"}),
    ],
)
def test_a_grant_names_a_listed_owner_and_its_namespace(owners: Any, grant: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="isn't"):
        policy(owners=owners, devices={"grants": [{**grant, "devices": [FUSE]}]})


# CDI

PLAIN = """
cdiVersion: "0.6.0"
kind: vendor.example/card
devices:
  - name: "0"
    containerEdits: {deviceNodes: [{path: /dev/card0}], env: [CARD=0]}
"""
HOOKED = PLAIN + "containerEdits: {hooks: [{hookName: createContainer, path: /bin/x}]}\n"
MOUNTED = PLAIN + (
    "containerEdits: {mounts: [{hostPath: /usr/lib/card.so, containerPath: /usr/lib/card.so,"
    " options: [ro, bind]}]}\n"
)
CARD_NODE = node("/dev/card0", major=226, minor=0)


def specified(
    text: str, *paths: PathFacts, folders: tuple[str, ...] = ("/etc/cdi",)
) -> CreateFacts:
    """Return facts with one specification, and an engine that reads it."""
    host = replace(FACTS.host, cdi_folders=folders)
    devices = read_devices((CdiFile("/etc/cdi/card.yaml", text.encode()),))
    return seen(CARD_NODE, *paths, host=host, cdi=devices)


def digest_of(text: str) -> str:
    return CdiFile("", text.encode()).digest


@pytest.mark.parametrize(
    ("text", "grant", "rule"),
    [
        (PLAIN, {}, ""),
        (HOOKED, {}, "device.edits"),
        (HOOKED, {"specifications": [digest_of(PLAIN)]}, "device.edits"),
        (HOOKED, {"specifications": [digest_of(HOOKED)]}, ""),
        (MOUNTED, {}, "device.edits"),
        (MOUNTED, {"specifications": [digest_of(MOUNTED)]}, ""),
        # The engine folds the case of keys: an unknown key may be a known one to it.
        (PLAIN.replace("deviceNodes", "DeviceNodes"), {}, "device.edits"),
        (PLAIN + "ContainerEdits: {hooks: [{path: /bin/x}]}\n", {}, "device.edits"),
        (PLAIN.replace("env: [CARD=0]", "env: [LD_PRELOAD=/x]"), {}, "device.edits"),
        (PLAIN.replace("env: [CARD=0]", "additionalGids: [0]"), {}, "device.edits"),
        (PLAIN.replace("{path: /dev/card0}", "{path: /dev/card0, major: 1, minor: 1}"), {}, "device.edits"),
        (PLAIN.replace("/dev/card0", "/dev/mem"), {}, "device.never"),
        (PLAIN.replace("/dev/card0", "/etc/shadow"), {}, "device.never"),
        (PLAIN.replace("{path: /dev/card0}", "{path: /dev/card0, type: b}"), {}, "device.never"),
        (PLAIN.replace("{path: /dev/card0}", "{path: /dev/x, hostPath: /dev/sda}"), {}, "device.never"),
        (PLAIN.replace('name: "0"', 'name: "1"'), {}, "device.missing"),
        (PLAIN + "devices: []\n", {}, "device.missing"),  # two keys: the file is not read
        ("a: [", {}, "device.missing"),
        (PLAIN.replace("/dev/card0", "/dev/card1"), {}, "device.kind"),
    ],
)  # fmt: skip
def test_a_specification_that_does_more_than_devices_needs_its_digest(
    text: str, grant: dict[str, Any], rule: str
) -> None:
    facts = specified(text, PathFacts("/usr/lib/card.so", "file", inode=5, device=6))
    admission = judged(host=by_name(CARD), rules=granting(CARD, **grant), facts=facts)
    assert refused(admission) == rule
    if not rule:
        assert host_of(admission)["DeviceRequests"] == by_name(CARD)["DeviceRequests"]
        (part,) = CreatePart.read(admission.summary).devices
        assert (part.specification, part.numbers) == (digest_of(text), ("226:0",))


def test_a_digest_never_admits_a_disk() -> None:
    text = PLAIN.replace("/dev/card0", "/dev/sda")
    rules = granting(CARD, specifications=[digest_of(text)])
    assert refused(judged(host=by_name(CARD), rules=rules, facts=specified(text))) == "device.never"


def test_mounts_of_a_specification_are_expected_in_the_kernel() -> None:
    library = PathFacts("/usr/lib/card.so", "file", inode=5, device=6)
    rules = granting(CARD, specifications=[digest_of(MOUNTED)])
    admission = judged(host=by_name(CARD), rules=rules, facts=specified(MOUNTED, library))
    confined = CreatePart.read(admission.summary).confinement
    assert confined is not None
    (mount,) = confined.mounts
    assert (mount.type, mount.target, mount.read_only, mount.inode) == (
        "bind",
        "/usr/lib/card.so",
        True,
        5,
    )
    assert confined.devices[0].nodes == ("/dev/card0=226:0",)


@pytest.mark.parametrize("folders", [(), ("/opt/cdi",), ("/etc/cdi", "/opt/cdi")])
def test_an_engine_that_reads_no_checked_specification_gets_no_name(
    folders: tuple[str, ...],
) -> None:
    facts = specified(PLAIN, folders=folders)
    assert (
        refused(judged(host=by_name(CARD), rules=granting(CARD), facts=facts))
        == "device.unsupported"
    )


def test_a_name_in_two_files_is_admitted_by_no_grant() -> None:
    files = tuple(CdiFile(f"/etc/cdi/{name}.yaml", PLAIN.encode()) for name in "ab")
    host = replace(FACTS.host, cdi_folders=("/etc/cdi",))
    facts = seen(CARD_NODE, host=host, cdi=read_devices(files))
    assert refused(judged(host=by_name(CARD), rules=granting(CARD), facts=facts)) == "device.never"


def test_no_name_is_admitted_beside_a_file_that_another_user_can_change() -> None:
    files = (CdiFile("/etc/cdi/card.yaml", PLAIN.encode()), CdiFile("/var/run/cdi/card.yaml", None))
    host = replace(FACTS.host, cdi_folders=("/etc/cdi", "/var/run/cdi"))
    facts = seen(CARD_NODE, host=host, cdi=read_devices(files))
    rules = granting(CARD, specifications=[digest_of(PLAIN)])
    assert refused(judged(host=by_name(CARD), rules=rules, facts=facts)) == "device.never"


def test_the_owner_of_the_client_decides() -> None:
    bob = replace(CLIENT, owner="bob")
    facts = seen(node())
    rules = granting(FUSE, owner="bob")
    assert refused(judged(host=by_path(), rules=rules, facts=facts, actor=bob)) == ""
