"""What holds of every create, whatever it asks for."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.engine_api.field_tables import CONFIG, HOST_CONFIG
from controller.core.engine_api.parse import parse_create
from controller.model.host_paths import PathFacts
from controller.model.records import Actor, Role
from tests.examples import examples
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    CONTROLLER_LABELS,
    CONTROLLER_NAME,
    FACTS,
    GIB,
    OPERATOR,
    REFERENCE,
    judged,
)

CONFIG_KEYS = {entry.name for entry in CONFIG}
HOST_KEYS = {entry.name for entry in HOST_CONFIG}

#: Values that mean something somewhere, so that admissions are met as well as denials.
TEXTS = st.sampled_from(
    [
        *("", "none", "default", "bridge", "host", "platform-network", "alice-net", "bob-net"),
        *("private", "runc", "local", "json-file", "always", "no", "1000:1000", "/app", "web"),
        *("/tmp/x", "/tmp/x:/x:ro", "alice-data:/d", "bob-data:/d", "/:/h", "80/tcp", "8080"),
        *("CHOWN", "ALL", "no-new-privileges:true", "A=b", "size=1m", REFERENCE, "CMD", "\0"),
    ]
)
NUMBERS = st.sampled_from([-1, 0, 1, 100, 512, 50_000, 10**9, GIB, 16 * GIB, 2**63])
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
NESTED_KEYS = st.sampled_from(
    [
        *("Type", "Source", "Target", "Name", "Config", "Options", "HostIp", "HostPort", "Test"),
        *("EndpointsConfig", "Aliases", "IPAMConfig", "TmpfsOptions", "SizeBytes", "max-size"),
        *("/run", "80/tcp", "platform-network", "alice-net", "io.trimtab.owner", "a", "Interval"),
    ]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NESTED_KEYS, inner, max_size=3),
    max_leaves=8,
)
HOSTS = st.dictionaries(st.sampled_from(sorted(HOST_KEYS)), VALUES, max_size=4)
BODIES = st.builds(
    lambda config, host: {"Image": REFERENCE, **config, "HostConfig": host},
    st.dictionaries(
        st.sampled_from(sorted(CONFIG_KEYS - {"Image", "HostConfig"})), VALUES, max_size=3
    ),
    HOSTS,
)
ACTORS = st.sampled_from([CLIENT, OPERATOR, CONTROLLER])
LOOKED_AT = replace(FACTS, paths={"/tmp/x": PathFacts("/tmp/x", "dir")})


@settings(max_examples=examples(60))
@given(body=BODIES, actor=ACTORS, known=st.booleans())
def test_every_request_is_refused_or_hardened(body: Any, actor: Actor, known: bool) -> None:
    name = "alice-web"
    if actor.role is Role.CONTROLLER:
        name = CONTROLLER_NAME
        body = {"Labels": CONTROLLER_LABELS, **body}
    admission = judged(body, name=name, actor=actor, facts=LOOKED_AT if known else None)
    if admission.verdict.decision == "deny":
        assert admission.body is None
        assert admission.verdict.reason, "a refusal without a reason"
        return
    assert admission.body is not None
    host = admission.body["HostConfig"]
    assert isinstance(host, dict)
    assert admission.body.keys() <= CONFIG_KEYS
    assert host.keys() <= HOST_KEYS
    assert host["CapDrop"] == ["ALL"]
    assert set(host.get("CapAdd", ())) <= {"CHOWN", "SETUID", "SETGID"}
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert 0 < host["Memory"] == host["MemorySwap"] <= 8 * GIB
    assert 0 < host["PidsLimit"] <= 512
    assert 0 < host["NanoCpus"] <= 4 * 10**9 or host["CpuQuota"] > 0
    assert host["NetworkMode"] in {"none", "platform-network", "platform-bridge", "alice-net"} or (
        actor.role is Role.OPERATOR or not known
    )
    assert host["LogConfig"]["Config"]["max-size"]
    assert not host.keys() & {"Privileged", "PidMode", "UTSMode", "UsernsMode", "Devices"}


@settings(max_examples=examples(40))
@given(body=BODIES)
def test_a_forwarded_body_is_admitted_again_without_a_finding(body: Any) -> None:
    admission = judged(body, facts=LOOKED_AT)
    if admission.verdict.decision != "deny":
        assert parse_create(admission.body).findings == ()


@settings(max_examples=examples(40))
@given(body=st.one_of(VALUES, BODIES))
def test_reading_a_body_never_fails(body: Any) -> None:
    parse_create(body)
