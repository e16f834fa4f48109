"""Replicas, rollouts, restarts and dependencies of Compose."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compose.canonical import desired, problems, project_of, service, trees


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


STEPPED = """services:
  web:
    image: shop:2
    user: '1000'
    working_dir: /srv
    entrypoint: [serve]
    environment: {LEVEL: '1', MODE: plain}
    mem_limit: 512m
    depends_on: {db: {condition: service_healthy, restart: true}}
    networks: {back: {aliases: [site]}}
    tmpfs: [/tmp]
    volumes: [{type: volume, source: data, target: /data}, {type: volume, target: /cache}]
    pre_start:
      - command: [migrate]
        environment: {LEVEL: '2', EMPTY: null}
      - image: busybox:1
        command: [chown, -R, '1000', /data]
        user: root
        working_dir: /data
      - image: check:1
  db: {image: db:1, networks: {back: null}, healthcheck: {test: [CMD, ok]}}
networks: {back: null}
volumes: {data: null}
"""


def test_each_step_before_the_start_is_a_job_of_the_rollout() -> None:
    found = trees(STEPPED)
    web, step = found["Service/web"], found["Job/web-pre-start-1"]
    mounts = [
        {"type": "volume", "source": "data", "target": "/data", "shared": True},
        {"type": "volume", "source": "web-cache", "target": "/cache", "shared": True},
    ]
    named = [f"web-pre-start-{number}" for number in (1, 2, 3)]
    assert web["rollout"] == {"before": named, "order": "StopFirst"}
    assert web["mounts"][:2] == mounts
    assert step == {
        "image": {"fromService": True},
        "command": ["migrate"],
        "user": "1000",
        "workingDir": "/srv",
        "env": {"LEVEL": "2", "MODE": "plain"},
        "resources": {"memory": "512Mi"},
        "network": {"mode": "declared", "attach": ["back"]},
        "mounts": mounts,
        "dependsOn": [{"name": "db", "condition": "Healthy"}],
        "trigger": "Rollout",
        "backoffLimit": 0,
    }
    assert problems(STEPPED) == []


def test_a_step_with_an_image_of_its_own_has_the_user_of_the_image() -> None:
    found = trees(STEPPED)
    root, own = found["Job/web-pre-start-2"], found["Job/web-pre-start-3"]
    usual = {"capAdd": ["CHOWN", "SETGID", "SETUID"]}
    assert (root["image"], root["user"], root["workingDir"]) == ("busybox:1", "root", "/data")
    assert root["security"] == own["security"] == usual
    assert "user" not in own
    assert "command" not in own


def test_steps_have_names_that_fit() -> None:
    text = "services: {storefront: {image: 'x:1', pre_start: [{command: [a]}, {command: [b]}]}}\n"
    found = trees(text)
    first, second = found["Service/storefront"]["rollout"]["before"]
    assert {f"Job/{first}", f"Job/{second}"} < set(found)
    assert first.startswith("storefront-")
    assert problems(text) == []


def test_a_mistake_of_a_step_has_its_place() -> None:
    """What a step has of its service has the place at the service."""
    body = (
        "volumes: [{type: tmpfs, target: /t},\n  {type: volume, source: x, target: v}]\n"
        "pre_start: [{command: [a]},\n  {image: 'x y'}]"
    )
    found = {(p.key.name, p.line) for p in desired(project_of(body)).problems if p.key}
    steps = {("web-pre-start-1", 5), ("web-pre-start-2", 5), ("web-pre-start-2", 7)}
    assert found >= {("web", 5), *steps}


def test_a_step_with_the_name_of_a_service_is_a_clash() -> None:
    text = (
        "services:\n  web-pre-start-1: {image: 'x:1'}\n"
        "  web:\n    image: x:1\n    pre_start: [{command: [a]}]\n"
    )
    found = [line.partition(": names")[0] for line in problems(text) if " error " in line]
    assert found == [
        "2 error compose.name-clash: web-pre-start-1 and pre_start[0] of web have one name, web-pre-start-1",
        "5 error compose.name-clash: pre_start[0] of web and web-pre-start-1 have one name, web-pre-start-1",
    ]


def test_a_sidecar_of_a_network_has_no_steps() -> None:
    text = project_of("network_mode: service:db\npre_start: [{command: [a]}]")
    (problem,) = problems(text + "  db: {image: 'x:1'}\n")
    assert problem.startswith(
        "5 error compose.refused: pre_start is not supported beside network_m"
    )


STEP_FAULTS = [
    (
        "pre_start: [{command: [a], per_replica: true}]",
        "4 error compose.refused: pre_start[0].per_replica is not supported: a step runs once",
    ),
    (
        "pre_start: [{command: [a]}, {command: [b], privileged: true}]",
        "4 error compose.refused: pre_start[1].privileged is not supported: a privileged command",
    ),
    (
        "pre_start: [{command: [a]}]\ndeploy: {mode: replicated-job}",
        "4 error compose.refused: a Job has no pre_start",
    ),
    ("pre_start: [{command: [a], per_replica: false, privileged: false}]", ""),
    ("pre_start: []", ""),
]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        *STEP_FAULTS,
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
