"""The attributes of a service's container, each with the field that it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.compose.translation.scope import ComposeSettings
from tests.unit.core.compose.canonical import problems, project_of, service

#: What every service has without further attributes.
USUAL = {
    "image": "nginx:1.27",
    "security": {"capAdd": ["CHOWN", "SETGID", "SETUID"]},
    "network": {"mode": "isolated"},
}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ("command: [a, $b]", {"command": ["a", "$b"]}),
        ("entrypoint: [/e]\ncommand: []", {"entrypoint": ["/e"]}),
        ("environment: {A: '1', B: ''}", {"env": {"A": "1", "B": ""}}),
        ("labels: {a: b}", {"containerLabels": {"a": "b"}}),
        ("stop_grace_period: 1m30s", {"stopGracePeriod": "90s"}),
        ("stop_grace_period: 1.5s", {"stopGracePeriod": "2s"}),
        ("hostname: h\ndomainname: d", {"hostname": "h", "domainname": "d"}),
        ("init: true\ntty: true\nstdin_open: true", {"init": True, "tty": True, "stdin": True}),
        ("working_dir: /srv\nuser: '0'", {"workingDir": "/srv", "user": "0"}),
        ("group_add: [docker, 5]", {"groupAdd": ["docker", "5"]}),
        ("pull_policy: missing", {"pullPolicy": "IfNotPresent"}),
        ("pull_policy: always", {"pullPolicy": "Always"}),
        ("pids_limit: 100\ncpus: 0.5", {"resources": {"cpus": 0.5, "pids": 100}}),
        ("pids_limit: -1", {}),
        ("mem_limit: '67108864'\nshm_size: 64m", {"resources": {"memory": "64Mi", "shm": "64Mi"}}),
        (
            "deploy: {resources: {limits: {memory: 1g, cpus: '2', pids: 9}, reservations: {memory: 1m}}}",
            {"resources": {"memory": "1Gi", "cpus": 2, "pids": 9, "memoryReservation": "1Mi"}},
        ),
        (
            "sysctls: {net.core.somaxconn: 1024}",
            {"sysctls": {"net.core.somaxconn": "1024"}},
        ),
        (
            "ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}",
            {"ulimits": {"nproc": 5, "nofile": {"soft": 1, "hard": 2}}},
        ),
        (
            "dns: [1.1.1.1]\ndns_opt: [ndots:2]",
            {"dns": {"servers": ["1.1.1.1"], "options": ["ndots:2"]}},
        ),
        (
            "extra_hosts: ['a=1.2.3.4', 'b:host-gateway', 'c=[::1]']",
            {"extraHosts": {"a": "1.2.3.4", "b": "host-gateway", "c": "::1"}},
        ),
        (
            "extra_hosts: ['a=1.2.3.4', 'a=::1', 'b=1.2.3.4', 'a=1.2.3.4']",
            {"extraHosts": {"a": "1.2.3.4,::1", "b": "1.2.3.4"}},
        ),
        (
            "devices: [{source: /dev/fuse, target: /dev/f, permissions: mwr}, {source: n.com/gpu=0}]",
            {
                "devices": [
                    {"path": "/dev/fuse", "target": "/dev/f", "permissions": "rwm"},
                    {"cdi": "n.com/gpu=0"},
                ]
            },
        ),
        (
            "logging: {driver: local, options: {max-size: 10m, max-file: '3', compress: 'true'}}",
            {"logs": {"driver": "local", "maxSize": "10Mi", "maxFiles": 3, "compress": True}},
        ),
        (
            "logging: {driver: gelf, options: {gelf-address: 'udp://h:1', cache-max-size: 1m, mode: non-blocking}}",
            {
                "logs": {
                    "driver": "gelf",
                    "options": {"gelf-address": "udp://h:1", "mode": "non-blocking"},
                    "maxSize": "1Mi",
                }
            },
        ),
        (
            "healthcheck: {test: [CMD-SHELL, curl -f x], interval: 1m30s, retries: 5, start_period: 0s}",
            {
                "healthcheck": {
                    "exec": ["/bin/sh", "-c", "curl -f x"],
                    "interval": "90s",
                    "startPeriod": "0ms",
                    "retries": 5,
                }
            },
        ),
        ("healthcheck: {test: [NONE]}", {}),
        ("healthcheck: {disable: true}", {}),
        (
            "healthcheck: {test: [CMD, x], retries: 20, interval: 5s}",
            {"healthcheck": {"exec": ["x"], "interval": "5s", "retries": 10, "startPeriod": "80s"}},
        ),
    ],
)
def test_an_attribute_becomes_a_field(body: str, fields: dict[str, Any]) -> None:
    assert service(body) == {**USUAL, **fields}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("", ["CHOWN", "SETGID", "SETUID"]),
        ("cap_add: [CAP_NET_ADMIN]", ["NET_ADMIN", "CHOWN", "SETGID", "SETUID"]),
        ("cap_drop: [CHOWN]", ["SETGID", "SETUID"]),
        ("cap_drop: [ALL]\ncap_add: [CHOWN]", ["CHOWN"]),
        ("cap_drop: [ALL]", None),
        ("user: '1000:1000'", None),
        ("user: root", ["CHOWN", "SETGID", "SETUID"]),
    ],
)
def test_a_service_asks_for_the_usual_capabilities(body: str, names: list[str] | None) -> None:
    assert service(body).get("security", {}).get("capAdd") == names


def test_the_policy_chooses_the_usual_capabilities() -> None:
    settings = ComposeSettings(capabilities=("CHOWN", "FOWNER"))
    assert service("", settings=settings)["security"] == {"capAdd": ["CHOWN", "FOWNER"]}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("build: {context: .}", "4 warning compose.by-policy: build has no effect"),
        ("environment: {A: null}", "4 warning compose.no-value: A has no value"),
        (
            "ipc: host",
            "4 error compose.refused: ipc: host is not supported: a namespace of the host",
        ),
        ("pid: container:db", "4 error compose.refused: pid: container:db is not supported"),
        ("ipc: private", ""),
        ("cgroup: private", "4 warning compose.by-policy: cgroup: the engine's default"),
        ("cap_add: [ALL]", "4 error compose.refused: cap_add: ALL makes the container root"),
        ("security_opt: ['no-new-privileges:true']", ""),
        ("security_opt: [seccomp=unconfined]", "4 error compose.refused: security_opt seccomp"),
        ("logging: {driver: splunk}", "4 error compose.refused: logging driver splunk"),
        ("logging: {options: {tag: x}}", "4 error compose.refused: logging option tag"),
        ("command: []", "4 error compose.refused: an empty command can't remove the image's own"),
        ("pull_policy: build", "4 error compose.refused: pull_policy build is not supported"),
        ("healthcheck: {interval: 5s}", "4 error compose.refused: the health check has no test"),
        ("healthcheck: {disable: true}", "4 warning compose.by-policy: healthcheck.disable"),
        ("healthcheck: {test: [NONE]}", "4 warning compose.by-policy: healthcheck.test NONE"),
        ("storage_opt: {x: y}", "4 error compose.refused: storage_opt x"),
        ("privileged: false", ""),
        ("user: 'a b'", "4 error field.value: spec.user"),
        (f"user: '{'9' * 5000}'", "4 error field.value: spec.user"),
        (f"storage_opt: {{size: '{'9' * 400}'}}", "4 error field.value: spec.resources.disk"),
        ("nonsense: 1", "4 error compose.unknown: nonsense is no attribute"),
        ("x-mine: {a: [1]}", ""),
        ("stop_grace_period: 10m", "4 error field.value: spec.stopGracePeriod"),
    ],
)
def test_an_attribute_has_a_problem_at_its_line(body: str, problem: str) -> None:
    found = problems(project_of(body))
    assert found[:1] == ([found[0]] if problem else []), found
    assert not problem or found[0].startswith(problem), found


def test_a_service_without_an_image_says_how_to_get_one() -> None:
    (found, *_) = problems("services:\n  web:\n    build: {context: .}\n")
    assert (
        found == "3 error build.context: nothing can be built here: only the Compose file is known"
    )
