"""What an exception loosens, and nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from controller.core.rules.context import with_exceptions
from controller.model.policy.document import Policy

EXCEPTION = {
    "owner": "alice",
    "namespace": "team",
    "service": "web",
    "repository": "ghcr.io/platformnetwork/web",
    "reason": "it is as it is",
    "expires": "2027-01-31",
}
#: As strict as it gets, so that every grant shows.
SECTIONS = {
    "name": "strict",
    "security": {"requireNonRoot": True, "requireReadOnlyRoot": True},
    "networks": {"modes": ["none"], "ports": {"hostIPs": ["127.0.0.1"]}},
    "mounts": {"allowed": ["/tmp/"]},
}


def rows(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield from rows(member, f"{path}.{key}".removeprefix("."))
    else:
        yield path, value


def check(*several: dict[str, Any], expected: dict[str, object]) -> None:
    """Compare all that becomes another value for who has exceptions with these grants."""
    exceptions = [{**EXCEPTION, "loosens": loosens} for loosens in several]
    policy = Policy.from_json({**SECTIONS, "exceptions": exceptions})
    before = dict(rows(policy.model_dump(mode="json")))
    after = dict(rows(with_exceptions(policy, policy.exceptions).model_dump(mode="json")))
    assert {path: text for path, text in after.items() if before.get(path) != text} == expected


@pytest.mark.parametrize(
    ("loosens", "expected"),
    [
        (
            {"capAdd": ["NET_BIND_SERVICE"]},
            {"capabilities.allowed": ["CHOWN", "SETUID", "SETGID", "NET_BIND_SERVICE"]},
        ),
        ({"memoryMax": "16Gi"}, {"resources.memory.max": "16Gi"}),
        ({"cpusMax": 6}, {"resources.cpus.max": "6"}),
        ({"pidsMax": 1000}, {"resources.pids.max": 1000}),
        ({"shmMax": "1Gi"}, {"resources.shm_max": "1Gi"}),
        ({"hostPorts": [443]}, {"networks.ports.granted": [443]}),
        ({"hostIPs": ["0.0.0.0"]}, {"networks.ports.host_ips": ["127.0.0.1", "0.0.0.0"]}),
        ({"mounts": ["/srv/x"]}, {"mounts.allowed": ["/tmp/", "/srv/x"]}),
        ({"networks": ["other.net"]}, {"networks.granted": ["other.net"]}),
        ({"modes": ["bridge", "none"]}, {"networks.modes": ["none", "bridge"]}),
        ({"runtimes": ["kata"]}, {"security.runtimes": ["runc", "kata"]}),
        ({"root": True}, {"security.require_non_root": False}),
        ({"writableRoot": True}, {"security.require_read_only_root": False}),
        ({"anonymousVolumes": "slot"}, {"images.anonymous_volumes": "slot"}),
        ({"anonymousVolumes": "scratch"}, {"images.anonymous_volumes": "scratch"}),
        ({"anonymousVolumes": "refuse"}, {}),
        # A grant never takes away.
        ({"memoryMax": "1Mi", "cpusMax": 0.1, "pidsMax": 1, "shmMax": "1Mi"}, {}),
    ],
)
def test_a_grant_loosens_one_thing(loosens: dict[str, Any], expected: dict[str, object]) -> None:
    check(loosens, expected=expected)


def test_what_several_exceptions_grant_comes_together() -> None:
    check(
        {"hostPorts": [443], "root": True},
        {"hostPorts": [80], "pidsMax": 600},
        expected={
            "networks.ports.granted": [443, 80],
            "security.require_non_root": False,
            "resources.pids.max": 600,
        },
    )
