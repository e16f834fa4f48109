"""The policy's section ``sources``: forms and contradictions."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.core.policy.text import describe, load_policy
from controller.model.errors import PolicyInvalid
from controller.model.policy.document import Policy

RULE: dict[str, Any] = {
    "source": "shop",
    "namespaces": ["shop"],
    "require": "signed",
    "keys": "release",
    "path": "deploy/production",
    "since": "ab" * 20,
}


def policy(*rules: dict[str, Any], **more: Any) -> Policy:
    return Policy.from_json({"name": "p", "sources": list(rules), **more})


def test_a_namespace_has_its_signed_source_and_the_policy_says_so() -> None:
    made = policy(RULE)
    assert made.signed_source("shop") == made.sources[0]
    assert made.signed_source("default") is None
    (row,) = (line for line in describe(made) if "signed only" in line)
    assert "shop: commits of Source shop, folder deploy/production, by keys release" in row
    assert Policy.from_json(made.to_json()) == made
    assert policy().digest != made.digest


@pytest.mark.parametrize(
    "change",
    [
        {"require": "reviewed"},
        {"require": None},
        {"keys": "../keys"},
        {"keys": ""},
        {"source": "Shop"},
        {"namespaces": []},
        {"path": ""},
        {"path": "../other"},
        {"path": "/deploy"},
        {"path": "deploy/"},
        {"since": "ab" * 19},
        {"since": "main"},
        {"more": 1},
    ],
)
def test_another_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy({**RULE, **change})


def test_a_rule_without_its_first_commit_is_refused() -> None:
    with pytest.raises(ValidationError, match="since"):
        policy({name: value for name, value in RULE.items() if name != "since"})


CLIENT = (
    "owners: [{{name: team, namespaces: [shop]}}]\nclients: [{{uid: 1000, owner: team}}]\n"
    "sources: [{0}]"
)
CONTRADICTIONS = (
    ("sources: [{0}, {0}]", "'shop' is listed twice"),
    ("sources: [{0}, {1}]", "'shop' is listed twice"),
    (CLIENT, "a client signs nothing: its namespace requires signed"),
)


@pytest.mark.parametrize(("text", "why"), CONTRADICTIONS)
def test_a_contradiction_is_refused_at_its_place(text: str, why: str) -> None:
    rule = "{source: %s, namespaces: [shop], require: signed, keys: k, since: " + "ab" * 20 + "}"
    with pytest.raises(PolicyInvalid, match=why):
        load_policy(f"name: p\n{text.format(rule % 'shop', rule % 'lab')}\n", "policy.yaml")
