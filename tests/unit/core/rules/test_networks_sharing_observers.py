"""Observers: services with the host's network, processes and files, which can only read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.rules.context import CreateFacts
from controller.core.rules.verdict import AdmissionDecision
from controller.model.host_paths import PathFacts
from controller.model.policy.document import Policy
from tests.unit.core.creates import CONTROLLER as ACTOR
from tests.unit.core.creates import (
    CONTROLLER_LABELS,
    CONTROLLER_NAME,
    FACTS,
    REFERENCE,
    STRICT,
    denials,
    host_of,
    judged,
    policy,
)

UID = 64001
EXCEPTION: dict[str, Any] = {
    "owner": "alice",
    "namespace": "default",
    "service": "web",
    "repository": REFERENCE.rpartition(":")[0],
    "reason": "it exports metrics of the host",
    "expires": "2999-12-31",
    "loosens": {"observer": UID},
}
OPEN = policy(exceptions=[EXCEPTION])
ROOT = PathFacts("/", "dir", device=8, inode=2, protected="state folder", place="/")
SEEN = replace(FACTS, paths={"/": ROOT})
FILES = {"Type": "bind", "Source": "/", "Target": "/host", "ReadOnly": True}


def observing(
    body: dict[str, Any] | None = None,
    *,
    host: dict[str, Any] | None = None,
    rules: Policy = OPEN,
    facts: CreateFacts = SEEN,
) -> AdmissionDecision:
    whole = {
        "Labels": CONTROLLER_LABELS,
        "User": f"{UID}:{UID}",
        "TrimtabShares": {"Host": True, "Network": True, "Pid": True},
        **(body or {}),
    }
    own = {"ReadonlyRootfs": True, "Mounts": [FILES], **(host or {})}
    return judged(whole, host=own, name=CONTROLLER_NAME, actor=ACTOR, rules=rules, facts=facts)


def test_an_observer_has_the_hosts_namespaces_and_files_and_no_rights() -> None:
    admission = observing()
    assert denials(admission) == ()
    host = host_of(admission)
    assert (host["NetworkMode"], host["PidMode"]) == ("host", "host")
    assert host["Mounts"] == [{**FILES, "BindOptions": {"NonRecursive": True}}]
    assert (host["CapDrop"], host.get("CapAdd")) == (["ALL"], None)
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"] is True


def test_nobody_observes_without_the_exception() -> None:
    assert "observer" in denials(observing(rules=STRICT))
    other = {**EXCEPTION, "service": "db"}
    assert "observer" in denials(observing(rules=policy(exceptions=[other])))
    ended = {**EXCEPTION, "expires": "1969-01-01"}
    assert "observer" in denials(observing(rules=policy(exceptions=[ended])))
    image = {**EXCEPTION, "repository": "ghcr.io/platformnetwork/other"}
    assert "observer" in denials(observing(rules=policy(exceptions=[image])))
    files = observing({"TrimtabShares": {}}, host={"NetworkMode": "none"}, rules=STRICT)
    assert denials(files) == ("mount.never",)


def test_a_client_is_no_observer() -> None:
    shares = {"TrimtabShares": {"Host": True, "Pid": True}, "User": f"{UID}:{UID}"}
    assert {"namespace.client", "observer"} <= {*denials(judged(shares, rules=OPEN))}
    for host in ({"NetworkMode": "host"}, {"PidMode": "host"}, {"UTSMode": "host"}):
        assert denials(judged(host=host, rules=OPEN)) != ()


@pytest.mark.parametrize(
    ("body", "host"),
    [
        ({"User": ""}, {}),
        ({"User": "0:0"}, {}),
        ({"User": f"{UID}:0"}, {}),
        ({"User": str(UID + 1)}, {}),
        ({}, {"CapAdd": ["CHOWN"]}),
        ({}, {"GroupAdd": ["4"]}),
        ({}, {"ReadonlyRootfs": False}),
        ({}, {"Mounts": [{**FILES, "ReadOnly": False}]}),
        ({"TrimtabShares": {"Host": True, "Network": True, "Ipc": True}}, {}),
        ({"TrimtabHooks": {"PreStop": [{"Cmd": ["/bin/x"], "TimeoutMs": 1000}]}}, {}),
    ],
)
def test_an_observer_can_change_nothing(body: dict[str, Any], host: dict[str, Any]) -> None:
    rules = policy(exceptions=[EXCEPTION], security={"groupAdd": True})
    assert "observer" in denials(observing(body, host=host, rules=rules))


@pytest.mark.parametrize(
    ("body", "host", "rule"),
    [
        ({}, {"CapAdd": ["NET_ADMIN"]}, "capabilities"),
        ({}, {"SecurityOpt": ["seccomp=unconfined"]}, "security-opt"),
        ({}, {"Privileged": True}, "privileged"),
        ({}, {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}, "namespace.own"),
        ({}, {"Mounts": [{**FILES, "Source": "/run/docker.sock"}]}, "mount.never"),
        ({}, {"Mounts": [{**FILES, "Source": "/var/lib/trimtab"}]}, "mount.never"),
        ({}, {"Mounts": [{**FILES, "Source": "/etc/shadow"}]}, "mount.forbidden"),
        (
            {},
            {"Mounts": [{**FILES, "BindOptions": {"Propagation": "rshared"}}]},
            "mount.propagation",
        ),
    ],
)
def test_an_exception_as_observer_brings_nothing_else(
    body: dict[str, Any], host: dict[str, Any], rule: str
) -> None:
    facts = replace(SEEN, paths={**SEEN.paths, "/etc/shadow": PathFacts("/etc/shadow", "file")})
    assert rule in denials(observing(body, host=host, facts=facts))


def test_the_uid_is_nobody_elses() -> None:
    taken = replace(SEEN, uid_user="the account postgres in /etc/passwd")
    assert denials(observing(facts=taken)) == ("observer",)


def test_no_sidecar_joins_an_observer() -> None:
    labels = {**CONTROLLER_LABELS, "io.trimtab.service": "spy"}
    body = {"Labels": labels, "TrimtabShares": {"Service": "web", "Network": True}}
    rules = policy(exceptions=[EXCEPTION], security={"sharedNamespaces": ["network", "pid"]})
    admission = judged(body, name="spy.1-01234567", actor=ACTOR, rules=rules, facts=SEEN)
    assert "namespace.service" in denials(admission)


@pytest.mark.parametrize(
    "changes",
    [
        {"operators": [UID]},
        {"containerPeers": [UID]},
        {"clients": [{"uid": UID, "owner": "alice"}]},
        {"exceptions": [{**EXCEPTION, "for": "clients"}]},
        {"exceptions": [{**EXCEPTION, "loosens": {"observer": 0}}]},
        {"owners": [{"name": "alice", "uids": [UID]}]},
    ],
)
def test_the_gate_knows_no_observer_by_its_uid(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="observer"):
        policy(**{"exceptions": [EXCEPTION], **changes})
