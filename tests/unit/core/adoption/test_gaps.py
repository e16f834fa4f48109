"""The closed list of hardening that an operator can admit, and everything that nobody can."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.adoption.gaps import (
    DEFAULT_CAPABILITIES,
    capabilities_of,
    gaps_in_words,
    gaps_of,
    judge_gaps,
    judge_hardening,
    read_gaps,
)
from controller.core.engine_api.requests import CreateRequest, LogConfig
from controller.model.confinement import GAPS, Gap

BOUNDED = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
DOCUMENT = CreateRequest(
    cap_add=("CHOWN",),
    log=LogConfig("json-file", (("max-file", "3"), ("max-size", "10m"))),
    read_only_root=True,
)
HARDENED: dict[str, Any] = {
    "CapAdd": ["CAP_CHOWN"],
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges:true"],
    "LogConfig": BOUNDED,
    "ReadonlyRootfs": True,
}
#: The gaps that are hardening.
HARDENING = GAPS[:4]
PLAIN: dict[str, Any] = {"LogConfig": {"Type": "json-file", "Config": {}}}


def gaps(host: dict[str, Any]) -> list[str]:
    return [gap.value for gap in gaps_of(host, DOCUMENT)]


def refusals(host: dict[str, Any]) -> list[str]:
    return [each.rule for each in judge_hardening(host, DOCUMENT, ("json-file", "local"))]


def test_a_hardened_container_has_no_gap() -> None:
    assert gaps(HARDENED) == []
    assert refusals(HARDENED) == []


def test_a_plain_container_has_every_gap_and_nothing_worse() -> None:
    assert gaps(PLAIN) == list(HARDENING)
    assert refusals(PLAIN) == []
    assert capabilities_of(PLAIN) == DEFAULT_CAPABILITIES


@pytest.mark.parametrize(
    ("member", "value", "rule"),
    [
        ("CapAdd", ["CHOWN", "SYS_ADMIN"], "capabilities"),
        ("CapAdd", ["ALL"], "capabilities"),
        ("CapAdd", ["cap_net_admin", "CHOWN"], "capabilities"),
        ("CapAdd", [], "adopt.differs"),
        ("SecurityOpt", ["seccomp=unconfined"], "security-opt"),
        ("SecurityOpt", ["no-new-privileges:true", "apparmor=unconfined"], "security-opt"),
        ("LogConfig", {"Type": "syslog", "Config": {}}, "log.driver"),
        ("LogConfig", {"Type": "none", "Config": {}}, "log.driver"),
        ("LogConfig", {}, "log.driver"),
    ],
)
def test_nobody_can_admit_more(member: str, value: object, rule: str) -> None:
    assert refusals({**HARDENED, member: value})[0] == rule


def test_a_gap_needs_its_name() -> None:
    found = list(judge_gaps(gaps_of(PLAIN, DOCUMENT), {"logs", "capabilities"}))
    assert [(each.rule, each.path) for each in found] == [
        ("adopt.gap", "new-privileges"),
        ("adopt.gap", "writable-root"),
    ]
    assert found[0].remedy == "admit it with --admit new-privileges"


def test_only_known_gaps_are_read() -> None:
    assert read_gaps(["logs"]) == frozenset({"logs"})
    assert read_gaps(["privileged"]) is None
    assert read_gaps([["logs"]]) is None
    assert read_gaps([]) == frozenset()


def test_each_gap_is_said_in_words() -> None:
    assert gaps_in_words([Gap.LOGS, "later"]) == ["the document's log bounds (logs)", "later"]
