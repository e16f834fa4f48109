"""Modes of rules: what ``warn`` and ``audit`` let through, and what they never do."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controller.core.admission.calls import admit_pull, admit_update
from controller.core.admission.preview import preview_action
from controller.core.engine_api.parse import parse_update
from controller.core.engine_api.requests import Finding
from controller.core.policy.text import load_policy
from controller.core.rules.context import HostFacts
from controller.core.rules.verdict import mode_of
from controller.model.desired.plan import PullImage
from controller.model.errors import PolicyInvalid
from controller.model.names import Key
from controller.model.policy.sections import ROLLABLE
from tests.unit.core.creates import (
    CLIENT,
    FACTS,
    GIB,
    IMAGE,
    REFERENCE,
    denials,
    host_of,
    image_of,
    judged,
    judged_for_controller,
    policy,
)

MIB = 1024**2


@dataclass(frozen=True)
class Beyond:
    """A create that goes beyond one rule alone, and what of it must be in the rebuilt body."""

    body: dict[str, Any]
    sections: dict[str, Any]
    kept: dict[str, Any]


def host(config: dict[str, Any], kept: dict[str, Any] | None = None, **sections: Any) -> Beyond:
    return Beyond({"HostConfig": config}, sections, {"HostConfig": kept or config})


def log(config: dict[str, str], driver: str = "json-file") -> dict[str, Any]:
    return {"LogConfig": {"Type": driver, "Config": config}}


#: Per rule at least one create; numbers may be drawn by the property test instead.
CREATES: dict[str, list[Beyond]] = {
    "auto-remove": [host({"AutoRemove": True}, autoRemove=False)],
    "env.size": [
        Beyond({"Env": ["A=1", "B=2"]}, {"env": {"max": 1}}, {"Env": ["A=1", "B=2"]}),
        Beyond({"Env": ["A=" + "x" * 70_000]}, {}, {"Env": ["A=" + "x" * 70_000]}),
    ],
    "healthcheck.bounds": [
        Beyond(check, {}, check)
        for check in (
            {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 10_000_000}},
            {"Healthcheck": {"Test": ["CMD", "x"], "Timeout": 10**13, "Retries": 99}},
            {"Healthcheck": {"StartPeriod": 10**14, "StartInterval": 2_000_000}},
        )
    ],
    "healthcheck.shell": [
        Beyond(
            {"Healthcheck": {"Test": ["CMD-SHELL", "true"]}},
            {"healthcheck": {"shell": False}},
            {"Healthcheck": {"Test": ["CMD-SHELL", "true"]}},
        )
    ],
    "image.mutable": [Beyond({}, {"images": {"requireDigest": True}}, {"Image": IMAGE.id})],
    "label.size": [
        Beyond(
            {"Labels": {"a": "1", "b": "2"}},
            {"labels": {"max": 1}},
            {"Labels": {"a": "1", "b": "2"}},
        )
    ],
    "log.driver": [
        host(log({"max-size": "1m"}, "local"), logs={"drivers": ["json-file"]}),
        host(log({}, "json-file"), log({"max-size": "10485760"}), logs={"drivers": ["local"]}),
    ],
    "log.option": [host(log({"max-size": "1g"})), host(log({"max-size": "1m", "max-file": "500"}))],
    "mount.tmpfs": [
        host(
            {"Tmpfs": {"/x": "size=1g"}},
            {"Tmpfs": {"/x": "rw,nosuid,nodev,noexec,size=1073741824"}},
        ),
        host({"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": GIB}}]}),
    ],
    "resources.cpus": [
        host({"NanoCpus": 8 * 10**9}),
        host({"CpuQuota": 800_000, "CpuPeriod": 100_000}),
    ],
    "resources.memory": [host({"Memory": 32 * GIB}, {"Memory": 32 * GIB, "MemorySwap": 32 * GIB})],
    "resources.pids": [host({"PidsLimit": 4096})],
    "resources.shm": [host({"ShmSize": GIB})],
    "resources.ulimits": [host({"Ulimits": [{"Name": "nofile", "Soft": 10**6, "Hard": 10**6}]})],
    "restart": [
        host({"RestartPolicy": {"Name": "always"}}, restart={"policies": ["no"]}),
        host({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 99}}),
    ],
    "root-filesystem": [
        Beyond(
            {}, {"security": {"requireReadOnlyRoot": True}}, {"HostConfig": {"CapDrop": ["ALL"]}}
        )
    ],
    "user.root": [
        Beyond({"User": user}, {"security": {"requireNonRoot": True}}, {"User": numbers})
        for user, numbers in (("0", "0:0"), ("root", "0:0"), ("1000:0", "1000:0"))
    ],
    "volume.anonymous": [Beyond({"Volumes": {"/data": {}}}, {}, {"Volumes": {"/data": {}}})],
}
CASES = [(rule, beyond) for rule, several in CREATES.items() for beyond in several]


def holds(kept: object, body: object) -> bool:
    """Tell whether a body has all members of *kept*, at any depth."""
    if not isinstance(kept, dict):
        return kept == body
    return isinstance(body, dict) and all(holds(kept[key], body.get(key)) for key in kept)


def test_every_rollable_rule_has_a_create_that_goes_beyond_it():
    assert set(CREATES) == set(ROLLABLE)


@pytest.mark.parametrize(("rule", "beyond"), CASES)
def test_a_rule_that_is_enforced_refuses(rule: str, beyond: Beyond):
    assert denials(judged(beyond.body, rules=policy(**beyond.sections))) == (rule,)


@pytest.mark.parametrize("mode", ["warn", "audit"])
@pytest.mark.parametrize(("rule", "beyond"), CASES)
def test_what_a_mode_lets_through_is_admitted_as_asked_and_hardened_all_the_same(
    rule: str, beyond: Beyond, mode: str
):
    rules = policy(**beyond.sections, modes={rule: mode})
    admitted = judged(beyond.body, rules=rules)
    assert (admitted.verdict.decision, admitted.verdict.rules[0]) == ("audit-deny", rule)
    assert admitted.verdict.reason
    assert {finding.rule for finding in admitted.findings} == {rule}
    assert holds(beyond.kept, admitted.body), json.dumps(admitted.body, indent=1)
    hardening = host_of(admitted)
    assert hardening["CapDrop"] == ["ALL"]
    assert hardening["SecurityOpt"] == ["no-new-privileges:true"]
    assert hardening["Memory"] == hardening["MemorySwap"] > 0
    assert hardening["PidsLimit"] > 0
    told = [text for text in admitted.warnings if rule in text]
    assert bool(told) == (mode == "warn")
    assert admitted.verdict_for_client.decision == ("audit-deny" if mode == "warn" else "mutate")
    assert (rule in admitted.verdict_for_client.rules) == (mode == "warn")


@given(
    memory=st.integers(9 * GIB, 2**50),
    pids=st.integers(513, 2**31),
    tmpfs=st.integers(257 * MIB, 2**50),
    soft=st.integers(0, 2**40),
    more=st.integers(1, 2**40),
    interval=st.integers(3_600_001, 10**8),
    retries=st.integers(11, 10**9),
    mode=st.sampled_from(["warn", "audit"]),
)
def test_whatever_number_is_asked_for_beyond_the_bounds_is_what_the_engine_gets(
    memory, pids, tmpfs, soft, more, interval, retries, mode
):
    asked = {
        "Memory": memory,
        "NanoCpus": 8 * 10**9,
        "PidsLimit": pids,
        "Ulimits": [{"Name": "nofile", "Soft": soft, "Hard": max(soft, 65536) + more}],
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": retries},
        "Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": tmpfs}}],
    }
    check = {"Test": ["CMD", "x"], "Interval": interval * 10**6}
    admitted = judged(
        {"HostConfig": asked, "Healthcheck": check},
        rules=policy(modes=dict.fromkeys(ROLLABLE, mode)),
    )
    assert admitted.verdict.decision == "audit-deny"
    assert holds({"HostConfig": asked, "Healthcheck": check}, admitted.body)


NEVER = [
    ({"HostConfig": {"Privileged": True}}, "privileged"),
    ({"HostConfig": {"PidMode": "host"}}, "namespace.pid"),
    ({"HostConfig": {"Binds": ["/var/run/docker.sock:/s"]}}, "mount.never"),
    ({"HostConfig": {"CapAdd": ["SYS_ADMIN"]}}, "capabilities"),
    ({"HostConfig": {"SecurityOpt": ["seccomp=unconfined"]}}, "security-opt"),
    ({"Labels": {"io.trimtab.slot": "1"}}, "label.reserved"),
    ({"Env": ["LD_PRELOAD=/x"]}, "env.denied"),
    ({"Image": "alpine:latest"}, "image.not-allowed"),
    # Rules that may be rolled out, beyond what any mode lets through.
    ({"HostConfig": {"Memory": -1}}, "resources.memory"),
    ({"HostConfig": {"Memory": 4096}}, "resources.memory"),
    ({"HostConfig": {"PidsLimit": -1}}, "resources.pids"),
    ({"HostConfig": {"NanoCpus": 9 * 10**9}}, "resources.cpus"),
    ({"HostConfig": {"NanoCpus": 5 * 10**9, "CpuQuota": 1000}}, "resources.cpus"),
    ({"HostConfig": {"CpuQuota": 10}}, "resources.cpus"),
    ({"HostConfig": {"ShmSize": 4 * GIB}}, "resources.shm"),
    (
        {"HostConfig": {"Ulimits": [{"Name": "rtprio", "Soft": 99, "Hard": 99}]}},
        "resources.ulimits",
    ),
    ({"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]}}, "resources.ulimits"),
    ({"HostConfig": {"Ulimits": [{"Name": "core", "Soft": -1, "Hard": -1}]}}, "resources.ulimits"),
    ({"HostConfig": log({}, "syslog")}, "log.driver"),
    ({"HostConfig": log({"max-size": "-1"})}, "log.option"),
    ({"HostConfig": log({"labels": "a"})}, "log.option"),
    ({"HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}, "restart"),
    ({"HostConfig": {"Tmpfs": {"/x": "exec"}}}, "mount.options"),
    ({"Healthcheck": {"Interval": 1}}, "healthcheck.bounds"),
    ({"Healthcheck": {"Retries": -1}}, "healthcheck.bounds"),
]


@pytest.mark.parametrize("mode", ["warn", "audit"])
@pytest.mark.parametrize(("body", "rule"), NEVER)
def test_a_mode_loosens_bounds_only(body: dict[str, Any], rule: str, mode: str):
    assert rule in denials(judged(body, rules=policy(modes=dict.fromkeys(ROLLABLE, mode))))


def test_a_refusal_tells_only_of_rules_that_are_enforced():
    rules = policy(modes={"resources.memory": "warn"})
    refused = judged(host={"Memory": 32 * GIB, "Privileged": True}, rules=rules)
    assert denials(refused) == ("privileged",)


def test_a_finding_of_an_enforced_rule_is_enforced_whatever_it_says_of_itself():
    finding = Finding("privileged", "HostConfig.Privileged", "no", tolerable=True)
    assert mode_of(finding, {"privileged": "audit"}) == "enforce"


def test_an_update_is_let_through_alike():
    request = parse_update({"Memory": 32 * GIB, "PidsLimit": 4096})
    rules = policy(modes={"resources.memory": "warn", "resources.pids": "audit"})
    admitted = admit_update(
        request, actor=CLIENT, policy=rules, current=None, host=HostFacts(cpus=8)
    )
    assert admitted.body == {"Memory": 32 * GIB, "MemorySwap": 32 * GIB, "PidsLimit": 4096}
    assert admitted.verdict.decision == "audit-deny"
    assert admitted.verdict.rules[:2] == ("resources.memory", "resources.pids")
    assert [text.partition(":")[2][:18] for text in admitted.warnings] == [" resources.memory:"]
    assert admitted.verdict_for_client.rules == ("resources.memory", "default.swap")
    unlimited = admit_update(
        parse_update({"PidsLimit": -1}), actor=CLIENT, policy=rules, current=None, host=HostFacts()
    )
    assert denials(unlimited) == ("resources.pids",)


def test_a_pull_and_its_preview_are_let_through_alike():
    rules = policy(images={"requireDigest": True}, modes={"image.mutable": "warn"})
    pulled = admit_pull({"fromImage": REFERENCE}, actor=CLIENT, policy=rules)
    assert (pulled.verdict.decision, pulled.verdict.rules) == ("audit-deny", ("image.mutable",))
    assert pulled.query == (("fromImage", REFERENCE.rpartition(":")[0]), ("tag", "1.2.3"))
    action = PullImage(object=Key("Service", "default", "web"), target=REFERENCE, cause="absent")
    assert preview_action(rules, action, None).decision == "audit-deny"
    silent = policy(images={"requireDigest": True}, modes={"image.mutable": "audit"})
    assert preview_action(silent, action, None).decision == "allow"


def test_the_controllers_creates_are_let_through_alike():
    admitted = judged_for_controller(
        host={"Memory": 32 * GIB}, rules=policy(modes={"resources.memory": "warn"})
    )
    assert admitted.verdict.decision == "audit-deny"
    assert admitted.settings is not None
    assert admitted.settings.memory == 32 * GIB


def test_an_images_volumes_and_user_are_let_through_alike():
    facts = replace(FACTS, image=image_of(Volumes=("/data",), User="root"))
    rules = policy(
        security={"requireNonRoot": True},
        modes={"volume.anonymous": "audit", "user.root": "audit"},
    )
    admitted = judged(facts=facts, rules=rules)
    assert admitted.verdict.rules[:2] == ("user.root", "volume.anonymous")


def test_a_mode_for_a_rule_that_is_always_enforced_is_an_error_of_the_policy():
    for rule in ("privileged", "mount.never", "label.reserved", "quota.owner", "nonsense"):
        with pytest.raises(PolicyInvalid) as told:
            load_policy(f"name: a\nmodes: {{{rule}: warn}}\n", "p.yaml")
        text = f"p.yaml:2: modes: {rule!r} is always enforced; a mode may be given to auto-remove,"
        assert told.value.message.startswith(text)
    with pytest.raises(ValidationError):
        policy(modes={"restart": "never"})
