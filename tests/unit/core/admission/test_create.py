"""What the policy says of a create: the container itself."""

from dataclasses import replace
from typing import Any

import pytest

from controller.core.admission.create import CREATE_RULES, needs
from controller.core.engine_api.parse import parse_create
from controller.core.rules.context import HostFacts, Needs, QuotaCounts, VolumeFacts
from controller.model import names
from controller.model.inventory import PinnedImage, TrustedImage
from controller.model.observed import Settings
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    CONTROLLER_LABELS,
    CONTROLLER_NAME,
    FACTS,
    GIB,
    IMAGE,
    OPERATOR,
    REFERENCE,
    REVISION,
    STRICT,
    denials,
    host_of,
    image_of,
    judged,
    judged_for_controller,
    policy,
)

HARDENED = {
    "NetworkMode": "platform-network",
    "Memory": 2 * GIB,
    "MemorySwap": 2 * GIB,
    "NanoCpus": 10**9,
    "PidsLimit": 256,
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges:true"],
    "LogConfig": {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10485760"}},
}
OWN_LABELS = {
    names.MANAGED: "true",
    names.INSTANCE: "i1",
    names.INTENT: "01890000-0000-7000-8000-00000000abcd",
    names.ORIGIN: "client",
    names.OWNER: "alice",
    names.SERVICE: "",
    names.NAMESPACE: "",
    names.SLOT: "",
    names.REVISION: "",
    names.IMAGE: "",
}


def test_a_create_that_asks_for_nothing_gets_every_default():
    admission = judged()
    assert admission.body == {
        "User": "0:0",
        "Image": IMAGE.id,
        "Labels": dict(sorted(OWN_LABELS.items())),
        "HostConfig": HARDENED,
        "NetworkingConfig": {"EndpointsConfig": {"platform-network": {}}},
    }
    assert admission.verdict.decision == "mutate"
    assert admission.verdict.rules == (
        "image.pinned",
        "default.memory",
        "default.swap",
        "default.cpus",
        "default.pids",
        "hardening.capabilities",
        "hardening.privileges",
        "default.logs",
        "network.mode",
    )
    assert admission.query == (("name", "alice-web"),)
    assert admission.settings == Settings(
        name="alice-web",
        memory=2 * GIB,
        memory_swap=2 * GIB,
        nano_cpus=10**9,
        pids=256,
        networks=("platform-network",),
    )


def test_the_summary_has_what_the_inventory_needs_and_no_values():
    admission = judged(
        {
            "Env": ["PASSWORD=hunter2", "A=b"],
            "Cmd": ["--token", "hunter2"],
            "Labels": {"note": "hunter2"},
            "Healthcheck": {"Test": ["CMD", "/check"]},
        },
        host={"CapAdd": ["CHOWN"], "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
    )
    assert admission.summary == {
        "name": "alice-web",
        "image": REFERENCE,
        "imageId": IMAGE.id,
        "digest": IMAGE.digest,
        "labels": dict(sorted(OWN_LABELS.items())),
        "answersTo": [],
        "env": ["PASSWORD", "A"],
        "mounts": [],
        "caps": ["CHOWN"],
        "ports": ["127.0.0.1:8080:80/tcp"],
        "healthcheck": ["CMD"],
        "exceptions": [],
        "confined": {"capabilities": ["CHOWN"], "user": "0:0"},
    }


def test_what_was_asked_for_is_kept_field_by_field():
    asked = {
        "Hostname": "h",
        "Domainname": "example.org",
        "User": "1000:1000",
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": True,
        "OpenStdin": True,
        "Env": ["A=b"],
        "Cmd": ["x"],
        "Entrypoint": ["/x"],
        "Healthcheck": {"Test": ["CMD", "/c"], "Interval": 10**9, "Retries": 2},
        "WorkingDir": "/app",
        "StopSignal": "SIGINT",
        "StopTimeout": 5,
    }
    host = {
        "Memory": GIB,
        "MemorySwap": GIB,
        "MemoryReservation": GIB // 2,
        "NanoCpus": 500_000_000,
        "CpuShares": 512,
        "PidsLimit": 100,
        "CapAdd": ["CHOWN"],
        "Init": True,
        "ReadonlyRootfs": True,
        "AutoRemove": True,
        "ShmSize": 64 * 1024**2,
        "OomScoreAdj": 10,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Runtime": "runc",
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}},
        "ConsoleSize": [24, 80],
    }
    admission = judged(asked, host=host)
    assert admission.body is not None
    assert {key: admission.body[key] for key in asked} == asked
    assert {key: host_of(admission)[key] for key in host} == host


def test_the_rebuilt_body_shares_no_object_with_the_clients():
    labels, env, aliases = {"a": "b"}, ["A=b"], ["x"]
    admission = judged({"Labels": labels, "Env": env}, name="x")
    judged({"NetworkingConfig": {"EndpointsConfig": {"default": {"Aliases": aliases}}}})
    before = repr(admission.body)
    labels["io.trimtab.owner"] = "bob"
    env.append("LD_PRELOAD=/x")
    assert repr(admission.body) == before


def test_every_denial_is_told_and_the_first_rule_leads():
    admission = judged(
        {"Image": "alpine", "Env": ["LD_PRELOAD=/x"]},
        host={"CapAdd": ["SYS_ADMIN"], "Memory": 1},
    )
    assert admission.verdict.rules == (
        "image.not-allowed",
        "capabilities",
        "resources.memory",
        "env.denied",
    )
    assert admission.verdict.reason.startswith(
        'Image: "alpine" (docker.io/library/alpine:latest) is not under an admitted prefix'
    )
    assert "capabilities at HostConfig.CapAdd[0]" in admission.verdict.reason
    assert admission.verdict.remedy == "use an image under one of them"
    assert not admission.malformed


def test_what_isnt_a_create_at_all_is_malformed():
    assert judged({"hostconfig": {}}).malformed
    assert not judged(host={"Privileged": True}).malformed


def test_each_rule_says_why_it_is_there():
    assert all(rule.__doc__ for rule in CREATE_RULES)
    assert len(set(CREATE_RULES)) == len(CREATE_RULES)


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ({"Privileged": True}, "privileged"),
        ({"Privileged": True, "CapDrop": ["ALL"]}, "privileged"),
        ({"CapAdd": ["ALL"]}, "capabilities"),
        ({"CapAdd": ["all"], "CapDrop": ["ALL"]}, "capabilities"),
        ({"CapAdd": "SYS_ADMIN"}, "capabilities"),
        ({"CapAdd": ["cap_sys_admin"]}, "capabilities"),
        ({"CapAdd": [""]}, "capabilities"),
        ({"CapAdd": ["NET_BIND_SERVICE"]}, "capabilities"),
        ({"CapAdd": ["\u017fETUID"]}, "capabilities"),
        ({"SecurityOpt": ["seccomp=unconfined"]}, "security-opt"),
        ({"SecurityOpt": ["seccomp:unconfined"]}, "security-opt"),
        ({"SecurityOpt": ["no-new-privileges:true", "no-new-privileges:false"]}, "security-opt"),
        ({"SecurityOpt": ["no-new-privileges=0"]}, "security-opt"),
        ({"SecurityOpt": [""]}, "security-opt"),
        ({"IpcMode": "host"}, "namespace.ipc"),
        ({"IpcMode": "shareable"}, "namespace.ipc"),
        ({"IpcMode": "container:x"}, "namespace.ipc"),
        ({"CgroupnsMode": "host"}, "namespace.cgroup"),
        ({"CgroupParent": "/../../x"}, "namespace.cgroup"),
        ({"PidMode": "host"}, "namespace.pid"),
        ({"UTSMode": "host"}, "namespace.uts"),
        ({"UsernsMode": "HOST"}, "namespace.user"),
        ({"Runtime": "kata"}, "runtime"),
        ({"Runtime": "io.containerd.runc.v2"}, "runtime"),
        ({"Isolation": "hyperv"}, "resources.windows"),
        ({"OomScoreAdj": -1}, "resources.oom"),
        ({"OomScoreAdj": 1001}, "resources.oom"),
        ({"Memory": 8 * GIB + 1}, "resources.memory"),
        ({"Memory": 4096}, "resources.memory"),
        ({"Memory": -1}, "resources.memory"),
        ({"Memory": 2**63 - 1}, "resources.memory"),
        ({"MemorySwap": -1}, "resources.swap"),
        ({"Memory": GIB, "MemorySwap": 2 * GIB}, "resources.swap"),
        ({"MemorySwap": GIB}, "resources.swap"),
        ({"MemorySwappiness": 101}, "resources.swap"),
        ({"Memory": GIB, "MemoryReservation": GIB + 1}, "resources.memory"),
        ({"MemoryReservation": -1}, "resources.memory"),
        # The engine refuses less; then the refusal would have no rule.
        ({"MemoryReservation": 6 * 1024**2 - 1}, "resources.memory"),
        ({"NanoCpus": 4 * 10**9 + 1}, "resources.cpus"),
        ({"NanoCpus": -1}, "resources.cpus"),
        # The engine makes a quota of 0 of the first, which is no limit.
        ({"NanoCpus": 1}, "resources.cpus"),
        ({"NanoCpus": 10**7 - 1}, "resources.cpus"),
        ({"NanoCpus": 10**9, "CpuQuota": 50_000}, "resources.cpus"),
        ({"CpuQuota": -1}, "resources.cpus"),
        ({"CpuQuota": 800_000, "CpuPeriod": 100_000}, "resources.cpus"),
        ({"CpuQuota": 1_000_000, "CpuPeriod": 1_000}, "resources.cpus"),
        ({"CpuQuota": 400_001}, "resources.cpus"),
        ({"CpuQuota": 5_000, "CpuPeriod": 999}, "resources.cpus"),
        ({"CpuPeriod": 50_000}, "resources.cpus"),
        ({"CpuShares": 4097}, "resources.shares"),
        ({"CpuShares": -1}, "resources.shares"),
        ({"CpusetCpus": "0"}, "resources.cpuset"),
        ({"PidsLimit": 513}, "resources.pids"),
        ({"PidsLimit": -1}, "resources.pids"),
        ({"ShmSize": 256 * 1024**2 + 1}, "resources.shm"),
        ({"ShmSize": 65 * 1024**2, "Memory": 64 * 1024**2}, "resources.shm"),
        ({"ShmSize": -1}, "resources.shm"),
        ({"Ulimits": [{"Name": "memlock", "Soft": -1, "Hard": -1}]}, "resources.ulimits"),
        ({"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": -1}]}, "resources.ulimits"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 4}]}, "resources.ulimits"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 65537}]}, "resources.ulimits"),
        ({"StorageOpt": {"size": "1G"}}, "resources.disk"),
        ({"RestartPolicy": {"Name": "Always"}}, "restart"),
        ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 11}}, "restart"),
        ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}}, "restart"),
        ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}}, "restart"),
        ({"AutoRemove": True, "RestartPolicy": {"Name": "always"}}, "auto-remove"),
        ({"LogConfig": {"Type": "syslog"}}, "log.driver"),
        ({"LogConfig": {"Type": "none"}}, "log.driver"),
        ({"LogConfig": {"Type": "JSON-FILE"}}, "log.driver"),
        ({"LogConfig": {"Type": "json-file", "Config": {"max-size": "100g"}}}, "log.option"),
        ({"LogConfig": {"Config": {"max-size": "-1"}}}, "log.option"),
        ({"LogConfig": {"Config": {"max-file": "0"}}}, "log.option"),
        ({"LogConfig": {"Config": {"max-file": "11"}}}, "log.option"),
        ({"LogConfig": {"Config": {"tag": "sshd"}}}, "log.option"),
    ],
)
def test_no_container_gets_rights_over_the_host(host, rule):
    assert denials(judged(host=host)) == (rule,)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"CapAdd": ["chown", "CAP_SETUID"]}, {"CapAdd": ["CHOWN", "SETUID"]}),
        ({"CapAdd": "CHOWN"}, {"CapAdd": ["CHOWN"]}),
        ({"CapDrop": ["NET_RAW"]}, {"CapDrop": ["ALL"]}),
        ({"SecurityOpt": ["no-new-privileges"]}, {"SecurityOpt": ["no-new-privileges:true"]}),
        ({"Memory": 8 * GIB}, {"Memory": 8 * GIB, "MemorySwap": 8 * GIB}),
        ({"NanoCpus": 4 * 10**9}, {"NanoCpus": 4 * 10**9}),
        ({"NanoCpus": 10**7}, {"NanoCpus": 10**7}),
        # Two ways at once would be refused by the engine.
        ({"CpuQuota": 50_000}, {"NanoCpus": 0, "CpuQuota": 50_000}),
        ({"CpuShares": 1024}, {"NanoCpus": 10**9, "CpuShares": 1024}),
        ({"PidsLimit": 0}, {"PidsLimit": 256}),
        ({"PidsLimit": 512}, {"PidsLimit": 512}),
        ({"MemorySwappiness": 0}, {"MemorySwappiness": 0}),
        (
            {"LogConfig": {"Type": "json-file", "Config": {"max-size": "5m"}}},
            {"LogConfig": {"Type": "json-file", "Config": {"max-size": "5m"}}},
        ),
        (
            {"LogConfig": {"Type": "local", "Config": {"max-file": "2"}}},
            {"LogConfig": {"Type": "local", "Config": {"max-file": "2", "max-size": "10485760"}}},
        ),
    ],
)
def test_what_is_given_instead(host, expected):
    rebuilt = host_of(judged(host=host))
    assert {key: rebuilt[key] for key in expected} == expected


def test_no_more_cpus_are_given_or_admitted_than_the_host_has():
    small = replace(FACTS, host=HostFacts(cpus=2))
    assert denials(judged(host={"NanoCpus": 3 * 10**9}, facts=small)) == ("resources.cpus",)
    wide = policy(resources={"cpus": {"default": 4, "max": 4}})
    assert host_of(judged(rules=wide, facts=small))["NanoCpus"] == 2 * 10**9


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"Image": ""}, "image.invalid"),
        ({"Image": "4150"}, "image.invalid"),
        ({"Image": "sha256:" + "4" * 64}, "image.invalid"),
        ({"Image": "alpine:latest"}, "image.not-allowed"),
        ({"Image": "ubuntu:22.04"}, "image.not-allowed"),
        ({"Image": "docker.io/malicious/miner:latest"}, "image.not-allowed"),
        ({"Image": "ghcr.io/platformnetworkevil/x"}, "image.not-allowed"),
        ({"Env": ["LD_PRELOAD=/x"]}, "env.denied"),
        ({"Env": ["A=" + "x" * 65536]}, "env.size"),
        ({"Env": [f"A{n}=b" for n in range(513)]}, "env.size"),
        ({"Cmd": ["x" * 32768], "Entrypoint": ["x" * 32768]}, "command.size"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000}}, "healthcheck.bounds"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "Interval": -1}}, "healthcheck.bounds"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "StartInterval": 1}}, "healthcheck.bounds"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "Timeout": 10**15}}, "healthcheck.bounds"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "Retries": 11}}, "healthcheck.bounds"),
        ({"Volumes": {"/data": {}}}, "volume.anonymous"),
    ],
)
def test_what_no_container_is(body, rule):
    assert denials(judged(body)) == (rule,)


def test_an_image_must_have_the_admitted_digest():
    absent = replace(FACTS, image=None)
    unknown = replace(FACTS, trusted=None)
    moved = replace(FACTS, trusted=TrustedImage(REFERENCE, "sha256:" + "2" * 64))
    assert denials(judged(facts=absent)) == ("image.missing",)
    assert denials(judged(facts=unknown)) == ("image.untrusted",)
    assert denials(judged(facts=moved)) == ("image.moved",)
    trusting = policy(
        profile="development",
        images={"allow": ["ghcr.io/platformnetwork/"], "trustLocal": ["ghcr.io/platformnetwork/"]},
    )
    assert denials(judged(facts=unknown, rules=trusting)) == ()


def test_a_preview_knows_no_image_and_pins_none():
    admission = judged(facts=None)
    assert admission.body is not None
    assert admission.body["Image"] == REFERENCE
    assert "image.pinned" not in admission.verdict.rules


def test_an_image_with_volumes_needs_mounts_for_them():
    facts = replace(FACTS, image=image_of(Volumes=("/var/lib/data/", "/logs")))
    mount = {"Type": "volume", "Source": "alice-data", "Target": "/var/lib/data"}
    refused = judged(facts=facts)
    assert denials(refused) == ("volume.anonymous",)
    assert "target: /logs" in refused.verdict.remedy
    # A folder above it isn't enough: the engine makes the volume all the same.
    above = {**mount, "Target": "/var/lib"}
    assert denials(judged(host={"Mounts": [above]}, facts=facts)) == ("volume.anonymous",)
    tmpfs = {"Type": "tmpfs", "Target": "/logs"}
    assert denials(judged(host={"Mounts": [mount, tmpfs]}, facts=facts)) == ()


def test_targets_of_named_volumes_may_stand_in_volumes_too():
    # docker-py writes them there.
    host = {"Binds": ["alice-data:/data"]}
    assert denials(judged({"Volumes": {"/data": {}}}, host=host)) == ()


def test_an_images_labels_never_show_through():
    labels = (
        (names.OWNER, "bob"),
        (names.SLOT, "1"),
        ("IO.trimtab.owner", "bob"),
        ("io.trimtab.later", "x"),
        ("traefik.enable", "true"),
        ("maintainer", "them"),
    )
    admission = judged(facts=replace(FACTS, image=image_of(Labels=dict(labels))))
    assert admission.body is not None
    assert admission.body["Labels"] == dict(
        sorted(
            {
                **OWN_LABELS,
                "IO.trimtab.owner": "",
                "io.trimtab.later": "",
                "traefik.enable": "",
                "maintainer": "them",
            }.items()
        )
    )


def test_other_platforms_are_other_images():
    assert denials(judged(platform="linux/amd64")) == ()
    assert denials(judged(platform="linux/amd64/v2")) == ()
    assert denials(judged(platform="linux/amd64v2")) == ("image.platform",)
    assert denials(judged(platform="linux/s390x")) == ("image.platform",)
    assert (
        denials(judged(platform="linux/s390x", rules=policy(images={"platforms": ["linux/s390x"]})))
        == ()
    )


@pytest.mark.parametrize(
    ("labels", "rules"),
    [
        ({names.OWNER: "alice", names.SERVICE: "web", "com.docker.compose.project": "p"}, ()),
        ({names.OWNER: "bob"}, ("label.reserved",)),
        ({names.MANAGED: "true"}, ("label.reserved",)),
        ({names.INSTANCE: "i1"}, ("label.reserved",)),
        ({names.NAMESPACE: "default"}, ("label.reserved",)),
        ({names.SLOT: ""}, ("label.reserved",)),
        ({"io.trimtab.later": "x"}, ("label.reserved",)),
        ({"io.trimtab": "x"}, ("label.reserved",)),
        ({"IO.TRIMTAB.OWNER": "alice"}, ("label.reserved",)),
        ({"io.trimtab.Owner": "alice"}, ("label.reserved",)),
        ({"\uff49o.trimtab.owner": "alice"}, ("label.reserved",)),
        ({"io.tr\u0131mtab.owner": "alice"}, ("label.invalid",)),
        ({"socket-proxy.allow.get": "*"}, ("label.denied",)),
        ({"Traefik.enable": "true"}, ("label.denied",)),
        ({"a b": "c"}, ("label.invalid",)),
        ({"a=b": "c"}, ("label.invalid",)),
        ({"": "c"}, ("label.invalid",)),
        ({"a": "b\nc"}, ("label.invalid",)),
        ({"a": "b\u2028c"}, ("label.invalid",)),
        ({f"k{n}": "" for n in range(101)}, ("label.size",)),
        ({"a": "x" * 65536}, ("label.size",)),
        ({names.SERVICE: "Web"}, ("service.invalid",)),
    ],
)
def test_labels_of_a_client(labels, rules):
    assert denials(judged({"Labels": labels})) == rules


def test_a_client_keeps_its_labels_and_gets_its_own_owner():
    admission = judged({"Labels": {"a": "b", names.SERVICE: "web"}})
    assert admission.body is not None
    assert admission.body["Labels"] == {"a": "b", **OWN_LABELS, names.SERVICE: "web"}
    assert judged(actor=OPERATOR).summary["labels"] == {**OWN_LABELS, names.OWNER: "operator"}


def test_a_compose_service_counts_as_the_service():
    admission = judged({"Labels": {"com.docker.compose.service": "db"}})
    assert admission.body is not None
    assert admission.summary["labels"] == {**OWN_LABELS, names.SERVICE: "db"}


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("alice-web_1.x", ()),
        ("x" * 63, ()),
        ("x" * 64, ("name.invalid",)),
        ("x", ("name.invalid",)),
        ("-web", ("name.invalid",)),
        ("/web", ("name.invalid",)),
        ("web\n", ("name.invalid",)),
        ("alice-\u0661", ("name.invalid",)),
        ("0123456789ab", ("name.like-an-id",)),
        ("a" * 63, ("name.like-an-id",)),
        ("0123456789a", ()),
        ("web.1-0123abcd", ("name.reserved",)),
        ("ns.web.12-0123abcd.2", ("name.reserved",)),
    ],
)
def test_names_of_a_client(name, rules):
    assert denials(judged(name=name)) == rules


def test_a_name_is_as_long_as_the_policy_lets_it_be():
    # As docker compose calls what `run` makes.
    name = "mycompany-customer-portal-back-integration-tests-run-0123456789ab"
    body = {
        "Labels": {"com.docker.compose.service": "integration-tests"},
        "NetworkingConfig": {"EndpointsConfig": {"alice-net": {"Aliases": [name]}}},
    }
    host = {"NetworkMode": "alice-net"}
    refused = judged(body, host=host, name=name)
    assert denials(refused) == ("name.invalid",)
    assert "is too long: 65 characters, at most 63" in refused.verdict.reason
    longer = policy(names={"max": 128})
    assert denials(judged(body, host=host, name=name, rules=longer)) == ()
    assert denials(judged(name="x" * 129, rules=longer)) == ("name.invalid",)


def test_a_variable_is_unset_where_the_policy_lets_it_be():
    body = {"Env": ["MAYBE", "A=b"]}
    refused = judged(body)
    assert denials(refused) == ("env.invalid",)
    assert "MAYBE" not in refused.verdict.reason  # it may be a secret
    admission = judged(body, rules=policy(env={"unset": True}))
    assert denials(admission) == ()
    assert admission.body is not None
    assert admission.body["Env"] == ["MAYBE", "A=b"]
    assert admission.summary["env"] == ["A"]
    loader = judged({"Env": ["LD_PRELOAD"]}, rules=policy(env={"unset": True}))
    assert denials(loader) == ("env.denied",)


@pytest.mark.parametrize(
    ("body", "host"),
    [
        ({"Volumes": {"/data": {}}}, {}),
        ({}, {"Binds": ["/data"]}),
        ({}, {"Mounts": [{"Type": "volume", "Target": "/data"}]}),
        ({}, {"Mounts": [{"Type": "volume", "Source": "", "Target": "/data"}]}),
    ],
    ids=["volumes", "binds", "mounts", "empty source"],
)
def test_an_anonymous_volume_is_one_in_any_spelling(body, host):
    refused = judged(body, host=host)
    assert denials(refused) == ("volume.anonymous",)
    # The broker makes the volume first, under the name that it has for the container.
    made = VolumeFacts("alice-web.data-81ce9a", ours=True, owner="alice")
    facts = replace(FACTS, volumes={made.name: made})
    lax = policy(images={"anonymousVolumes": "slot"})
    admitted = judged(body, host=host, rules=lax, facts=facts)
    given = {key: host_of(admitted).get(key) for key in ("Binds", "Mounts")}
    volume = {"Type": "volume", "Target": "/data", "Source": made.name}
    bound = [f"{made.name}:/data"] if "Binds" in host else None
    assert given == {"Binds": bound, "Mounts": None if bound else [volume]}


def test_a_container_without_a_name_gets_one():
    admission = judged(name="")
    assert admission.query == (("name", "alice-00000000abcd"),)
    assert "name.given" in admission.verdict.rules
    long = {"Labels": {names.SERVICE: "s" * 63}}
    assert denials(judged(long, name="")) == ()
    assert len(dict(judged(long, name="").query)["name"]) == 63


def test_a_name_that_a_foreign_container_has_is_refused():
    assert denials(judged(facts=replace(FACTS, name_taken="foreign"))) == ("name.foreign",)
    lost = judged(facts=replace(FACTS, name_taken="foreign", name_of="0123456789abcdef")).verdict
    assert lost.reason.endswith("it says that instance 0123456789abcdef made it")
    assert "'trimtab adopt --instance 0123456789abcdef'" in lost.remedy
    # One of ours conflicts on the engine, and says so there.
    assert denials(judged(facts=replace(FACTS, name_taken="ours"))) == ()


def test_a_controllers_create_keeps_its_labels():
    admission = judged_for_controller()
    assert admission.body is not None
    assert admission.body["Labels"] == {
        **OWN_LABELS,
        **CONTROLLER_LABELS,
        names.ORIGIN: "controller",
    }
    assert admission.query == (("name", CONTROLLER_NAME),)


@pytest.mark.parametrize(
    ("labels", "rules"),
    [
        ({names.SLOT: "0"}, ("label.slot",)),
        ({names.SLOT: "01"}, ("label.slot",)),
        ({names.SLOT: "1000"}, ("label.slot",)),
        ({names.REVISION: "v2:0123"}, ("label.slot",)),
        ({names.NAMESPACE: "A"}, ("label.slot",)),
        ({names.SERVICE: ""}, ("label.slot",)),
        ({names.SERVICE: "a" * 28}, ("label.slot",)),
        ({names.SLOT: "2"}, ("name.mismatch",)),
        ({names.REVISION: "v2:" + "f" * 64}, ("name.mismatch",)),
        ({names.OWNER: ""}, ("owner.invalid",)),
        ({names.OWNER: "Bob"}, ("owner.invalid",)),
        ({names.MANAGED: "true"}, ("label.reserved",)),
        ({names.IMAGE: ""}, ("image.invalid",)),
        ({names.IMAGE: "alpine"}, ("image.not-allowed", "image.mismatch")),
        ({names.IMAGE: "ghcr.io/platformnetwork/other:1"}, ("image.mismatch",)),
    ],
)
def test_labels_of_the_controller(labels, rules):
    assert set(rules) <= set(denials(judged_for_controller(labels=labels)))


@pytest.mark.parametrize(
    ("name", "admitted"),
    [
        (CONTROLLER_NAME, True),
        (f"{CONTROLLER_NAME}.2", True),
        (f"{CONTROLLER_NAME}.10", True),
        (f"{CONTROLLER_NAME}.1", False),
        (f"{CONTROLLER_NAME}.02", False),
        (f"{CONTROLLER_NAME}x", False),
        (f"other.{CONTROLLER_NAME}", False),
        ("web", False),
        ("", False),
    ],
)
def test_a_controllers_container_is_called_after_its_slot(name, admitted):
    assert (denials(judged_for_controller(name=name)) == ()) is admitted


def test_only_the_platform_that_the_engine_shows_is_judged():
    rules = policy(images={"platforms": ["linux/s390x"]})
    shown = replace(FACTS, image=replace(IMAGE, platform="linux/amd64"))
    assert denials(judged(platform="linux/amd64/v2", facts=shown, rules=rules)) == ()
    assert denials(judged(platform="linux/s390x", facts=shown, rules=rules)) == ("image.platform",)
    other = replace(FACTS, image=replace(IMAGE, platform="linux/s390x"))
    assert denials(judged(platform="linux/s390x", facts=other, rules=rules)) == ()


PIN = PinnedImage(IMAGE.id, IMAGE.digest, "ghcr.io/platformnetwork/web")


def test_a_pin_holds_for_its_own_repository():
    proxy = CONTROLLER_LABELS | {names.IMAGE: "ghcr.io/platformnetwork/proxy:1"}
    for asked in ("ghcr.io/platformnetwork/proxy:1", IMAGE.id):
        admission = judged_for_controller(
            {"Image": asked}, labels=proxy, facts=replace(FACTS, trusted=None, pin=PIN)
        )
        assert denials(admission) == ("image.mismatch",)
        assert "runs an image of ghcr.io/platformnetwork/web" in admission.verdict.reason


@pytest.mark.parametrize(
    ("digest", "trusted", "refused"),
    [
        (IMAGE.digest, None, ()),
        ("sha256:" + "9" * 64, None, ("image.moved",)),
        # An operator vouched for this image under this digest.
        ("sha256:" + "9" * 64, IMAGE.id, ()),
        ("sha256:" + "9" * 64, "sha256:" + "8" * 64, ("image.moved",)),
    ],
)
def test_a_digest_rule_holds_for_a_pinned_revision(digest, trusted, refused):
    reference = f"ghcr.io/platformnetwork/web@{digest}"
    labels = CONTROLLER_LABELS | {names.IMAGE: reference}
    ledger = None if trusted is None else TrustedImage(reference, trusted)
    facts = replace(FACTS, trusted=ledger, pin=PIN)
    rules = policy(images={"requireDigest": True})
    admission = judged_for_controller({"Image": IMAGE.id}, labels=labels, facts=facts, rules=rules)
    assert denials(admission) == refused


def test_a_local_image_is_its_own_digest_where_ids_are_digests():
    reference = f"ghcr.io/platformnetwork/web@{IMAGE.id}"
    labels = CONTROLLER_LABELS | {names.IMAGE: reference}
    local = replace(
        FACTS, trusted=None, image=replace(IMAGE, digest=""), pin=replace(PIN, digest="")
    )
    assert denials(judged_for_controller({"Image": IMAGE.id}, labels=labels, facts=local)) == ()


def test_a_banned_repository_is_banned_for_pinned_revisions_too():
    rules = policy(images={"allow": ["ghcr.io/platformnetwork/proxy"]})
    facts = replace(FACTS, trusted=None, pin=PIN)
    assert denials(judged_for_controller(facts=facts, rules=rules)) == ("image.not-allowed",)


def test_a_pin_by_the_policys_trust_ends_with_that_trust():
    loose = policy(profile="development", images={"trustLocal": ["ghcr.io/platformnetwork/"]})
    first = judged_for_controller(facts=replace(FACTS, trusted=None), rules=loose)
    assert (denials(first), first.summary["trustedByPolicy"]) == ((), True)
    facts = replace(FACTS, trusted=None, pin=replace(PIN, by_policy=True))
    assert denials(judged_for_controller(facts=facts, rules=loose)) == ()
    assert denials(judged_for_controller(facts=facts)) == ("image.untrusted",)
    trusted = replace(facts, trusted=FACTS.trusted)
    assert "trustedByPolicy" not in judged_for_controller(facts=trusted).summary


def test_the_controller_may_name_the_pinned_image_by_id_or_digest():
    by_id = {"Image": IMAGE.id}
    by_digest = {"Image": f"ghcr.io/platformnetwork/web@{IMAGE.digest}"}
    pinned = replace(FACTS, trusted=None, pin=PIN)
    assert denials(judged_for_controller(by_id, facts=pinned)) == ()
    assert denials(judged_for_controller(by_digest, facts=pinned)) == ()
    other = {"Image": "sha256:" + "9" * 64}
    assert denials(judged_for_controller(other, facts=pinned)) == ("image.moved",)
    other = {"Image": "ghcr.io/platformnetwork/web@sha256:" + "9" * 64}
    assert denials(judged_for_controller(other, facts=pinned)) == ("image.moved",)
    # A client can't: an id says nothing of where an image comes from.
    assert denials(judged(by_id)) == ("image.invalid",)


def test_with_a_list_only_owners_in_their_own_namespaces_are_taken():
    listed = policy(owners=[{"name": "alice", "namespaces": ["team"]}])
    assert denials(judged_for_controller(rules=listed)) == ("owner.namespace",)
    assert denials(judged_for_controller(rules=policy(owners=[{"name": "bob"}]))) == (
        "owner.unknown",
    )
    assert denials(judged_for_controller(rules=policy(owners=[{"name": "alice"}]))) == ()
    bob = replace(CLIENT, owner="bob")
    assert "owner.unknown" in denials(judged(actor=bob, rules=listed))
    assert denials(judged(actor=OPERATOR, rules=listed)) == ()


def test_quotas_count_what_is_there_and_a_rollout_may_exceed_by_one():
    full = replace(FACTS, service_count=100, owner_count=100)
    assert denials(judged_for_controller(facts=full)) == ("quota.service",)
    assert denials(judged_for_controller(facts=replace(full, replaces=True))) == ()
    over = replace(full, service_count=101, replaces=True)
    assert denials(judged_for_controller(facts=over)) == ("quota.service",)
    assert denials(judged(facts=replace(FACTS, owner_count=200))) == ("quota.owner",)
    assert denials(judged(facts=replace(FACTS, service_count=99, owner_count=199))) == ()
    # Containers without a service are no service together.
    plain = replace(FACTS, service_count=150, owner_count=150)
    assert denials(judged(facts=plain)) == ()
    few = policy(owners=[{"name": "alice", "quota": 1}])
    assert denials(judged(rules=few, facts=replace(FACTS, owner_count=1))) == ("quota.owner",)


def test_a_quota_names_what_the_caller_wrote():
    def places(verdict):
        return [finding.path for finding in verdict.findings if finding.rule.startswith("quota.")]

    full = replace(FACTS, service_count=100, owner_count=200)
    label = {"io.trimtab.service": "web"}
    assert places(judged(facts=full)) == [""]
    assert places(judged({"Labels": label}, facts=full)) == ["Labels.io.trimtab.service", ""]
    assert places(judged_for_controller(facts=full)) == [
        "Labels.io.trimtab.service",
        "Labels.io.trimtab.owner",
    ]


@pytest.mark.parametrize(
    ("user", "rules"),
    [
        ("1000", ()),
        ("1000:1000", ()),
        ("0", ("user.root",)),
        ("00", ("user.root",)),
        ("0:5", ("user.root",)),
        ("1000:0", ("user.root",)),
        ("1000:00", ("user.root",)),
        ("root", ("user.root",)),
        ("app", ("user.root",)),
        ("1000:wheel", ("user.root",)),
        ("", ("user.root",)),
    ],
)
def test_where_the_policy_wants_no_root_a_number_is_needed(user, rules):
    wanted = policy(security={"requireNonRoot": True})
    assert denials(judged({"User": user}, rules=wanted)) == rules
    named = user in {"app", "1000:wheel"}
    assert denials(judged({"User": user})) == (("user.groups",) if named else ())


def test_an_unset_user_is_the_images():
    wanted = policy(security={"requireNonRoot": True})
    facts = replace(FACTS, image=image_of(User="65534:65534"))
    assert denials(judged(rules=wanted, facts=facts)) == ()
    assert denials(judged(rules=wanted, facts=None)) == ()


def test_policies_can_be_stricter():
    read_only = policy(security={"requireReadOnlyRoot": True})
    assert denials(judged(rules=read_only)) == ("root-filesystem",)
    assert denials(judged(host={"ReadonlyRootfs": True}, rules=read_only)) == ()
    assert denials(judged(rules=policy(images={"requireDigest": True}))) == ("image.mutable",)
    kept = policy(autoRemove=False)
    assert denials(judged(host={"AutoRemove": True}, rules=kept)) == ("auto-remove",)
    shell = {"Healthcheck": {"Test": ["CMD-SHELL", "x"]}}
    assert denials(judged(shell)) == ()
    assert denials(judged(shell, rules=policy(healthcheck={"shell": False}))) == (
        "healthcheck.shell",
    )
    disk = policy(resources={"diskMax": "10Gi"})
    assert denials(judged(host={"StorageOpt": {"size": "10G"}}, rules=disk)) == ()
    assert denials(judged(host={"StorageOpt": {"size": "11G"}}, rules=disk)) == ("resources.disk",)
    assert denials(judged(host={"StorageOpt": {"x": "1"}}, rules=disk)) == ("resources.disk",)


EXCEPTION = {
    "owner": "alice",
    "namespace": "default",
    "service": "web",
    "repository": "ghcr.io/platformnetwork/web",
    "reason": "it binds a low port itself",
    "expires": "1970-01-01",
    "loosens": {"capAdd": ["NET_BIND_SERVICE"], "memoryMax": "16Gi"},
}
ASKS = {"CapAdd": ["NET_BIND_SERVICE"], "Memory": 16 * GIB}


def test_an_exception_loosens_for_its_service_and_is_told():
    rules = policy(exceptions=[EXCEPTION])
    admission = judged_for_controller(host=ASKS, rules=rules)
    assert denials(admission) == ()
    assert admission.verdict.rules[0] == "exception:alice/default/web"
    assert admission.summary["exceptions"] == ["exception:alice/default/web"]
    # Only what it grants.
    assert denials(judged_for_controller(host={"CapAdd": ["SYS_ADMIN"]}, rules=rules)) == (
        "capabilities",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "bob"},
        {"namespace": "team"},
        {"service": "db"},
        {"repository": "ghcr.io/platformnetwork/db"},
        {"expires": "1969-12-31"},
        {"for": "clients"},
    ],
)
def test_an_exception_is_nobody_elses_and_ends(change):
    rules = policy(exceptions=[{**EXCEPTION, **change}])
    assert denials(judged_for_controller(host=ASKS, rules=rules)) == (
        "capabilities",
        "resources.memory",
    )


@pytest.mark.parametrize("label", [names.SERVICE, "com.docker.compose.service"])
def test_a_label_of_a_client_gives_it_no_exception_for_documents(label):
    """A client chooses its labels, and would run any program with the rights of the service."""
    rights = {"capAdd": ["NET_ADMIN"], "root": True}
    for whose, refused in (("documents", ("capabilities", "user.root")), ("clients", ())):
        grant = {**EXCEPTION, "for": whose, "loosens": rights}
        rules = policy(security={"requireNonRoot": True}, exceptions=[grant])
        body = {"Labels": {label: "web"}, "User": "0"}
        admission = judged(body, host={"CapAdd": ["NET_ADMIN"]}, rules=rules)
        assert denials(admission) == refused
        if refused:
            told = "the policy's exception for web is for documents (for: clients)"
            assert told in admission.verdict.remedy
        document = judged_for_controller({"User": "0"}, rules=rules)
        assert (denials(document) == ()) is (whose == "documents")


def test_an_exception_without_a_word_of_whose_is_for_documents():
    assert policy(exceptions=[EXCEPTION]).exceptions[0].made_by == "documents"


def test_no_exception_allows_a_forbidden_setting():
    grants = {"mounts": ["/"], "capAdd": ["SYS_ADMIN"], "root": True}
    rules = policy(exceptions=[{**EXCEPTION, "loosens": grants}])
    asks = {"Binds": ["/run/docker.sock:/s"], "Privileged": True}
    assert denials(judged_for_controller(host=asks, rules=rules)) == ("privileged", "mount.never")


def test_what_to_look_at_before_judging():
    request = parse_create(
        {
            "Image": "ghcr.io/platformnetwork/web",
            "HostConfig": {
                "Binds": ["/tmp/x:/x", "alice-data:/d", "/e/docker/volumes/v/_data/s:/v"],
                "PortBindings": {"80/tcp": [{}]},
            },
            "NetworkingConfig": {"EndpointsConfig": {"default": {}, "alice-net": {}}},
        }
    )
    assert needs(request, actor=CLIENT, policy=STRICT, volumes_root="/e/docker/volumes") == Needs(
        image="ghcr.io/platformnetwork/web:latest",
        paths=("/e/docker/volumes/v/_data/s", "/tmp/x"),
        networks=("platform-network", "alice-net", "platform-ingress"),
        volumes=("alice-data", "v"),
        implied=("platform-network", "platform-ingress"),
    )


def test_the_controller_makes_its_networks_itself():
    request = parse_create(
        {
            "Image": IMAGE.id,
            "Labels": CONTROLLER_LABELS,
            "HostConfig": {"NetworkMode": "platform-network"},
        }
    )
    wants = needs(request, actor=CONTROLLER, policy=STRICT)
    assert wants == Needs(REFERENCE, (), ("platform-network",), ())
    assert REVISION.startswith("v2:")


def test_a_refusal_tells_no_more_than_it_understood_and_at_a_bounded_length():
    secret = "hunter2"
    admission = judged({"Env": [secret], "Image": "x" * 10_000, "Cmd": [secret]})
    assert admission.summary == {
        "name": "alice-web",
        "image": "x" * 255 + "…",
        "owner": "alice",
        "service": "",
    }
    assert secret not in admission.verdict.reason
    inline = judged(host={"SecurityOpt": ["seccomp={" + "x" * 100_000]})
    assert len(inline.verdict.reason) < 1500


def test_published_ports_have_quotas_by_owner_and_in_all():
    """The engine runs a process for each port, beyond the limit of the container's memory."""

    def rules_of(counts, bindings, **quotas):
        host: dict[str, Any] = {
            "PortBindings": {f"{n}/tcp": [{}] for n in range(80, 80 + bindings)}
        }
        facts, rules = replace(FACTS, counts=counts), policy(quotas=quotas)
        return denials(judged(host=host, facts=facts, rules=rules))

    assert rules_of(QuotaCounts(ports=186), 64) == ()
    assert rules_of(QuotaCounts(ports=187), 64) == ("quota.ports",)
    assert rules_of(QuotaCounts(ports=9999), 0) == ()
    assert rules_of(QuotaCounts(all_ports=187), 64) == ("quota.all-ports",)
    assert rules_of(QuotaCounts(ports=2), 1, portsPerOwner=2) == ("quota.ports",)
    listed = policy(owners=[{"name": "alice", "ports": 1}])
    host: dict[str, Any] = {"PortBindings": {"80/tcp": [{}, {}]}}
    assert denials(judged(host=host, rules=listed)) == ("quota.ports",)
    ends = {"platform-network": {"Aliases": ["web"]}, "platform-ingress": {}}
    body = {"NetworkingConfig": {"EndpointsConfig": ends}, "HostConfig": {}}
    host = {"PortBindings": {"80/tcp": [{}]}}
    for counts, refused in ((499, ()), (500, ("quota.all-ports",))):
        facts = replace(FACTS, counts=QuotaCounts(all_ports=counts))
        assert denials(judged_for_controller(body, host=host, facts=facts)) == refused
