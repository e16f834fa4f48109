from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.encoding.identifiers import parse_reference
from controller.core.policy.text import load_policy
from controller.model.errors import PolicyInvalid
from controller.model.inventory import TrustedImage
from controller.model.policy.document import Policy
from controller.model.policy.shipped import SHIPPED_POLICIES
from tests.unit.core.creates import FACTS, IMAGE, OPERATOR, judged

PROJECT = Path(__file__).resolve().parents[4]
SHIPPED = PROJECT / "configs" / "policies"

BYTES = "expected a whole number with a unit Ki, Mi or Gi, such as 512Mi"
TRUST = "needs `profile: development`; elsewhere use `trimtab image trust`"


def shipped(name):
    return load_policy((SHIPPED / f"{name}.yaml").read_text(), f"{name}.yaml")


def test_every_shipped_policy_is_in_the_package_and_loads():
    packaged = PROJECT / "controller" / "policies"
    assert {path.stem for path in packaged.glob("*.yaml")} == set(SHIPPED_POLICIES)
    for name in SHIPPED_POLICIES:
        assert (packaged / f"{name}.yaml").read_bytes() == (SHIPPED / f"{name}.yaml").read_bytes()
        assert (shipped(name).name, shipped(name).profile) == (name, name)


def test_strict_writes_out_every_key_and_is_the_default_but_for_some_quotas():
    strict, default = shipped("strict").to_json(), Policy.from_json({"name": "strict"}).to_json()
    quotas = strict["quotas"]
    assert (quotas["volumesPerOwner"], quotas["networksPerOwner"]) == (200, 8)
    assert (quotas["clients"]["networks"], quotas["clients"]["ports"]) == (16, 100)
    assert quotas["portsPerOwner"] == 100
    assert shipped("production").quotas == shipped("strict").quotas
    quotas["clients"] |= {"networks": 20, "ports": 250}
    quotas |= {"volumesPerOwner": 500, "networksPerOwner": 20, "portsPerOwner": 250}
    assert strict == default
    text = (SHIPPED / "strict.yaml").read_text()
    missing = [key for key in _keys(shipped("strict").to_json()) if f"{key}:" not in text]
    assert missing == []


def _keys(value):
    for key, member in value.items():
        yield key
        if isinstance(member, dict):
            yield from _keys(member)


def test_the_other_policies_differ_where_they_mean_to():
    development, production = shipped("development"), shipped("production")
    assert development.owners is None
    assert development.images.trust_local == ("trimtab.local/",)
    assert "trimtab.local/" in development.images.allow
    assert "bridge" in development.networks.modes
    assert production.owners is not None
    assert production.images.trust_local == ()
    assert development.mounts.forbidden == shipped("strict").mounts.forbidden


def test_home_admits_what_a_first_stack_asks_for_and_strict_refuses():
    """Public images with root, a published port, port 80, a network with internet access."""
    home = shipped("home")
    for image in (
        "nginx",
        "postgres:17",
        "ghcr.io/someone/app:2",
        "quay.io/prometheus/prometheus:v3.0.0",
        "lscr.io/linuxserver/jellyfin:10.10.3",
        "gcr.io/cadvisor/cadvisor:v0.49.1",
        "registry.k8s.io/pause:3.10",
        "mcr.microsoft.com/mssql/server:2022-latest",
        "docker.elastic.co/elasticsearch/elasticsearch:8.15.0",
        "public.ecr.aws/docker/library/redis:7",
        "trimtab.local/web:1",
    ):
        reference = parse_reference(image)
        host = {
            "NetworkMode": "platform-bridge",
            "CapAdd": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "KILL"],
            "PortBindings": {"80/tcp": [{"HostIp": "::", "HostPort": "80"}]},
        }
        facts = replace(FACTS, trusted=TrustedImage(reference.canonical, IMAGE.id))
        body = {"Image": image}
        admitted = judged(body, host=host, actor=OPERATOR, rules=home, facts=facts)
        assert (admitted.verdict.decision, admitted.findings) == ("mutate", ())
        refused = judged(body, host=host, actor=OPERATOR, facts=facts)
        rules = {finding.rule for finding in refused.findings}
        assert rules == {"image.not-allowed", "capabilities", "port.address", "port.privileged"}
    assert home.images.trust_local == ()
    assert [
        name for name in ("home", "strict") if shipped(name).networks.names.bridge_joins_isolated
    ] == ["home"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.yaml: no document, a policy is one"),
        ("# only a comment\n", "p.yaml: no document, a policy is one"),
        ("name: a\n---\nname: b\n", "p.yaml: 2 documents, a policy is one"),
        ("- a\n", "p.yaml:1: no keys and values"),
        ("name: a\nname: b\n", 'p.yaml:2: key "name" is repeated; it is first on line 1'),
        ("name: a\n\nimages:\n  alow: [x]\n", "p.yaml:4: images.alow: no key of a policy"),
        ("profile: strict\n", "p.yaml:1: name: is needed"),
        (
            "name: a\nresources:\n  memory:\n    max: 8GB\n",
            f"p.yaml:4: resources.memory.max: {BYTES}",
        ),
        (
            "name: a\nimages:\n  trustLocal: [x.local/]\n",
            f"p.yaml:3: images.trustLocal: {TRUST}",
        ),
        (
            "name: a\nprofile: production\n",
            "p.yaml:1: owners: `profile: production` needs the list of owners",
        ),
    ],
)
def test_an_invalid_policy_says_file_line_and_why(text, message):
    with pytest.raises(PolicyInvalid) as raised:
        load_policy(text, "p.yaml")
    assert raised.value.code == "policy.invalid"
    assert raised.value.message == message
    assert "strict.yaml" in raised.value.remedy


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(PolicyInvalid) as raised:
        load_policy("name: a\nx: 1\ny: 2\n", "p.yaml")
    assert raised.value.message.splitlines() == [
        "p.yaml:2: x: no key of a policy",
        "p.yaml:3: y: no key of a policy",
    ]


def test_a_bomb_of_aliases_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(PolicyInvalid):
        load_policy("\n".join(lines), "p.yaml")
