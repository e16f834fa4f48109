"""Calls without a body of their own, previews of a plan, and a policy in words."""

import math
from typing import Any

import pytest

from controller.core.admission.calls import (
    admit_kill,
    admit_pull,
    admit_reference,
    admit_remove,
    admit_rename,
    admit_restart_allowed,
    admit_start,
    admit_stop,
)
from controller.core.admission.preview import check_create, preview_action
from controller.core.engine_api.create_body import create_body
from controller.model.desired.desired import Service, SourceLocation
from controller.model.desired.plan import (
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    Delay,
    DisconnectNetwork,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RenameContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
)
from controller.model.desired.spec.service import ServiceSpec
from controller.model.names import Key, container_name
from controller.model.records import ALLOW
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    GIB,
    OPERATOR,
    REFERENCE,
    REVISION,
    STRICT,
    policy,
)

DIGEST = "sha256:" + "a" * 64
WEB = "ghcr.io/platformnetwork/web"
KEY = Key("Service", "default", "web")


def answer(admission):
    """Return the query that is forwarded, or the rules that deny."""
    if admission.verdict.decision == "deny":
        return admission.verdict.rules
    return dict(admission.query)


@pytest.mark.parametrize(
    ("query", "expected", "reference"),
    [
        ({"fromImage": WEB, "tag": "1"}, {"fromImage": WEB, "tag": "1"}, f"{WEB}:1"),
        # Without a tag the engine would pull all of them.
        ({"fromImage": WEB}, {"fromImage": WEB, "tag": "latest"}, f"{WEB}:latest"),
        ({"fromImage": f"{WEB}:2"}, {"fromImage": WEB, "tag": "2"}, f"{WEB}:2"),
        ({"fromImage": WEB, "tag": DIGEST}, {"fromImage": WEB, "tag": DIGEST}, f"{WEB}@{DIGEST}"),
        (
            {"fromImage": f"{WEB}@{DIGEST}", "platform": "", "repo": ""},
            {"fromImage": WEB, "tag": DIGEST},
            f"{WEB}@{DIGEST}",
        ),
    ],
)
def test_a_pull_is_of_one_admitted_image(query, expected, reference):
    admission = admit_pull(query, actor=CLIENT, policy=STRICT)
    assert answer(admission) == expected
    assert admission.summary == {"reference": reference}


@pytest.mark.parametrize(
    ("asked", "host", "passed"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/amd64/v9", "linux/amd64", False),
        ("linux/s390x", "linux/amd64", False),
        ("linux/amd64", "", False),
    ],
)
def test_a_pull_may_name_the_host_s_own_platform(asked, host, passed):
    admission = admit_pull(
        {"fromImage": WEB, "platform": asked}, actor=CLIENT, policy=STRICT, host=host
    )
    found = answer(admission)
    if passed:
        assert found == {"fromImage": WEB, "tag": "latest", "platform": asked}
    else:
        assert found[0] == "image.platform"


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ({}, "image.invalid"),
        ({"fromImage": "docker.io/xmrig/xmrig", "tag": "latest"}, "image.not-allowed"),
        ({"fromImage": f"{WEB}:1", "tag": "2"}, "image.invalid"),
        ({"fromImage": WEB, "tag": "a b"}, "image.invalid"),
        ({"fromSrc": "-", "repo": WEB, "tag": "1"}, "image.import"),
        ({"fromImage": WEB, "changes": "USER root"}, "query.unknown"),
        ({"fromImage": WEB, "platform": "linux/s390x"}, "image.platform"),
    ],
)
def test_what_is_never_pulled(query, rule):
    assert answer(admit_pull(query, actor=CONTROLLER, policy=STRICT))[0] == rule


def test_references_are_judged_for_looks_at_registries():
    assert admit_reference(WEB, policy=STRICT).summary == {"reference": f"{WEB}:latest"}
    assert answer(admit_reference("evil.example/x", policy=STRICT)) == ("image.not-allowed",)


def test_what_a_changed_policy_no_longer_admits_isnt_started_again():
    assert answer(admit_restart_allowed(REFERENCE, policy=STRICT)) == {}
    narrower = policy(images={"allow": ["ghcr.io/platformnetwork/db"]})
    assert answer(admit_restart_allowed(REFERENCE, policy=narrower)) == ("image.not-allowed",)


@pytest.mark.parametrize(
    ("call", "query", "expected"),
    [
        (admit_start, {}, {}),
        (admit_start, {"checkpoint": "", "detachKeys": "ctrl-p"}, {}),
        (admit_start, {"checkpoint": "x"}, ("start.checkpoint",)),
        (admit_start, {"checkpoint-dir": "/etc"}, ("start.checkpoint",)),
        (admit_start, {"x": "1"}, ("query.unknown",)),
        (admit_stop, {}, {}),
        (admit_stop, {"t": "0"}, {"t": "0"}),
        (admit_stop, {"t": "300", "signal": "SIGINT"}, {"t": "300", "signal": "SIGINT"}),
        (admit_stop, {"t": "301"}, ("stop.timeout",)),
        (admit_stop, {"t": "-1"}, ("stop.timeout",)),
        (admit_stop, {"t": "1.5"}, ("stop.timeout",)),
        (admit_stop, {"t": "\u0661"}, ("stop.timeout",)),
        (admit_stop, {"signal": "SIGBOGUS"}, ("signal.invalid",)),
        (admit_kill, {"signal": "HUP"}, {"signal": "HUP"}),
        (admit_kill, {"signal": "9"}, {"signal": "9"}),
        (admit_kill, {"signal": "1"}, {"signal": "1"}),
        (admit_kill, {"signal": "64"}, {"signal": "64"}),
        (admit_kill, {"signal": "0"}, ("signal.invalid",)),
        (admit_kill, {"signal": "65"}, ("signal.invalid",)),
        (admit_kill, {}, {}),
        (admit_remove, {}, {}),
        # Volumes outlive containers.
        (admit_remove, {"force": "1", "v": "1"}, {"force": "1"}),
        (admit_remove, {"force": "false", "v": "true", "link": "0"}, {}),
        (admit_remove, {"link": "1"}, ("remove.link",)),
        (admit_remove, {"force": "yes"}, ("query.invalid",)),
        (admit_remove, {"volumes": "1"}, ("query.unknown",)),
    ],
)
def test_what_a_query_may_say(call, query, expected):
    assert answer(call(query)) == expected


@pytest.mark.parametrize(
    ("name", "actor", "origin", "rules"),
    [
        ("alice-web-2", CLIENT, "client", None),
        ("alice-web-2", OPERATOR, "client", None),
        ("0123456789ab", CLIENT, "client", ("name.like-an-id",)),
        ("/x", CLIENT, "client", ("name.invalid",)),
        ("", CLIENT, "client", ("name.invalid",)),
        ("web.1-01234567", CLIENT, "client", ("name.reserved",)),
        ("own.1-01234567", CONTROLLER, "controller", None),
        ("other", CONTROLLER, "controller", ("name.final",)),
        ("own.1-01234567", OPERATOR, "controller", None),
        ("other", OPERATOR, "controller", ("name.final",)),
    ],
)
def test_what_the_controller_made_is_renamed_only_back(name, actor, origin, rules):
    own = "own.1-01234567"
    admission = admit_rename(
        {"name": name}, actor=actor, policy=STRICT, admitted=own, origin=origin
    )
    assert answer(admission) == (rules or {"name": name})


def service(image=REFERENCE, **spec):
    parsed = ServiceSpec.model_validate_json(
        ServiceSpec(image=image, **spec).model_dump_json(by_alias=True, exclude_defaults=True)
    )
    return Service(
        KEY, owner="alice", spec=parsed, revision=REVISION, source=SourceLocation("web.yaml")
    )


def create(declared, rules=STRICT):
    name = container_name("default", "web", slot=1, revision=REVISION)
    action = CreateContainer(
        object=KEY,
        target=name,
        cause="missing",
        slot=1,
        service=declared,
        image=declared.spec.image,
    )
    body = create_body(declared, slot=1, image=declared.spec.image, networks=rules.networks.names)
    return preview_action(rules, action, body)


def test_a_planned_create_shows_what_the_gate_will_add():
    verdict = create(service())
    assert verdict.decision == "mutate"
    assert "memory 2Gi" in verdict.mutations
    assert "1 CPUs" in verdict.mutations


def test_a_planned_create_that_the_gate_will_refuse_shows_it():
    assert create(service("alpine:latest")).rules == ("image.not-allowed",)
    other = policy(networks={"modes": ["none"]})
    assert create(service(), other).rules == ("network.mode",)


OTHERS: dict[str, Any] = {"object": KEY, "cause": "because"}


@pytest.mark.parametrize(
    ("action", "rules"),
    [
        (PullImage(target=REFERENCE, **OTHERS), ()),
        (PullImage(target="alpine", **OTHERS), ("image.not-allowed",)),
        (CreateNetwork(target="platform-network", owner="alice", **OTHERS), ()),
        (
            CreateNetwork(
                target="platform-ingress",
                owner="alice",
                internal=False,
                masquerade=False,
                icc=False,
                **OTHERS,
            ),
            (),
        ),
        (
            CreateNetwork(target="platform-network", owner="alice", internal=False, **OTHERS),
            ("network.shape",),
        ),
        (CreateVolume(target="data", owner="alice", **OTHERS), ()),
        (CreateVolume(target="team.data", owner="alice", **OTHERS), ("name.mismatch",)),
        (UpdateContainer(target="x", restart="no", **OTHERS), ()),
        (UpdateContainer(target="x", restart="on-failure", restart_max=11, **OTHERS), ("restart",)),
        (StopContainer(target="x", grace_s=300, **OTHERS), ()),
        (StopContainer(target="x", grace_s=301, **OTHERS), ("stop.timeout",)),
        (
            UpdateContainer(
                target="x", limits={"memory": GIB, "memory_swap": GIB, "pids": 9}, **OTHERS
            ),
            (),
        ),
        (UpdateContainer(target="x", limits={"memory": 64 * GIB}, **OTHERS), ("resources.memory",)),
        (UpdateContainer(target="x", **OTHERS), ("update.empty",)),
    ],
)
def test_other_actions_are_judged_in_advance_too(action, rules):
    verdict = preview_action(STRICT, action, None)
    assert (verdict.rules if verdict.decision == "deny" else ()) == rules


@pytest.mark.parametrize(
    "action",
    [
        StartContainer(target="x", **OTHERS),
        UnpauseContainer(target="x", **OTHERS),
        RenameContainer(target="x", name="y", **OTHERS),
        ConnectNetwork(target="x", network="n", aliases=("y",), **OTHERS),
        DisconnectNetwork(target="x", network="n", **OTHERS),
        RemoveContainer(target="x", **OTHERS),
        RemoveNetwork(target="x", **OTHERS),
        Delay(target="x", **OTHERS),
    ],
)
def test_what_is_judged_by_what_is_there_is_allowed_in_advance(action):
    assert preview_action(STRICT, action, None) == ALLOW


def test_a_file_with_a_body_is_judged_by_itself():
    assert check_create(STRICT, {"Image": REFERENCE}).verdict.decision == "mutate"
    refused = check_create(STRICT, {"Image": REFERENCE, "HostConfig": {"Privileged": True}})
    assert refused.verdict.rules == ("privileged",)
    assert check_create(STRICT, None).malformed


def test_an_exception_that_ended_admits_nothing_in_advance():
    day, end = "2027-01-31", 1_801_440_000.0
    exemption = {
        "owner": "alice",
        "namespace": "default",
        "service": "web",
        "repository": REFERENCE.partition("@")[0].rpartition(":")[0],
        "reason": "the vendor's binary needs it",
        "expires": day,
        "loosens": {"capAdd": ["NET_BIND_SERVICE"]},
    }
    rules = policy(exceptions=[exemption])
    wanted = service(security={"capAdd": ("NET_BIND_SERVICE",)})
    before = create(wanted, rules.at(end - 1))
    assert before.decision == "mutate"
    after = create(wanted, rules.at(end))
    assert (after.decision, after.rules) == ("deny", ("capabilities",))
    assert f"the policy's exception for web ended on {day}" in after.remedy
    assert rules.at(end - 1).next_end == end
    assert rules.at(end).next_end == math.inf
