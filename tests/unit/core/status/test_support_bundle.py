"""A support bundle has allowed fields alone, with values of their forms: no secret, wherever it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.encoding.json_values import list_of
from controller.core.status.support_bundle import (
    ALLOWED,
    AllowedForm,
    Each,
    Spec,
    bundle,
    counts,
    listed,
)

#: A password, a token, a key, a path, an address with credentials, a sentence.
SECRETS = (
    "hunter2",
    "correct horse battery staple",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "AKIAIOSFODNN7EXAMPLE",
    "AGE-SECRET-KEY-1QQPQ",
    "https://bot:s3cr3t@git.example/shop.git",
    "/etc/shop/s3cr3t.yaml",
    "1.2.3 s3cr3t",
    "2026-12-02T10:00:00Z s3cr3t",
    "sha256:s3cr3t",
    "default/s3cr3t",
    "PASSWORD=s3cr3t",
    "s3cr3t\n",
    "-----BEGIN PRIVATE KEY-----",
)


def planted(spec: Spec, secret: str) -> Any:
    """Return a report with a secret as each value, as each name of a mapping, and in members besides."""
    match spec:
        case AllowedForm():
            return secret
        case Each(value=value):
            return {secret: planted(value, secret), "deny": planted(value, secret)}
        case list():
            return [planted(spec[0], secret), secret, {secret: secret}]
        case _:
            members = {key: planted(each, secret) for key, each in spec.items()}
            return members | {secret: secret, "message": secret}


def texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, each in value.items():
                yield key
                yield from texts(each)
        case list():
            for each in value:
                yield from texts(each)


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_in_a_bundle_wherever_it_stands(secret: str) -> None:
    reports = planted(ALLOWED, secret)
    records = [
        {"stage": secret, "id": "1", "request": {"route": secret, "summary": {"note": secret}}},
        {"stage": "refusal", "id": "2", "verdict": {"rules": [secret], "reason": secret}},
    ]
    found = bundle({**reports, "records": counts(records)})
    # A name of a resource may be such a word: users choose it, and see it everywhere.
    rows: list[Any] = [*list_of(found.get("resources")), *list_of(found.get("sources"))]
    for row in rows:
        for name in ("name", "namespace"):
            row.pop(name, "")
    assert not [text for text in texts(found) if secret.strip() in text]


@given(
    st.recursive(st.text() | st.integers(), lambda s: st.lists(s) | st.dictionaries(st.text(), s))
)
def test_any_report_leads_to_a_bundle(report: Any) -> None:
    for name in ALLOWED:
        assert bundle({name: report}).keys() <= {name}


def test_what_is_allowed_is_there() -> None:
    time = "2026-12-02T10:00:00.000Z"
    condition = {"type": "Ready", "status": "False", "reason": "container.foreign", "since": time}
    resource = {"kind": "Service", "namespace": "shop", "name": "web", "desired": 2, "ready": 0}
    reports: dict[str, object] = {
        "versions": {"trimtab": "0.1.0", "kernel": "6.12.9-amd64", "machine": "riscv64"},
        "resources": [{**resource, "conditions": [condition]}],
        "policy": {"name": "my own", "modes": {"image.not-allowed": "warn"}},
        "checks": [{"check": "docker group", "level": "warning"}],
        "sizes": {"journal": 17},
    }
    assert bundle(reports) == {
        **reports,
        "versions": {"trimtab": "0.1.0", "kernel": "6.12.9-amd64", "machine": "other"},
        "policy": {"name": "other", "modes": {"image.not-allowed": "warn"}},
    }


def test_records_are_counted_by_kind_and_rule() -> None:
    records: list[dict[str, Any]] = [
        {"stage": "intent", "id": "1", "request": {"route": "container.create"}},
        {"stage": "outcome", "id": "1", "result": {"durationMs": 40}},
        {"stage": "intent", "id": "2", "request": {"route": "container.create"}},
        {"stage": "outcome", "id": "2", "result": {"durationMs": 60}},
        {"stage": "refusal", "id": "3", "verdict": {"rules": ["mount.not-allowed", "used:0190"]}},
    ]
    assert bundle({"records": counts(records)})["records"] == {
        "read": 5,
        "kinds": {"intent.container.create": 2, "outcome.container.create": 2, "refusal.other": 1},
        "rules": {"mount.not-allowed": 1},
        "milliseconds": [
            {"action": "container.create", "count": 2, "p50": 60, "p95": 60, "longest": 60}
        ],
    }


def test_every_field_is_listed_with_its_form() -> None:
    rows = dict(listed())
    assert rows["resources[].conditions[].since"] == "a time"
    assert rows["resources[].namespace"] == "the name of a resource or namespace"
    assert {path.partition(".")[0].removesuffix("[]") for path in rows} == ALLOWED.keys()
    json.dumps(rows)
