"""An explanation says what the gate does: the same verdict, all findings, each field's fate."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.broker.gate.routes import ROUTES
from controller.broker.handlers.dry_run import Explanation, FieldOutcome, explain
from controller.core.admission.preview import check_create
from controller.core.engine_api import field_tables
from controller.core.rules.context import CONTROLLER, OPERATOR
from controller.model.policy.document import Policy
from controller.model.records import Actor
from tests.unit.core.creates import CLIENT, REFERENCE, STRICT, policy

GIB = 1024**3


def explained(
    body: object = None,
    *,
    method: str = "POST",
    path: str = "/containers/create",
    query: str = "",
    actor: Actor = CLIENT,
    rules: Policy = STRICT,
) -> Explanation:
    raw = b"" if body is None else json.dumps(body).encode()
    return explain(method, path, query, raw, actor=actor, policy=rules)


def rules_of(found: Explanation) -> list[str]:
    return [finding.rule for finding in found.findings]


def test_every_field_has_its_fate_and_what_is_added_its_place() -> None:
    body = {
        "Image": REFERENCE,
        "Env": ["TOKEN=secret"],
        "Labels": {},
        "HostConfig": {
            "CapAdd": ["CAP_CHOWN", "SYS_ADMIN"],
            "NetworkMode": "default",
            "Memory": 32 * GIB,
            "PidsLimit": 0,
            "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v", "Consistency": "cached"}],
        },
    }
    found = explained(body, rules=policy(modes={"resources.memory": "warn"}))
    assert found.fields == (
        FieldOutcome("Image", REFERENCE, "kept"),
        FieldOutcome("Env[0]", "TOKEN=…", "kept"),
        FieldOutcome("HostConfig.CapAdd[0]", "CAP_CHOWN", "changed", "CHOWN"),
        FieldOutcome("HostConfig.CapAdd[1]", "SYS_ADMIN", "refused", rules=("capabilities",)),
        FieldOutcome("HostConfig.NetworkMode", "default", "changed", "platform-network"),
        FieldOutcome("HostConfig.Memory", 32 * GIB, "let-through", rules=("resources.memory",)),
        FieldOutcome("HostConfig.Mounts[0].Type", "volume", "kept"),
        FieldOutcome("HostConfig.Mounts[0].Source", "v", "kept"),
        FieldOutcome("HostConfig.Mounts[0].Target", "/v", "kept"),
        FieldOutcome("HostConfig.Mounts[0].Consistency", "cached", "dropped"),
    )
    assert dict(found.given) == {
        "HostConfig.MemorySwap": 32 * GIB,
        "HostConfig.NanoCpus": 10**9,
        "HostConfig.PidsLimit": 256,
        "HostConfig.CapDrop[0]": "ALL",
        "HostConfig.SecurityOpt[0]": "no-new-privileges:true",
        "HostConfig.LogConfig.Type": "json-file",
        "HostConfig.LogConfig.Config.max-file": "3",
        "HostConfig.LogConfig.Config.max-size": str(10 * 1024**2),
        "NetworkingConfig.EndpointsConfig.platform-network": {},
    }
    assert (found.verdict.decision, found.verdict.rules) == ("deny", ("capabilities",))
    assert list(zip(rules_of(found), found.modes, strict=True)) == [
        ("capabilities", "enforce"),
        ("resources.memory", "warn"),
    ]


def test_all_that_is_wrong_is_told_with_its_remedy() -> None:
    host = {"Privileged": True, "PidMode": "host", "Binds": ["/etc:/e"], "Memory": 32 * GIB}
    body = {"Image": "alpine", "HostConfig": host, "Nonsense": 1}
    found = explained(body, query="name=x&nonsense=1&nonsense=2&platform=a&platform=b")
    assert set(rules_of(found)) == {
        *("query.repeated", "body.unknown", "namespace.pid", "privileged"),
        *("image.not-allowed", "mount.forbidden", "resources.memory"),
    }
    assert rules_of(explained({"Image": REFERENCE}, query="nonsense=1&Name=x")) == ["query.unknown"]


@pytest.mark.parametrize(
    ("asked", "rules"),
    [
        ({"path": "/commit"}, ["route.denied"]),
        ({"path": "/build", "query": "t=x", "actor": OPERATOR}, ["build.denied"]),
        ({"path": "/nothing"}, ["route.unknown"]),
        ({"path": "/containers//create"}, ["path.malformed"]),
        ({"path": "/v1.20/containers/create"}, ["path.malformed"]),
        ({"path": "/containers/x/attach", "actor": CONTROLLER}, ["role.denied"]),
        ({"path": "/containers/x/start", "body": {"detachKeys": "q"}}, ["query.repeated"]),
        ({"path": "/containers/x/stop", "query": "t=900"}, ["stop.timeout"]),
        ({"path": "/containers/x/kill", "query": "signal=SIGNOPE"}, ["signal.invalid"]),
        ({"path": "/containers/x", "method": "DELETE", "query": "link=1"}, ["remove.link"]),
        ({"path": "/containers/x/rename", "query": "name=-"}, ["name.invalid"]),
        ({"path": "/containers/x/update", "body": {"PidsLimit": -1}}, ["resources.pids"]),
        ({"path": "/images/create", "query": "fromSrc=-"}, ["image.import", "image.invalid"]),
        ({"path": "/images/alpine/json", "method": "GET"}, ["image.not-allowed"]),
        ({"path": "/networks/create", "body": {"Name": "n", "Driver": "x"}}, ["network.driver"]),
        (
            {"path": "/networks/n/connect", "body": {"EndpointConfig": {"Links": ["a"]}}},
            ["network.links"],
        ),
        ({"path": "/networks/n/disconnect", "body": {"x": 1}}, ["body.unknown"]),
        (
            {"path": "/volumes/create", "body": {"DriverOpts": {"a": "b"}, "Name": "vol"}},
            ["volume.options"],
        ),
        (
            {
                "path": "/containers/x/exec",
                "body": {"Cmd": ["a"], "Privileged": True},
                "actor": OPERATOR,
            },
            ["exec.privileged"],
        ),
        ({"path": "/containers/create"}, ["body.missing", "image.invalid"]),
        ({"path": "/containers/x/start"}, []),
        ({"path": "/containers/json", "method": "GET", "query": "all=1"}, []),
        ({"path": "/v1.44/volumes/v", "method": "DELETE"}, []),
    ],
)
def test_each_kind_of_route_is_judged_by_its_rules(asked: dict[str, Any], rules: list[str]) -> None:
    found = explained(**{"body": None, **asked})
    assert rules_of(found) == rules
    assert found.verdict.decision == ("deny" if rules else "allow")


def test_a_body_that_readers_take_differently_is_judged_no_further() -> None:
    raw = b'{"Image": "a", "image": "b"}'
    found = explain("POST", "/containers/create", "", raw, actor=CLIENT, policy=STRICT)
    assert rules_of(found) == ["body.malformed"]


#: The names in the path of a delivery.
FILES = ("kind", "namespace", "name")


def test_every_route_can_be_explained_to_everybody() -> None:
    for route in ROUTES:
        path = route.template
        for name in ("container", "image", "network", "volume", "exec", *FILES):
            path = path.replace(f"{{{name}}}", "x")
        path = f"/trimtab/v1{path}" if route.own else path
        for actor in (CLIENT, OPERATOR, CONTROLLER):
            found = explained(
                {} if route.body else None, method=route.method, path=path, actor=actor
            )
            assert found.route == route
            assert ("role.denied" in rules_of(found)) == (actor.role not in route.roles)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
TYPED = ANY | st.lists(st.sampled_from(["a=b", "/x:/y", "80/tcp", "CHOWN"]), max_size=3)
HOST = st.dictionaries(
    st.sampled_from([f.name for f in field_tables.HOST_CONFIG]), TYPED, max_size=6
)
CONFIG = st.dictionaries(st.sampled_from([f.name for f in field_tables.CONFIG]), TYPED, max_size=6)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(config=CONFIG, host=HOST, image=st.sampled_from([REFERENCE, "alpine", ""]))
def test_whatever_is_asked_the_verdict_is_that_of_admission(
    config: dict[str, object], host: dict[str, object], image: str
) -> None:
    body = {**config, "HostConfig": host, "Image": image}
    found = explained(body)
    if "body.malformed" in rules_of(found):
        assert found.verdict.decision == "deny"
        return
    judged = check_create(STRICT, body, actor=CLIENT)
    assert found.verdict == judged.verdict
    assert found.findings == judged.findings
