"""Taking over without a journal: what was admitted is admitted again, and what reaches further isn't."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.admission.adoption import (
    Claim,
    Defaults,
    actor_of,
    claim_of,
    create_body_of,
    judge_claim,
    judge_likeness,
    judge_plain,
)
from controller.core.engine_api.requests import Finding
from controller.core.engine_api.translate import settings as shown_settings
from controller.core.rules.verdict import AdmissionDecision
from controller.model.policy.document import Policy
from controller.model.records import Actor, Role
from tests.examples import examples
from tests.sim.creation import container_of
from tests.sim.objects import SimImage
from tests.unit.core.admission.test_create_properties import ACTORS, BODIES, LOOKED_AT
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    CONTROLLER_LABELS,
    CONTROLLER_NAME,
    IMAGE,
    REFERENCE,
    STAMP,
    judged,
    judged_for_controller,
)

#: A container of the controller's as dockerd 26.1 shows it, with all that the engine fills in.
SHOWN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "inspected.json").read_text())
OWN: dict[str, Any] = {
    "Id": IMAGE.id,
    "Config": {
        "User": "65534:65534",
        "ExposedPorts": {"8080/tcp": {}},
        "Env": ["PATH=/bin"],
        "Cmd": ["/bin/serve"],
        "Healthcheck": SHOWN["Config"]["Healthcheck"],
        "WorkingDir": "/",
        "Labels": {"io.trimtab.demo": "1", "maintainer": "x"},
    },
}
INTENT = STAMP.intent


def findings(
    inspect: dict[str, Any], *, actor: Actor = CONTROLLER, name: str = CONTROLLER_NAME
) -> tuple[Finding, ...]:
    """What keeps a container from being adopted."""
    body = create_body_of(inspect, OWN, actor=actor, defaults=Defaults("host", "runc"))
    again = judged(body, name=name, actor=actor)
    if again.verdict.decision == "deny":
        found = again.findings
    else:
        found = tuple(judge_likeness(again, inspect))
    return found


def rules(inspect: dict[str, Any]) -> list[str]:
    return [finding.rule for finding in findings(inspect)]


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    inspect = deepcopy(SHOWN)
    change(inspect)
    return inspect


def test_what_the_gate_made_is_admitted_as_what_it_is() -> None:
    assert findings(SHOWN) == ()
    body = create_body_of(SHOWN, OWN, actor=CONTROLLER, defaults=Defaults("host", "runc"))
    again = judged(body, name=CONTROLLER_NAME, actor=CONTROLLER)
    assert again.settings == shown_settings(SHOWN)
    assert again.summary["answersTo"] == ["web"]
    confined = again.summary["confined"]
    assert isinstance(confined, dict)
    assert confined["capabilities"] == ["CHOWN"]
    assert confined["read_only_root"] is True


def test_members_of_a_check_that_come_from_the_image_are_the_images() -> None:
    image = deepcopy(OWN)
    image["Config"]["Healthcheck"]["StartInterval"] = 500_000_000
    inspect = deepcopy(SHOWN)
    inspect["Config"]["Healthcheck"] = {
        **image["Config"]["Healthcheck"],
        "Test": ["CMD", "/bin/check"],
    }
    body = create_body_of(inspect, image, actor=CONTROLLER, defaults=Defaults("host", "runc"))
    assert body["Healthcheck"] == {"Test": ["CMD", "/bin/check"]}


@pytest.mark.parametrize(
    ("member", "value", "rule"),
    [
        ("Privileged", True, "privileged"),
        ("CapAdd", ["SYS_ADMIN"], "capabilities"),
        ("CapDrop", None, "adopt.unlike"),
        ("SecurityOpt", None, "adopt.unlike"),
        ("SecurityOpt", ["seccomp=unconfined"], "security-opt"),
        ("PidMode", "host", "namespace.pid"),
        ("CgroupnsMode", "private", None),
        ("IpcMode", "host", "namespace.ipc"),
        ("NetworkMode", "host", "network.mode"),
        ("Binds", ["/:/host"], "mount.never"),
        ("Binds", ["/var/run/docker.sock:/s"], "mount.never"),
        ("Devices", [{"PathOnHost": "/dev/sda"}], "device.never"),
        ("MaskedPaths", [], "masked-paths"),
        ("ReadonlyPaths", ["/proc/bus"], "masked-paths"),
        ("Memory", 0, "resources.swap"),
        ("MemorySwap", -1, "resources.swap"),
        ("NanoCpus", 0, "adopt.unlike"),
        ("PidsLimit", None, "adopt.unlike"),
        ("PidsLimit", 4096, "resources.pids"),
        ("LogConfig", {"Type": "json-file", "Config": {}}, "adopt.unlike"),
        ("CpusetCpus", "0", "resources.cpuset"),
        ("Runtime", "kata", "runtime"),
        ("PublishAllPorts", True, "port.publish-all"),
        ("PortBindings", {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": "22"}]}, "port.address"),
        ("Annotations", {"a": "b"}, "annotations"),
        ("SomethingNew", {"a": "b"}, "body.unknown"),
    ],
)
def test_an_object_beyond_the_policy_stays_foreign(
    member: str, value: object, rule: str | None
) -> None:
    found = rules(changed(lambda inspect: inspect["HostConfig"].update({member: value})))
    assert found[:1] == ([] if rule is None else [rule]), found


def test_limits_that_somebody_lowered_are_as_good_as_admitted() -> None:
    def lower(inspect: dict[str, Any]) -> None:
        inspect["HostConfig"].update(Memory=32 << 20, MemorySwap=32 << 20, NanoCpus=500_000_000)
        inspect["HostConfig"]["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}

    assert findings(changed(lower)) == ()


def test_a_network_or_a_name_beside_its_own_keeps_it_foreign() -> None:
    ends = SHOWN["NetworkSettings"]["Networks"]["platform-network"]

    def joined(inspect: dict[str, Any]) -> None:
        inspect["NetworkSettings"]["Networks"]["bob-net"] = ends

    def borrowed(inspect: dict[str, Any]) -> None:
        inspect["NetworkSettings"]["Networks"]["platform-network"]["Aliases"] = ["db"]

    assert rules(changed(joined)) == ["network.foreign"]
    assert rules(changed(borrowed)) == ["network.alias"]


@pytest.mark.parametrize(
    ("label", "value", "rule"),
    [
        ("io.trimtab.slot", "2", "name.mismatch"),
        ("io.trimtab.revision", "v2:short", "label.slot"),
        ("io.trimtab.image", "alpine:latest", "image.not-allowed"),
        ("io.trimtab.owner", "Nobody!", "owner.invalid"),
        ("io.trimtab.managed", "yes", "adopt.labels"),
        ("io.trimtab.other", "x", "label.reserved"),
    ],
)
def test_labels_must_fit_each_other_and_the_name(label: str, value: str, rule: str) -> None:
    found = rules(changed(lambda inspect: inspect["Config"]["Labels"].update({label: value})))
    assert found[:1] == [rule], found


def test_what_the_image_brings_was_not_asked_for() -> None:
    body = create_body_of(SHOWN, OWN, actor=CONTROLLER, defaults=Defaults("host", "runc"))
    assert body["Env"] == ["A=1"]
    assert body["Labels"] == {**CONTROLLER_LABELS}
    assert body["ExposedPorts"] == {}
    inherited = {"Cmd", "Healthcheck", "User", "WorkingDir", "Hostname"}
    assert not inherited & {name for name, value in body.items() if value}
    host = body["HostConfig"]
    assert isinstance(host, dict)
    assert not host.keys() & {"MaskedPaths", "ReadonlyPaths", "CgroupnsMode", "Runtime"}


def test_what_the_engine_says_of_its_defaults_counts() -> None:
    assert Defaults.of({"CgroupVersion": "1", "DefaultRuntime": "crun"}) == Defaults("host", "crun")
    assert Defaults.of({"CgroupVersion": "2"}) == Defaults("private", "runc")


# What labels say


def claim(**labels: str) -> Claim:
    told = {"origin": "controller", "intent": INTENT, "owner": "team", "namespace": "default"}
    ours = {f"io.trimtab.{name}": value for name, value in {**told, **labels}.items()}
    return claim_of("network", {"Id": "n1", "Name": "net", "Labels": ours})


def test_labels_are_only_a_claim() -> None:
    assert list(judge_claim(claim(), taken=())) == []
    for wrong in ({"origin": "broker"}, {"origin": ""}, {"intent": "x"}, {"intent": ""}):
        found = list(judge_claim(claim(**wrong), taken=()))
        assert [f.rule for f in found] == ["adopt.labels"], wrong
    copied = list(judge_claim(claim(), taken=["x", INTENT]))
    assert [f.rule for f in copied] == ["adopt.copied"]


def test_who_made_it_is_told_by_its_labels() -> None:
    policy = Policy.from_json({"name": "p", "clients": [{"uid": 1000, "owner": "alice"}]})
    alice = claim(origin="client", owner="alice")
    assert actor_of(claim(), policy) == Actor(-1, -1, 0, Role.CONTROLLER)
    assert actor_of(alice, policy) == Actor(1000, -1, 0, Role.CLIENT, owner="alice")
    operators = claim(origin="client", owner="operator")
    assert actor_of(operators, policy) == Actor(0, 0, 0, Role.OPERATOR)


@pytest.mark.parametrize(
    ("kind", "inspect", "rule"),
    [
        ("network", {"Driver": "bridge"}, None),
        ("network", {"Driver": "macvlan"}, "network.options"),
        ("volume", {"Driver": "local", "Options": None}, None),
        ("volume", {"Driver": "local", "Options": {"device": "/"}}, "volume.options"),
        ("volume", {"Driver": "nfs"}, "volume.options"),
    ],
)
def test_networks_and_volumes_must_be_plain(
    kind: Any, inspect: dict[str, Any], rule: str | None
) -> None:
    labels = {f"io.trimtab.{k}": v for k, v in {"namespace": "default"}.items()}
    found = list(judge_plain(claim_of(kind, {"Name": "n", "Labels": labels, **inspect}), inspect))
    assert [f.rule for f in found] == ([] if rule is None else [rule])


def test_the_controllers_networks_name_a_namespace() -> None:
    found = list(judge_plain(claim(namespace="No!"), {"Driver": "bridge"}))
    assert [f.rule for f in found] == ["adopt.labels"]
    assert list(judge_plain(claim(origin="client", namespace=""), {"Driver": "bridge"})) == []


def test_objects_are_named_by_kind() -> None:
    assert claim().subject == "network:n1"
    assert claim_of("volume", {"Name": "data"}).subject == "volume:data"
    assert claim_of("container", {"Id": "c1", "Name": "/web"}).subject == "c1"
    assert claim().made_s == 0x018900000000 / 1000


RICH: tuple[dict[str, Any], ...] = (
    {"Mounts": [{"Type": "volume", "Source": "alice-data", "Target": "/d", "ReadOnly": True}]},
    {"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20}}]},
    {"Binds": ["/tmp/x:/x:ro"], "Tmpfs": {"/run": "size=1m"}},
    {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "Init": True},
    {"CapAdd": ["CHOWN", "SETUID"], "ReadonlyRootfs": True, "ShmSize": 32 << 20},
    {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
    {"CpuQuota": 50_000, "CpuPeriod": 100_000, "MemoryReservation": 64 << 20},
    {"NetworkMode": "none"},
    {"Ulimits": [{"Name": "nofile", "Soft": 64, "Hard": 64}], "IpcMode": "none"},
    {"CgroupnsMode": "private", "OomScoreAdj": 100},
)


@settings(max_examples=examples(40))
@given(body=BODIES, actor=ACTORS, by_controller=st.booleans())
def test_an_admitted_object_is_adopted_with_its_settings(
    body: Any, actor: Actor, *, by_controller: bool
) -> None:
    """Through an engine that shows it as a real one does (the simulation's, by contract)."""
    name = "alice-web"
    if by_controller:
        actor, name = CONTROLLER, CONTROLLER_NAME
        first = judged_for_controller(body, facts=LOOKED_AT)
    else:
        first = judged(body, name=name, actor=actor, facts=LOOKED_AT)
    if first.verdict.decision != "deny":
        comes_back(first, name, actor)


@pytest.mark.parametrize("host", RICH, ids="+".join)
@pytest.mark.parametrize("actor", [CLIENT, CONTROLLER], ids=["client", "controller"])
def test_each_kind_of_container_is_adopted_as_what_it_was(
    host: dict[str, Any], actor: Actor
) -> None:
    if actor.role is Role.CLIENT:
        first, name = judged(host=host, facts=LOOKED_AT), "alice-web"
    else:
        ends = {"platform-network": {"Aliases": ["web"]}}
        if "PortBindings" in host:
            ends["platform-ingress"] = {"Aliases": ["web"]}
        body: dict[str, Any] = {"NetworkingConfig": {"EndpointsConfig": ends}}
        if "NetworkMode" in host:
            body = {"NetworkingConfig": {}}
        first, name = judged_for_controller(body, host=host, facts=LOOKED_AT), CONTROLLER_NAME
    assert first.verdict.decision != "deny", first.verdict.reason
    comes_back(first, name, actor)


def comes_back(first: AdmissionDecision, name: str, actor: Actor) -> None:
    """What was admitted, and is now shown by an engine, is admitted again as the same."""
    image = SimImage(REFERENCE, IMAGE.id)
    made = container_of("c" * 64, name, image, dict(first.body or {}), now=0.0)
    inspect, own = made.inspect(), image.inspect()
    asked = create_body_of(inspect, own, actor=actor, defaults=Defaults("host", "runc"))
    if actor.role is not Role.CONTROLLER:
        asked["Image"] = REFERENCE
    again = judged(asked, name=name, actor=actor, facts=LOOKED_AT)
    assert again.verdict.decision != "deny", again.verdict.reason
    assert (again.settings, [*judge_likeness(again, inspect)]) == (first.settings, [])
    assert again.summary["confined"] == first.summary["confined"]
