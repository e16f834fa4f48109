"""The cache of verdicts: which requests are judged again."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from controller.app.controller import parse_pass_policy, pass_policy
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.core.planning.slot_plan import hypothetical_create
from controller.engine.adapter import VerdictCache
from controller.model.desired.desired import Desired, SourceLocation
from controller.model.names import NetworkNames
from controller.model.policy.document import Policy
from controller.model.records import ALLOW, Verdict
from tests import worlds
from tests.worlds import service


def judged(*digests: str, size_max: int) -> list[str]:
    """Return the requests that were judged."""
    cache, asked = VerdictCache(size_max), list[str]()

    def judge(digest: str) -> Verdict:
        asked.append(digest)
        return ALLOW

    for digest in digests:
        assert cache.get(digest, partial(judge, digest)) is ALLOW
    return asked


def test_a_request_is_judged_once() -> None:
    assert judged("a", "b", "a", "b", size_max=2) == ["a", "b"]


def test_the_request_that_was_not_asked_for_longest_is_judged_again() -> None:
    assert judged("a", "b", "a", "c", "a", "b", size_max=2) == ["a", "b", "c", "b"]


def test_a_denial_names_the_place_of_the_document_as_the_document_is_now() -> None:
    policy = pass_policy(
        Policy.from_json({"name": "p", "images": {"allow": ["ghcr.io/other/"]}}), "d"
    )
    prerequisites = Prerequisites(Desired(), worlds.engine(), NetworkNames())
    places = []
    for line in (1, 1, 7):
        web = replace(service("web"), source=SourceLocation("web.yaml", line))
        verdict = policy.judge(hypothetical_create(web, prerequisites))
        assert verdict.decision == "deny"
        places.append(verdict.problems[0].place)
    assert places == ["web.yaml:1", "web.yaml:1", "web.yaml:7"]


def test_an_exception_that_ended_changes_the_policy_of_passes() -> None:
    exemption = {
        "owner": "team",
        "namespace": "default",
        "service": "web",
        "repository": worlds.IMAGE.rpartition(":")[0],
        "reason": "the vendor's binary needs it",
        "expires": "1970-01-01",
        "loosens": {"capAdd": ["NET_BIND_SERVICE"], "anonymousVolumes": "slot"},
    }
    rules = {"name": "p", "images": {"allow": ["ghcr.io/"]}, "exceptions": [exemption]}
    payload = {"digest": "d", "policy": Policy.from_json(rules).to_json()}
    web = service("web", security={"capAdd": ["NET_BIND_SERVICE"]})
    prerequisites = Prerequisites(Desired(), worlds.engine(), NetworkNames())
    found = []
    for now in (1.0, 86_400.0):
        policy = parse_pass_policy(payload, now)
        decision = policy.judge(hypothetical_create(web, prerequisites)).decision
        found.append((policy.digest, policy.valid_until, decision, policy.volume_rule(web)))
    assert found == [("d", 86_400.0, "mutate", "slot"), ("d-1", math.inf, "deny", "refuse")]
