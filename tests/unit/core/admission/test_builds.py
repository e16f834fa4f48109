"""Builds: which parameters are admitted, whose documents may build, and which names a build gets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.admission.builds import (
    BuildRequest,
    judge_dockerfile,
    judge_kernel,
    judge_tag,
    read_build,
)
from controller.core.builds import dockerfile
from controller.core.policy.text import load_policy
from controller.model import names
from controller.model.inventory import TrustedImage
from controller.model.policy.document import OPERATOR_OWNER, Policy
from controller.model.records import Actor
from tests.unit.core.creates import (
    CONTROLLER,
    CONTROLLER_LABELS,
    FACTS,
    IMAGE,
    OPERATOR,
    REFERENCE,
    denials,
    judged,
    judged_for_controller,
    policy,
)

HOST = "linux/amd64"
TAG = "ghcr.io/platformnetwork/built:1"
GRANTED = policy(images={"build": {}})
PLACE = {names.OWNER: "alice", names.NAMESPACE: "default", names.SERVICE: "web"}


def asked(
    actor: Actor = CONTROLLER, rules: Policy = GRANTED, **query: str
) -> BuildRequest | tuple[str, ...]:
    """Return the request, or the rules that refuse it."""
    labels = {"labels": json.dumps(PLACE)} if actor is CONTROLLER else {}
    read = read_build({"t": TAG, **labels, **query}, actor=actor, policy=rules, host=HOST)
    return read if isinstance(read, BuildRequest) else tuple(each.rule for each in read)


@pytest.mark.parametrize("name", ["strict", "production"])
def test_strict_and_production_grant_no_builds(name: str) -> None:
    assert shipped_policy(name).images.build is None
    assert asked(rules=policy()) == asked(OPERATOR, policy()) == ("build.denied",)


@pytest.mark.parametrize("name", ["home", "development"])
def test_home_and_development_grant_builds_within_bounds(name: str) -> None:
    assert shipped_policy(name).images.build is not None


def shipped_policy(name: str) -> Policy:
    return load_policy(Path(f"configs/policies/{name}.yaml").read_text(), f"{name}.yaml")


def test_the_engine_gets_the_policys_limits_whatever_is_asked() -> None:
    rules = policy(images={"build": {"memory": "1Gi", "cpus": 0.5, "network": "default"}})
    found = asked(OPERATOR, rules, pull="1", networkmode="default", dockerfile="./a/../b")
    assert isinstance(found, BuildRequest)
    assert found.query == {
        "version": "1",
        "dockerfile": "b",
        "buildargs": "{}",
        "labels": "{}",
        "networkmode": "default",
        "memory": str(1 << 30),
        "memswap": str(1 << 30),
        "cpuperiod": "100000",
        "cpuquota": "50000",
        "nocache": "1",
        "rm": "1",
        "forcerm": "1",
    }
    assert (found.owner, found.by_operator, found.pull) == (OPERATOR_OWNER, True, True)
    less = asked(OPERATOR, rules, memory="100000000", networkmode="none")
    assert isinstance(less, BuildRequest)
    assert (less.query["memory"], less.query["networkmode"]) == ("100000000", "none")


def test_documents_build_for_their_owner_where_the_policy_lists_the_owner() -> None:
    found = asked(buildargs='{"A":"1","B":null}')
    assert isinstance(found, BuildRequest)
    assert (found.owner, found.namespace, found.service) == ("alice", "default", "web")
    assert (found.labels, found.args) == ({}, {"A": "1"})
    listed = policy(images={"build": {"owners": ["bob"]}})
    assert asked(rules=listed) == ("build.owner",)
    assert isinstance(asked(OPERATOR, listed), BuildRequest)
    known = policy(images={"build": {}}, owners=[{"name": "bob"}])
    assert asked(rules=known) == ("owner.unknown",)


def test_documents_that_name_the_operators_owner_are_no_operator() -> None:
    found = asked(labels=json.dumps({**PLACE, names.OWNER: OPERATOR_OWNER}))
    assert isinstance(found, BuildRequest)
    assert (found.owner, found.by_operator) == (OPERATOR_OWNER, False)


def test_no_build_is_signed() -> None:
    signed = policy(
        images={"build": {}},
        sources=[
            {
                "source": "shop",
                "namespaces": ["default"],
                "keys": "release",
                "require": "signed",
                "since": "0" * 40,
            }
        ],
    )
    assert asked(rules=signed) == ("build.signed",)


def test_an_operator_places_nothing_by_labels() -> None:
    assert asked(OPERATOR, labels=json.dumps(PLACE)) == ("build.label",) * 3


def test_a_limit_that_the_kernel_cant_keep_is_refused_unless_the_policy_does_without() -> None:
    ignores = ("Memory", "MemorySwap")
    assert [each.rule for each in judge_kernel(GRANTED, ignores)] == ["build.limit"] * 2
    loose = policy(images={"build": {}}, engine={"ignores": ["memory", "swap"]})
    assert [*judge_kernel(loose, ignores)] == []


def test_bases_are_bounded_beside_the_admitted_images() -> None:
    rules = policy(images={"build": {"base": ["ghcr.io/platformnetwork/base"]}})

    def found(text: str) -> list[tuple[str, str]]:
        read = dockerfile.read(text, args={}, target=None, platform=HOST)
        return [(each.rule, each.path) for each in judge_dockerfile(read, "Dockerfile", rules, ())]

    assert found("FROM ghcr.io/platformnetwork/base:1\n") == []
    assert found("FROM scratch\nCOPY x /\n") == []
    assert found("\nFROM ghcr.io/platformnetwork/web:1\n") == [("build.base", "Dockerfile:2")]
    assert found("FROM alpine\n") == [("image.not-allowed", "Dockerfile:1")]


def test_a_build_of_documents_never_takes_the_name_of_another_image() -> None:
    def found(owner: str, present: str, trusted: TrustedImage | None) -> list[str]:
        return [each.rule for each in judge_tag(TAG, owner, present, trusted)]

    own = TrustedImage(TAG, "sha256:1", owner="alice")
    assert found("alice", "", None) == found("alice", "sha256:1", own) == []
    assert found("alice", "", own) == []
    taken = ["build.tag-taken"]
    assert found("alice", "sha256:1", None) == taken  # somebody's local image
    assert found("alice", "sha256:2", own) == taken  # tagged past the gate
    assert found("alice", "sha256:1", TrustedImage(TAG, "sha256:1")) == taken  # pulled
    assert found("bob", "sha256:1", own) == taken


def test_an_image_that_documents_built_runs_for_their_owner_alone() -> None:
    built = replace(FACTS, trusted=TrustedImage(REFERENCE, IMAGE.id, owner="alice"))
    assert denials(judged_for_controller(labels=CONTROLLER_LABELS, facts=built)) == ()
    bobs = {**CONTROLLER_LABELS, names.OWNER: "bob"}
    assert denials(judged_for_controller(labels=bobs, facts=built)) == ("image.untrusted",)
    assert denials(judged(facts=built)) == ()  # alice's client
    trusting = policy(profile="development", images={"trustLocal": ["ghcr.io/platformnetwork/"]})
    others = judged_for_controller(labels=bobs, facts=built, rules=trusting)
    assert denials(others) == ("image.untrusted",)
    replaced = replace(built, image=replace(IMAGE, id="sha256:" + "9" * 64))
    assert denials(judged_for_controller(labels=bobs, facts=replaced, rules=trusting)) == ()
