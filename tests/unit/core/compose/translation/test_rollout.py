"""Replicas, rollouts, restarts and dependencies of Compose."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compose.canonical import problems, project_of, service, trees


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ("", {}),
        ("scale: 3", {"replicas": 3}),
        ("deploy: {replicas: 0}", {"replicas": 0}),
        ("deploy: {mode: global}", {}),
        ("restart: always", {}),
        ("restart: unless-stopped", {}),
        ('restart: "no"', {"restart": {"policy": "Never"}}),
        ("restart: on-failure:3", {"restart": {"policy": "OnFailure"}}),
        ("deploy: {restart_policy: {condition: none}}", {"restart": {"policy": "Never"}}),
        ("restart: always\ndeploy: {restart_policy: {condition: any}}", {}),
        (
            "deploy: {update_config: {order: start-first, parallelism: 2, delay: 10s, monitor: 5s}}",
            {
                "rollout": {
                    "order": "StartFirst",
                    "parallelism": 2,
                    "maxUnavailable": 2,
                    "minHealthy": "10s",
                }
            },
        ),
        (
            "scale: 4\ndeploy: {update_config: {parallelism: 0, failure_action: pause}}",
            {
                "replicas": 4,
                "rollout": {"parallelism": 4, "maxUnavailable": 4, "onFailure": "Pause"},
            },
        ),
        (
            "deploy: {rollback_config: {order: stop-first, parallelism: 2, delay: 3s}, placement: {constraints: [a]}}",
            {
                "rollout": {
                    "rollback": {
                        "order": "StopFirst",
                        "parallelism": 2,
                        "maxUnavailable": 2,
                        "minHealthy": "3s",
                    }
                }
            },
        ),
    ],
)
def test_an_attribute_becomes_a_field(body: str, fields: dict[str, Any]) -> None:
    spec = service(body)
    assert {
        name: spec[name] for name in ("replicas", "restart", "rollout") if name in spec
    } == fields


HOOKED = """
post_start:
  - command: [chown, -R, '1000', /data]
    user: root
  - {command: [warm, up], working_dir: /srv, environment: {LEVEL: '2', EMPTY: null}}
pre_stop: [{command: [drain]}]
"""


def test_hooks_become_a_lifecycle() -> None:
    assert service(HOOKED)["lifecycle"] == {
        "postStart": [
            {"exec": ["chown", "-R", "1000", "/data"], "user": "root"},
            {"exec": ["warm", "up"], "workingDir": "/srv", "env": {"LEVEL": "2"}},
        ],
        "preStop": [{"exec": ["drain"]}],
    }


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("restart: sometimes", "4 error compose.refused: restart sometimes is unknown"),
        (
            "scale: 2\ncontainer_name: x",
            "5 error compose.refused: container_name names one container",
        ),
        (
            "deploy: {update_config: {failure_action: continue}}",
            "4 error compose.refused: failure_action: continue",
        ),
        (
            "deploy: {update_config: {max_failure_ratio: 0.5}}",
            "4 error compose.refused: max_failure",
        ),
        (
            "deploy: {restart_policy: {condition: any, delay: 5s}}",
            "4 warning compose.by-policy: delay",
        ),
        ("deploy: {mode: global}", "4 warning compose.by-policy: a service of mode global"),
        (
            "restart: on-failure:3",
            "4 warning compose.by-policy: restart on-failure:3: restarts go on",
        ),
        ("restart: on-failure:0", ""),
        ("depends_on: {nobody: {required: true}}", "4 error compose.refused: service nobody"),
        ("depends_on: {nobody: {required: false}}", ""),
        ("depends_on: {nobody: {required: false, restart: true}}", ""),
    ],
)
def test_an_attribute_has_a_problem_at_its_line(body: str, problem: str) -> None:
    found = problems(project_of(body))
    assert len(found) == bool(problem), found
    assert not problem or found[0].startswith(problem), found


def test_a_service_that_others_wait_for_is_a_job_unless_it_is_restarted() -> None:
    text = (
        "services:\n"
        "  web:\n    image: x:1\n    depends_on: {seed: {condition: service_completed_successfully}}\n"
        "  late:\n    image: x:1\n    depends_on: {seed: {condition: service_started}}\n"
        "  seed:\n    image: x:1\n"
    )
    completed = [{"kind": "Job", "name": "seed", "condition": "Completed"}]
    found = trees(text)
    assert found["Service/web"]["dependsOn"] == found["Service/late"]["dependsOn"] == completed
    assert found["Job/seed"] == {
        "image": "x:1",
        "security": {"capAdd": ["CHOWN", "SETGID", "SETUID"]},
        "network": {"mode": "isolated"},
        "backoffLimit": 0,
    }
    assert trees(text + '    restart: "no"\n')["Job/seed"]["backoffLimit"] == 0
    assert "Service/seed" in trees(text + "    restart: on-failure\n")
    assert problems(text) == []
    (always,) = problems(text + "    restart: always\n")
    assert always.startswith("4 error dependency.condition: Service/shop/seed")


def test_a_job_has_no_ports_and_no_health_check() -> None:
    text = (
        "services:\n"
        "  web:\n    image: x:1\n    depends_on: {seed: {condition: service_completed_successfully}}\n"
        "  seed:\n    image: x:1\n    ports: [{target: 80}]\n    healthcheck: {test: [CMD, x]}\n"
    )
    assert problems(text) == [
        "7 warning compose.by-policy: a Job has no ports",
        "8 warning compose.by-policy: a Job has no health check: its exit code counts",
    ]
