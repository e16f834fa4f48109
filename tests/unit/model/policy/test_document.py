import json

import pytest
from pydantic import ValidationError

from controller.model.policy.document import Policy

STRICT = {"name": "strict"}
ALICE = {"name": "alice"}


def test_the_defaults_are_the_figures_of_the_security_analysis():
    policy = Policy.from_json(STRICT)
    resources = policy.resources
    assert policy.images.allow == ("ghcr.io/platformnetwork/",)
    assert policy.capabilities.allowed == ("CHOWN", "SETUID", "SETGID")
    assert (resources.memory.default, resources.memory.max) == (2 * 1024**3, 8 * 1024**3)
    assert (resources.cpus.default, resources.cpus.max) == (1_000_000_000, 4_000_000_000)
    assert (resources.pids.default, resources.pids.max) == (256, 512)
    assert policy.mounts.allowed == ("/tmp/", "/var/lib/platform/", "/var/lib/docker/volumes/")
    assert set(policy.mounts.forbidden) == {
        "/etc/passwd",
        "/etc/shadow",
        "/etc/sudoers",
        "/root",
        "/home",
        "/proc",
        "/sys",
        "/dev",
    }
    assert set(policy.networks.modes) == {"none", "bridge", "isolated"}
    assert policy.networks.isolated == "platform-network"
    assert (policy.quotas.per_service, policy.quotas.per_owner) == (100, 200)


def test_a_policy_reads_back_what_it_wrote_and_its_digest_tells_it_apart():
    policy = Policy.from_json(
        {
            **STRICT,
            "resources": {"cpus": {"default": 0.25, "max": "1.5"}, "memory": {"default": "64Mi"}},
            "owners": [ALICE],
            "exceptions": [exception(loosens={"memoryMax": "16Gi", "hostIPs": ["0.0.0.0"]})],
        }
    )
    again = Policy.from_json(policy.to_json())
    assert again == policy
    assert again.digest == policy.digest
    assert policy.resources.cpus.max == 1_500_000_000
    assert len(policy.digest) == 64
    assert policy.digest != Policy.from_json(STRICT).digest


def viewer(**changes):
    return {"uid": 7, "owners": ["alice"], **changes}


def exception(**changes):
    return {
        "owner": "alice",
        "namespace": "default",
        "service": "web",
        "repository": "ghcr.io/platformnetwork/web",
        "reason": "the vendor's binary needs it",
        "expires": "2027-01-31",
        "loosens": {},
        **changes,
    }


def test_an_exception_holds_to_the_end_of_its_last_day():
    policy = Policy.from_json({**STRICT, "exceptions": [exception(expires="1970-01-02")]})
    assert policy.exceptions[0].ends_at == 2 * 86_400


@pytest.mark.parametrize(
    ("change", "where", "why"),
    [
        ({"unknown": 1}, "unknown", "Extra inputs"),
        ({"images": {"allow": []}}, "images.allow", "at least 1"),
        ({"images": {"allow": ["alpine"]}}, "images.allow.0", "REGISTRY/PATH/"),
        ({"images": {"allow": ["ghcr.io/A/"]}}, "images.allow.0", "REGISTRY/PATH/"),
        ({"images": {"allow": ["ghcr.io/a/\n"]}}, "images.allow.0", "REGISTRY/PATH/"),
        ({"images": {"trustLocal": ["a.local/"]}}, "images.trustLocal", "profile: development"),
        (
            {"profile": "production", "images": {"trustLocal": ["a.local/"]}, "owners": [ALICE]},
            "images.trustLocal",
            "profile: development",
        ),
        ({"profile": "production"}, "owners", "needs the list"),
        ({"capabilities": {"allowed": ["ALL"]}}, "capabilities.allowed.0", "never ALL"),
        ({"capabilities": {"allowed": ["CAP_CHOWN"]}}, "capabilities.allowed.0", "without CAP_"),
        ({"resources": {"memory": {"max": "8GB"}}}, "resources.memory.max", "Ki, Mi or Gi"),
        ({"resources": {"memory": {"max": "1Gi"}}}, "resources.memory.default", "above"),
        ({"resources": {"memory": {"default": "1Mi"}}}, "resources.memory.default", "6Mi"),
        ({"resources": {"cpus": {"max": 0}}}, "resources.cpus.max", "greater than 0"),
        ({"resources": {"cpus": {"max": True}}}, "resources.cpus.max", "number of CPUs"),
        ({"resources": {"cpus": {"default": 8}}}, "resources.cpus.default", "above"),
        ({"resources": {"pids": {"default": 513}}}, "resources.pids.default", "above"),
        ({"mounts": {"allowed": ["tmp"]}}, "mounts.allowed.0", "absolute path"),
        ({"mounts": {"allowed": ["/tmp/../etc"]}}, "mounts.allowed.0", "absolute path"),
        ({"networks": {"modes": ["host"]}}, "networks.modes.0", "Input should be"),
        ({"networks": {"isolated": "platform-bridge"}}, "networks", "three different names"),
        ({"networks": {"isolated": "A"}}, "networks.isolated", "lower-case"),
        ({"networks": {"ports": {"hostIPs": ["localhost"]}}}, "networks.ports.hostIPs.0", "IP"),
        ({"logs": {"defaultSize": "1Gi"}}, "logs.defaultSize", "above"),
        ({"owners": []}, "owners", "at least 1"),
        ({"owners": [ALICE, ALICE]}, "owners.1.name", "twice"),
        ({"owners": [{"name": "operator"}]}, "owners.0.name", "operators"),
        ({"owners": [{"name": "alice", "uids": [0]}]}, "owners.0.uids.0", "greater than"),
        ({"owners": [{"name": "alice", "namespaces": ["A"]}]}, "owners.0.namespaces.0", "DNS"),
        ({"clients": [{"uid": 0, "owner": "alice"}]}, "clients.0.uid", "operator already"),
        (
            {"operators": [7], "clients": [{"uid": 7, "owner": "alice"}]},
            "clients.0.uid",
            "operator already",
        ),
        (
            {"clients": [{"uid": 7, "owner": "alice"}, {"uid": 7, "owner": "bob"}]},
            "clients.1.uid",
            "twice",
        ),
        (
            {"owners": [ALICE], "clients": [{"uid": 7, "owner": "bob"}]},
            "clients.0.owner",
            "list of owners",
        ),
        ({"viewers": [{"uid": 7}]}, "viewers.0.owners", "required"),
        ({"viewers": [{"uid": 7, "owners": []}]}, "viewers.0.owners", "at least 1"),
        ({"viewers": [{"uid": 7, "owners": "none"}]}, "viewers.0.owners", "all"),
        ({"viewers": [{"uid": 7, "owners": "all", "logs": "all"}]}, "viewers.0.logs", "none"),
        ({"viewers": [viewer(), viewer()]}, "viewers.1.uid", "twice"),
        ({"viewers": [viewer(uid=0)]}, "viewers.0.uid", "operator or a client"),
        (
            {"clients": [{"uid": 7, "owner": "alice"}], "viewers": [viewer()]},
            "viewers.0.uid",
            "operator or a client",
        ),
        ({"viewers": [viewer(logs=["bob"])]}, "viewers.0.logs", "isn't among"),
        ({"owners": [ALICE], "viewers": [viewer(owners=["bob"])]}, "viewers.0", "list of owners"),
        (
            {
                "viewers": [viewer(uid=2000)],
                "exceptions": [exception(loosens={"observer": 2000})],
            },
            "exceptions.0.loosens.observer",
            "somebody's",
        ),
        ({"exceptions": [exception(reason="because")]}, "exceptions.0.reason", "10 characters"),
        ({"exceptions": [exception(expires="soon")]}, "exceptions.0.expires", "date"),
        ({"exceptions": [exception(loosens={"privileged": True})]}, "privileged", "Extra inputs"),
        ({"unverified": "stop"}, "unverified", "Extra inputs"),
    ],
)
def test_what_isnt_a_policy_is_refused_at_its_place(change, where, why):
    with pytest.raises(ValidationError) as raised:
        Policy.from_json({**STRICT, **change})
    told = [
        ((error.get("ctx") or {}).get("path") or ".".join(map(str, error["loc"])), error["msg"])
        for error in raised.value.errors()
    ]
    assert any(where in place and why in text for place, text in told), told


def test_without_a_list_anybody_owns_and_with_one_only_those_listed():
    open_to_all = Policy.from_json(STRICT)
    listed = Policy.from_json(
        {**STRICT, "owners": [{"name": "alice", "namespaces": ["team", "default"]}]}
    )
    assert open_to_all.owner("bob") is not None
    assert listed.owner("bob") is None
    assert open_to_all.namespace_of("alice") == "default"
    assert listed.namespace_of("alice") == "team"


def test_a_changed_copy_has_a_digest_and_a_text_of_its_own():
    policy = Policy.from_json(STRICT)
    before = policy.digest
    assert json.loads(policy.json_text) == policy.to_json()
    changed = policy.model_copy(update={"auto_remove": not policy.auto_remove})
    assert changed.digest == Policy.from_json(changed.to_json()).digest != before
    assert json.loads(changed.json_text) == changed.to_json() != policy.to_json()
    assert (policy.digest, policy) == (before, Policy.from_json(STRICT))
