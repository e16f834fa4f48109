"""Remedies with the line of the policy: each suggested change admits the denied request."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import controller
from controller.core.admission.calls import (
    admit_exec,
    admit_exec_of_client,
    admit_pull,
    admit_update,
)
from controller.core.admission.networks_volumes import admit_network
from controller.core.engine_api.parse import parse_update
from controller.core.engine_api.requests import ExecRequest, Grant, NetworkRequest
from controller.core.policy.grants import ADVISED_MAX, apply_grant, grant_of, with_grants
from controller.core.policy.text import load_policy
from controller.core.rules.context import CreateFacts, HostFacts, QuotaCounts
from controller.core.rules.identity import judge_owner
from controller.core.rules.verdict import AdmissionDecision
from controller.model.policy.document import Policy, PolicyOrigin
from controller.model.records import Actor, Role
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    FACTS,
    OPERATOR,
    STAMP,
    judged,
    policy,
)
from tests.unit.core.rules.test_container_devices import (
    CARD,
    HOOKED,
    OWNERS,
    by_name,
    by_path,
    digest_of,
    node,
    seen,
    specified,
)


@dataclass(frozen=True)
class Refused:
    """A create denied by exactly one rule, and the change of the policy to admit it."""

    rule: str
    grant: Grant
    body: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    facts: CreateFacts = FACTS
    name: str = "alice-web"
    platform: str = ""

    def judge(self, rules: Policy, actor: Actor = CLIENT) -> AdmissionDecision:
        return judged(
            self.body,
            host=self.host,
            name=self.name,
            rules=rules,
            facts=self.facts,
            platform=self.platform,
            actor=actor,
        )


def ports(*bound: tuple[str, str]) -> dict[str, Any]:
    bindings = {f"{n}/tcp": [{"HostIp": a, "HostPort": p}] for n, (a, p) in enumerate(bound, 80)}
    return {"PortBindings": bindings}


def check(**members: Any) -> dict[str, Any]:
    return {"Healthcheck": {"Test": ["CMD", "/check"], **members}}


OTHER = {"name": "bob", "namespaces": ["default"]}
LISTED = {"name": "alice", "namespaces": ["team"], "sources": ["/srv/alice/"], "quota": 1}
LIMITS = {"memory": {"default": "64Mi", "max": "64Mi"}, "tmpfs": {"default": "1Mi", "max": "1Mi"}}
SECOND = 1_000_000_000


def granted(device: str) -> dict[str, Any]:
    """Return the sections of a policy with one grant."""
    grant = {"owner": "alice", "namespace": "default", "devices": [device]}
    return {"owners": OWNERS, "devices": {"grants": [grant]}}


CREATES = (
    Refused(
        "image.not-allowed", Grant("add", "images.allow", "docker.io/library/"), {"Image": "nginx"}
    ),
    Refused(
        "image.mutable",
        Grant("set", "images.requireDigest", False),
        sections={"images": {"requireDigest": True}},
    ),
    Refused(
        "image.platform",
        Grant("add", "images.platforms", "linux/arm64"),
        platform="linux/arm64",
    ),
    Refused(
        "volume.anonymous",
        Grant("set", "images.anonymousVolumes", "slot"),
        {"Volumes": {"/data": {}}},
    ),
    Refused(
        "capabilities",
        Grant("add", "capabilities.allowed", "NET_ADMIN"),
        host={"CapAdd": ["CHOWN", "cap_net_admin"]},
    ),
    Refused("runtime", Grant("add", "security.runtimes", "kata"), host={"Runtime": "kata"}),
    Refused(
        "user.root",
        Grant("set", "security.requireNonRoot", False),
        sections={"security": {"requireNonRoot": True}},
    ),
    Refused(
        "root-filesystem",
        Grant("set", "security.requireReadOnlyRoot", False),
        sections={"security": {"requireReadOnlyRoot": True}},
    ),
    Refused(
        "resources.memory",
        Grant("set", "resources.memory.max", "16Gi"),
        host={"Memory": 16 << 30},
    ),
    Refused(
        "resources.cpus", Grant("set", "resources.cpus.max", "5.5"), host={"NanoCpus": 55 * 10**8}
    ),
    Refused(
        "resources.cpus",
        Grant("set", "resources.cpus.max", "6"),
        host={"CpuQuota": 600_000, "CpuPeriod": 100_000},
    ),
    Refused("resources.pids", Grant("set", "resources.pids.max", 4000), host={"PidsLimit": 4000}),
    Refused(
        "resources.oom",
        Grant("set", "resources.oomScoreAdjMin", -500),
        host={"OomScoreAdj": -500},
    ),
    Refused("resources.shm", Grant("set", "resources.shmMax", "1Gi"), host={"ShmSize": 1 << 30}),
    Refused(
        "resources.ulimits",
        Grant("set", "resources.ulimits.nofile", 100_000),
        host={"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 100_000}]},
    ),
    Refused(
        "resources.ulimits",
        Grant("set", "resources.ulimits.memlock", 1024),
        host={"Ulimits": [{"Name": "memlock", "Soft": 1024, "Hard": 1024}]},
    ),
    Refused(
        "sysctls",
        Grant("add", "security.sysctls", "net.core.somaxconn"),
        host={"Sysctls": {"net.core.somaxconn": "1024"}},
    ),
    Refused(
        "mount.tmpfs", Grant("set", "resources.tmpfs.max", "1Gi"), host={"Tmpfs": {"/x": "size=1g"}}
    ),
    Refused(
        "mount.count",
        Grant("set", "mounts.max", 2),
        host={"Tmpfs": {"/x": "", "/y": ""}},
        sections={"mounts": {"max": 1}},
    ),
    Refused(
        "mount.not-allowed",
        Grant("add", "mounts.allowed", "/opt/data"),
        host={"Binds": ["/opt/data:/data:ro"]},
    ),
    Refused(
        "mount.not-allowed",
        Grant("add", "owners.0.sources", "/opt/data"),
        host={"Binds": ["/opt/data:/data:ro"]},
        sections={"owners": [{**LISTED, "namespaces": ["default"]}]},
    ),
    Refused(
        "network.mode",
        Grant("add", "networks.modes", "bridge"),
        host={"NetworkMode": "bridge"},
        sections={"networks": {"modes": ["none", "isolated"]}},
    ),
    Refused(
        "network.alias",
        Grant("add", "networks.aliases", "db"),
        {"NetworkingConfig": {"EndpointsConfig": {"platform-network": {"Aliases": ["db"]}}}},
        host={"NetworkMode": "platform-network"},
    ),
    Refused(
        "network.alias",
        Grant("set", "networks.clientAliases", True),
        {"NetworkingConfig": {"EndpointsConfig": {"alice-net": {"Aliases": ["db"]}}}},
        host={"NetworkMode": "alice-net"},
    ),
    Refused(
        "network.hosts",
        Grant("add", "networks.extraHosts", "addresses"),
        host={"ExtraHosts": ["a:192.0.2.1"]},
    ),
    Refused(
        "network.hosts",
        Grant("add", "networks.extraHosts", "host-gateway"),
        host={"ExtraHosts": ["a:host-gateway"]},
        sections={"networks": {"extraHosts": ["addresses"]}},
    ),
    Refused(
        "network.address",
        Grant("set", "networks.staticAddresses", True),
        body={
            "NetworkingConfig": {
                "EndpointsConfig": {"alice-net": {"IPAMConfig": {"IPv4Address": "10.9.0.9"}}}
            }
        },
        host={"NetworkMode": "alice-net"},
    ),
    Refused(
        "network.dns",
        Grant("add", "networks.dns.servers", "9.9.9.9/32"),
        host={"Dns": ["9.9.9.9"]},
    ),
    Refused(
        "network.dns", Grant("set", "networks.dns.search", True), host={"DnsSearch": ["a.example"]}
    ),
    Refused(
        "network.dns", Grant("set", "networks.dns.options", True), host={"DnsOptions": ["rotate"]}
    ),
    Refused(
        "port.invalid",
        Grant("set", "networks.ports.ranges", True),
        host=ports(("", "18000-18002")),
    ),
    Refused(
        "mount.options",
        Grant("set", "resources.tmpfs.exec", True),
        host={"Tmpfs": {"/run": "exec"}},
    ),
    Refused("resources.cpuset", Grant("set", "resources.cpuset", True), host={"CpusetCpus": "0"}),
    Refused("user.groups", Grant("set", "security.groupAdd", True), host={"GroupAdd": ["5"]}),
    Refused("host.name", Grant("set", "names.underscores", True), {"Hostname": "my_app"}),
    Refused(
        "port.privileged",
        Grant("add", "networks.ports.granted", 443),
        host=ports(("", "8080"), ("", "443")),
    ),
    Refused(
        "port.reserved", Grant("add", "networks.ports.granted", 2375), host=ports(("", "2375"))
    ),
    Refused(
        "port.address",
        Grant("add", "networks.ports.hostIPs", "0.0.0.0"),
        host=ports(("0.0.0.0", "8080")),
    ),
    Refused(
        "port.count",
        Grant("set", "networks.ports.max", 2),
        host=ports(("", "8080"), ("", "8081")),
        sections={"networks": {"ports": {"max": 1}}},
    ),
    Refused(
        "restart",
        Grant("add", "restart.policies", "always"),
        host={"RestartPolicy": {"Name": "always"}},
        sections={"restart": {"policies": ["no"]}},
    ),
    Refused(
        "restart",
        Grant("set", "restart.maxRetries", 50),
        host={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 50}},
    ),
    Refused(
        "auto-remove",
        Grant("set", "autoRemove", True),
        host={"AutoRemove": True},
        sections={"autoRemove": False},
    ),
    Refused(
        "healthcheck.bounds",
        Grant("set", "healthcheck.minInterval", "500ms"),
        check(Interval=SECOND // 2),
    ),
    Refused(
        "healthcheck.bounds",
        Grant("set", "healthcheck.maxStartPeriod", "2h"),
        check(StartPeriod=7200 * SECOND),
    ),
    Refused("healthcheck.bounds", Grant("set", "healthcheck.maxRetries", 40), check(Retries=40)),
    Refused(
        "healthcheck.shell",
        Grant("set", "healthcheck.shell", True),
        {"Healthcheck": {"Test": ["CMD-SHELL", "true"]}},
        sections={"healthcheck": {"shell": False}},
    ),
    Refused(
        "log.driver",
        Grant("add", "logs.drivers", "local"),
        host={"LogConfig": {"Type": "local"}},
        sections={"logs": {"drivers": ["json-file"]}},
    ),
    Refused(
        "log.option",
        Grant("set", "logs.maxSize", "200Mi"),
        host={"LogConfig": {"Config": {"max-size": "200m", "max-file": "1"}}},
    ),
    Refused(
        "log.option",
        Grant("set", "logs.maxFiles", 20),
        host={"LogConfig": {"Config": {"max-size": "1m", "max-file": "20"}}},
    ),
    Refused(
        "env.size",
        Grant("set", "env.max", 2),
        {"Env": ["A=1", "B=2"]},
        sections={"env": {"max": 1}},
    ),
    Refused(
        "env.size",
        Grant("set", "env.maxBytes", "2Ki"),
        {"Env": [f"A={'x' * 1500}"]},
        sections={"env": {"maxBytes": "1Ki"}},
    ),
    Refused(
        "env.denied", Grant("remove", "env.denied", "LD_AUDIT"), {"Env": ["A=1", "LD_AUDIT=/x"]}
    ),
    Refused("env.invalid", Grant("set", "env.unset", True), {"Env": ["MAYBE"]}),
    Refused(
        "label.denied",
        Grant("remove", "labels.deniedPrefixes", "traefik."),
        {"Labels": {"Traefik.enable": "true"}},
    ),
    Refused(
        "label.size",
        Grant("set", "labels.max", 2),
        {"Labels": {"a": "1", "b": "2"}},
        sections={"labels": {"max": 1}},
    ),
    Refused(
        "owner.unknown",
        Grant("add", "owners", {"name": "alice", "namespaces": ["default"]}),
        sections={"owners": [OTHER]},
    ),
    Refused(
        "quota.service",
        Grant("set", "quotas.perService", 101),
        {"Labels": {"io.trimtab.service": "web"}},
        facts=replace(FACTS, service_count=100),
    ),
    Refused(
        "quota.owner", Grant("set", "quotas.perOwner", 201), facts=replace(FACTS, owner_count=200)
    ),
    Refused(
        "quota.owner",
        Grant("set", "owners.0.quota", 2),
        sections={"owners": [{**LISTED, "namespaces": ["default"]}]},
        facts=replace(FACTS, owner_count=1),
    ),
    Refused(
        "label.size",
        Grant("set", "labels.clientMaxBytes", "20Ki"),
        {"Labels": {f"a{n}": "x" * 4000 for n in range(5)}},
    ),
    Refused(
        "quota.volumes",
        Grant("set", "quotas.volumesPerOwner", 501),
        facts=replace(FACTS, counts=QuotaCounts(volumes=500), new_volumes=1),
    ),
    Refused(
        "quota.volumes",
        Grant("set", "owners.0.volumes", 3),
        sections={"owners": [{**LISTED, "namespaces": ["default"], "volumes": 2}]},
        facts=replace(FACTS, counts=QuotaCounts(volumes=2), new_volumes=1),
    ),
    Refused(
        "quota.all-containers",
        Grant("set", "quotas.clients.containers", 1001),
        facts=replace(FACTS, counts=QuotaCounts(all_containers=1000)),
    ),
    Refused(
        "quota.all-volumes",
        Grant("set", "quotas.clients.volumes", 1001),
        facts=replace(FACTS, counts=QuotaCounts(all_volumes=1000), new_volumes=1),
    ),
    Refused(
        "quota.all-networks",
        Grant("set", "quotas.clients.networks", 21),
        facts=replace(FACTS, counts=QuotaCounts(all_networks=20), new_networks=1),
    ),
    Refused(
        "quota.ports",
        Grant("set", "quotas.portsPerOwner", 251),
        {"HostConfig": {"PortBindings": {"80/tcp": [{}]}}},
        facts=replace(FACTS, counts=QuotaCounts(ports=250)),
    ),
    Refused(
        "quota.all-ports",
        Grant("set", "quotas.clients.ports", 251),
        {"HostConfig": {"PortBindings": {"80/tcp": [{}]}}},
        facts=replace(FACTS, counts=QuotaCounts(all_ports=250)),
    ),
    Refused("name.invalid", Grant("set", "names.max", 70), name="n" * 70),
    Refused(
        "devices",
        Grant(
            "add",
            "devices.grants",
            {"owner": "alice", "namespace": "default", "devices": ["/dev/fuse"]},
        ),
        host=by_path(),
        sections={"owners": OWNERS},
        facts=seen(node()),
    ),
    Refused(
        "devices",
        Grant("add", "devices.grants.0.devices", "/dev/fuse"),
        host=by_path(),
        sections=granted("/dev/kvm"),
        facts=seen(node()),
    ),
    Refused(
        "device.edits",
        Grant("add", "devices.grants.0.specifications", digest_of(HOOKED)),
        host=by_name(CARD),
        sections=granted(CARD),
        facts=specified(HOOKED),
    ),
)


@pytest.mark.parametrize("case", CREATES, ids=lambda case: f"{case.rule}-{case.grant.key}")
def test_the_line_that_is_named_admits_what_was_refused(case: Refused) -> None:
    rules = policy(**case.sections)
    (finding,) = [f for f in case.judge(rules).findings if f.rule == case.rule]
    assert grant_of(finding, rules) == case.grant
    loosened = apply_grant(rules, case.grant)
    assert loosened is not None
    after = case.judge(loosened).findings
    assert (finding.rule, finding.path) not in [(f.rule, f.path) for f in after]


UPDATE = parse_update({"Memory": 16 << 30})
NETWORK = NetworkRequest(name="n", ipv6=True)
ELSEWHERE: tuple[tuple[str, Grant, Any], ...] = (
    (
        "image.not-allowed",
        Grant("add", "images.allow", "quay.io/team/"),
        lambda p: admit_pull(
            {"fromImage": "quay.io/team/app", "tag": "1"}, actor=OPERATOR, policy=p
        ),
    ),
    (
        "resources.memory",
        Grant("set", "resources.memory.max", "16Gi"),
        lambda p: admit_update(UPDATE, actor=OPERATOR, policy=p, current=None, host=HostFacts()),
    ),
    (
        "network.ipv6",
        Grant("set", "networks.ipv6", True),
        lambda p: admit_network(NETWORK, actor=OPERATOR, policy=p, existing=None, stamp=STAMP),
    ),
    (
        "quota.networks",
        Grant("set", "quotas.networksPerOwner", 21),
        lambda p: admit_network(
            NetworkRequest(name="n", internal=True),
            actor=OPERATOR,
            policy=p,
            existing=None,
            stamp=STAMP,
            counts=QuotaCounts(networks=20),
        ),
    ),
    (
        "exec.client",
        Grant("set", "exec.clients", True),
        admit_exec_of_client,
    ),
    (
        "exec.disabled",
        Grant("set", "exec.enabled", True),
        lambda p: admit_exec(ExecRequest(("sh",)), policy=p, container_user=""),
    ),
    (
        "exec.root",
        Grant("set", "exec.root", True),
        lambda p: admit_exec(ExecRequest(("sh",), user="0"), policy=p, container_user="1"),
    ),
)


@pytest.mark.parametrize(("rule", "grant", "judge"), ELSEWHERE, ids=[each[0] for each in ELSEWHERE])
def test_so_does_one_that_other_calls_name(rule: str, grant: Grant, judge: Any) -> None:
    enabled = rule != "exec.disabled"
    rules = policy(exec={"enabled": enabled}).read_from(PolicyOrigin("/etc/p.yaml"))
    refused = judge(rules)
    assert rule in refused.verdict.rules
    key = grant.key if grant.how == "set" else f"write {grant.key}: "
    assert key in refused.verdict.remedy
    assert "/etc/p.yaml" in refused.verdict.remedy
    loosened = apply_grant(rules, grant)
    assert loosened is not None
    assert rule not in judge(loosened).verdict.rules


def _permitted(path: Path) -> Iterator[str]:
    """Yield the rules whose findings in a module name a change of the policy."""
    for call in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Finding":
            named = len(call.args) > 5 or any(each.arg == "permit" for each in call.keywords)
            if named and isinstance(call.args[0], ast.Constant):
                yield str(call.args[0].value)


def test_each_rule_that_names_a_line_is_tried() -> None:
    rooms = (Path(controller.__file__).parent / "core" / room for room in ("rules", "admission"))
    named = {rule for room in rooms for path in room.rglob("*.py") for rule in _permitted(path)}
    tried = {case.rule for case in CREATES} | {rule for rule, _, _ in ELSEWHERE}
    # Two are about the controller's own networks and owners, one about the broker's create: see below.
    below = {"network.internal", "owner.namespace", "volume.missing"}
    # Clients share no namespaces: see test_sharing.py among the rules; volumes: test_remote_volumes.py.
    assert named - tried == {*below, "namespace.shared", "volume.remote"}


def test_a_volume_that_is_absent_is_the_clients_to_have_made() -> None:
    bind, create = {"Binds": ["fresh:/data"]}, Grant("set", "mounts.createVolumes", True)
    (finding,) = judged({}, host=bind, facts=replace(FACTS, volumes={})).findings
    assert (finding.rule, grant_of(finding, policy())) == ("volume.missing", create)
    assert grant_of(finding, policy(mounts={"createVolumes": True})) is None
    labels = {"Labels": {"io.trimtab.revision": "v2:0"}}
    of_slot = judged(labels, host=bind, facts=replace(FACTS, volumes={}), actor=CONTROLLER)
    assert [f.permit for f in of_slot.findings if f.rule == "volume.missing"] == [None]


def test_the_controllers_networks_and_namespaces() -> None:
    internal = policy(networks={"modes": ["none", "isolated"]}).read_from(PolicyOrigin("/p.yaml"))
    labels = (("io.trimtab.owner", "a"), ("io.trimtab.namespace", "default"))
    opened = NetworkRequest(name="n", labels=labels)
    refused = admit_network(opened, actor=CONTROLLER, policy=internal, existing=None, stamp=STAMP)
    assert refused.verdict.rules[0] == "network.internal"
    assert (
        'write networks.modes: ["none", "isolated", "bridge"] in /p.yaml' in refused.verdict.remedy
    )
    listed = policy(owners=[LISTED]).read_from(PolicyOrigin("/p.yaml", {"owners.0.namespaces": 9}))
    shown = judged(actor=CLIENT, rules=listed).findings
    assert not [f for f in shown if f.rule == "owner.namespace"], "a client is in its own"
    (finding,) = with_grants(judge_owner(listed, Role.CONTROLLER, "alice", "shop"), listed)
    assert (
        finding.grant
        == "add shop to owners.0.namespaces in /p.yaml (line 9), then trimtab policy reload"
    )


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True},
        {"PidMode": "host"},
        {"Binds": ["/var/run/docker.sock:/s"]},
        {"Devices": [{"PathOnHost": "/dev/sda"}]},
        {"Sysctls": {"a": "1"}},
        {"CapAdd": ["ALL"]},
        {"Memory": 1},
        {"NetworkMode": "host"},
        {"NetworkMode": "container:x"},
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"LogConfig": {"Type": "gcplogs"}},
        {"RestartPolicy": {"Name": "sometimes"}},
        {"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": -1}]},
    ],
    ids=str,
)
def test_nothing_is_named_that_no_policy_grants(host: dict[str, Any]) -> None:
    rules = policy().read_from(PolicyOrigin("/etc/p.yaml"))
    refused = judged(host=host, rules=rules, actor=OPERATOR)
    assert refused.verdict.decision == "deny"
    assert "/etc/p.yaml" not in refused.verdict.remedy
    assert not any(finding.grant for finding in refused.findings)


# Sentences

TEXT = """\
name: mine
images:
  allow:
    - docker.io/library/redis   # one repository
resources: {memory: {max: 4Gi}}
"""


def remedy(
    rules: Policy,
    *,
    host: dict[str, Any] | None = None,
    image: str = "nginx",
    actor: Actor = OPERATOR,
) -> str:
    return judged({"Image": image}, host=host, rules=rules, actor=actor).verdict.remedy


def test_the_file_and_the_line_are_named() -> None:
    mine = load_policy(TEXT, "/etc/trimtab/mine.yaml")
    assert remedy(mine) == (
        'use an image under one of them; or add "docker.io/library/" to images.allow in '
        "/etc/trimtab/mine.yaml (line 3), then trimtab policy reload"
    )
    redis = "docker.io/library/redis"
    assert remedy(mine, host={"Memory": 8 << 30}, image=redis).endswith(
        "or set resources.memory.max to 8Gi in /etc/trimtab/mine.yaml (line 5), "
        "then trimtab policy reload"
    )


def test_a_list_that_the_file_does_not_write_is_written_out_with_its_defaults() -> None:
    mine = load_policy(TEXT, "mine.yaml")
    sentence = remedy(mine, host={"CapAdd": ["KILL"]}, image="redis")
    assert sentence.endswith(
        'or write capabilities.allowed: ["CHOWN", "SETUID", "SETGID", "KILL"] in mine.yaml, '
        "then trimtab policy reload"
    )


def test_a_shipped_policy_is_not_to_be_edited() -> None:
    home = policy(images={"allow": ["docker.io/"]})
    shipped = policy().read_from(PolicyOrigin("/x/strict.yaml", shipped=True, home=home))
    own = "in a policy of your own (trimtab policy init)"
    assert remedy(shipped).endswith(f"images.allow {own}, or start with --policy home")
    # The policy home also denies this request.
    assert remedy(shipped, image="quay.io/a/b").endswith(f'"quay.io/a/" to images.allow {own}')


def test_a_client_is_not_told_where_the_policy_lies() -> None:
    mine = load_policy(TEXT, "/etc/trimtab/mine.yaml")
    sentence = remedy(mine, actor=CLIENT)
    assert sentence.endswith(
        'or ask root to add "docker.io/library/" to images.allow in the policy'
    )
    assert "/etc" not in sentence


def test_a_policy_without_a_file_names_no_line() -> None:
    assert remedy(policy()) == "use an image under one of them"


def test_where_a_policy_was_read_from_is_no_part_of_its_value() -> None:
    mine = load_policy(TEXT, "/etc/trimtab/mine.yaml")
    plain = Policy.from_json(mine.to_json())
    assert (plain, plain.digest, plain.origin) == (mine, mine.digest, None)
    assert mine.model_copy(update={"auto_remove": False}).origin == mine.origin


def test_what_is_named_for_many_findings_is_bounded() -> None:
    mine = policy().read_from(PolicyOrigin("p.yaml"))
    names = [f"CAP_{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(ADVISED_MAX + 5)]
    refused = judged(host={"CapAdd": names}, rules=mine, actor=OPERATOR)
    assert sum(bool(finding.grant) for finding in refused.findings) == ADVISED_MAX
