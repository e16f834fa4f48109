"""A revision names what a replica was made from, and never changes by itself.

The golden vectors are promises to every host that runs trimtab: another value would replace all
of its containers. A new field or a new default must leave them as they are.
"""

import pytest

from controller.core.manifests.check_together import desired_of

FULL = """
apiVersion: trimtab/v1
kind: Service
metadata: {name: full, namespace: prod, owner: team, labels: {a: b}}
spec:
  image: ghcr.io/platformnetwork/api:1.4.2
  pullPolicy: Always
  state: Stopped
  entrypoint: [/usr/bin/api]
  command: [--listen, ":8080"]
  env: {LOG_LEVEL: info}
  workingDir: /srv
  user: "1000:1000"
  init: true
  stopSignal: SIGINT
  stopGracePeriod: 30s
  ports: [{container: 5432, host: 15432, hostIP: 127.0.0.2, protocol: udp}]
  mounts:
    - {type: bind, source: /var/lib/platform/api, target: /srv/static, readOnly: true}
    - {type: volume, source: data, target: /data, shared: true}
    - {type: tmpfs, target: /scratch, size: 16Mi}
  network: {mode: bridge, attach: []}
  resources: {memory: 512Mi, cpus: 0.5, pids: 128, shm: 64Mi}
  security: {capAdd: [CHOWN], readOnlyRootFilesystem: true}
  healthcheck: {exec: [/bin/true], interval: 10s, timeout: 2s, retries: 5, startPeriod: 1m}
  restart: {policy: OnFailure}
  rollout: {order: StopFirst}
  dependsOn: [{name: db}]
  logs: {maxSize: 1Mi, maxFiles: 2}
  containerLabels: {x: y}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: db, namespace: prod, owner: team}
spec: {image: "a/b:1"}
"""


def service_of(spec: str, *, name: str = "web", namespace: str = "default", owner: str = "team"):
    text = (
        "apiVersion: trimtab/v1\nkind: Service\n"
        f"metadata: {{name: {name}, namespace: {namespace}, owner: {owner}}}\n"
        f"spec: {{image: 'a/b:1', {spec}}}\n"
    )
    (service,) = desired_of({"f.yaml": text}).services
    return service


def revision(spec: str, **metadata: str):
    return service_of(spec, **metadata).revision


HTTP = "healthcheck: {http: {path: /healthz, port: 8080}}"
LIMITED = "resources: {memory: 64Mi, cpus: 0.5, pids: 10, shm: 1Mi}, restart: {policy: Never}"
TCP = "healthcheck: {tcp: {port: 8080}, interval: 5s}"
GOLDEN = {
    HTTP: "v2:935ce82f85c6208fa6f6b5aadd00f8de13a3e9b15e45abb6bca7e154b7f58c11",
    TCP: "v2:a6660ce12f4c6272d8c72eea4bb269a680ed01b5f3eb88de50fca51ef1ed1edb",
    "": "v2:08d5d19556854b2d28f26b7db6615ef89c9d1ffb3ba2f35e9f66d3af212513f8",
    LIMITED: "v2:08811d083d1033db1598f57d588fa335c7b55ee31be6c60ecd400f5fcf23f2c7",
}


def test_golden_the_revisions_of_services_with_few_fields():
    assert {spec: revision(spec) for spec in GOLDEN} == GOLDEN


def test_golden_attached_networks_without_aliases():
    others = "".join(
        f"---\napiVersion: trimtab/v1\nkind: Network\nmetadata: {{name: {name}, owner: team}}\n"
        for name in ("back", "front")
    )
    text = (
        "apiVersion: trimtab/v1\nkind: Service\n"
        "metadata: {name: web, namespace: default, owner: team}\n"
        "spec: {image: 'a/b:1', network: {mode: bridge, attach: [back, front]}}\n"
    )
    desired = desired_of({"f.yaml": text + others})
    assert desired.services[0].revision == (
        "v2:9f17e124db703453897c617c63ce77a1a32fd4bff485b1245e783315254b1553"
    )
    assert desired.digest == "696340810c0a616809713932367980463f32d8bceeb3d9f4f30f7a4a177171d0"


def test_golden_a_service_with_every_field():
    _db, service = desired_of({"f.yaml": FULL}).services
    assert service.revision == (
        "v2:9ca4eb7d5a9f6611d0457257eb38f5f153e85af579fa8029246218fc5ec8ce6d"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("resources: {memory: 64Mi}", "resources: {memory: 128Mi}"),
        ("resources: {cpus: 0.125}", "resources: {cpus: 2}"),
        ("resources: {pids: 10}", "resources: {pids: 20}"),
        ("resources: {memoryReservation: 6Mi}", "resources: {memoryReservation: 7Mi}"),
        ("resources: {cpuShares: 5}", "resources: {cpuShares: 6}"),
        ("resources: {cpuset: '0'}", "resources: {cpuset: 0-1}"),
        ("restart: {policy: Never}", "restart: {policy: OnFailure}"),
        ("restart: {policy: Never}", ""),
    ],
)
def test_another_value_of_what_an_engine_updates_makes_no_other_revision(one: str, other: str):
    assert revision(one) == revision(other)


@pytest.mark.parametrize("spec", ["", "restart: {policy: OnFailure}"])
def test_who_starts_containers_at_boot_is_part_of_no_revision(spec: str):
    ordered = "restart: {policy: OnFailure, boot: Ordered}" if spec else "restart: {boot: Ordered}"
    assert revision(spec) == revision(ordered)


@pytest.mark.parametrize(
    "spec",
    [
        "replicas: 5",
        "replicas: 0",
        "state: Stopped",
        "pullPolicy: Always",
        "rollout: {order: StopFirst}",
        "restart: {policy: Always}",
        "stopGracePeriod: 10s",
        "network: {mode: isolated, attach: []}",
        "resources: {}",
        "logs: {maxSize: 10Mi, maxFiles: 3}",
        "init: false",
        "env: {}",
    ],
)
def test_how_many_how_and_what_is_default_anyway_make_no_other_revision(spec):
    assert revision(spec) == GOLDEN[""]


def test_each_field_of_the_slot_makes_another_revision():
    specs = [
        "command: [a]",
        "command: [a, b]",
        "entrypoint: [a]",
        "env: {A: b}",
        "env: {A: c}",
        "workingDir: /a",
        "user: '1'",
        "init: true",
        "stopSignal: SIGINT",
        "stopGracePeriod: 11s",
        "ports: [{container: 80}]",
        "ports: [{container: 80, host: 8080}]",
        "ports: [{container: 80, protocol: udp}]",
        "mounts: [{type: tmpfs, target: /a, size: 1Mi}]",
        "mounts: [{type: volume, source: a, target: /a}]",
        "mounts: [{type: volume, source: a, target: /a, readOnly: true}]",
        "network: {mode: none}",
        "resources: {memory: 64Mi}",
        "resources: {cpus: 0.125}",
        "resources: {pids: 10}",
        "resources: {shm: 1Mi}",
        "resources: {shm: 2Mi}",
        "security: {capAdd: [CHOWN]}",
        "healthcheck: {exec: [a]}",
        "healthcheck: {http: {port: 80}}",
        "healthcheck: {http: {port: 81}}",
        "healthcheck: {http: {port: 80, path: /a}}",
        "healthcheck: {tcp: {port: 80}}",
        "healthcheck: {tcp: {port: 80}, retries: 4}",
        "logs: {maxFiles: 4}",
        "containerLabels: {a: b}",
        "groupAdd: ['5']",
        "hostname: a",
        "domainname: a",
        "extraHosts: {a: 10.0.0.5}",
        "dns: {servers: [10.0.0.5]}",
        "dns: {search: [a]}",
        "tty: true",
        "stdin: true",
        "ulimits: {nofile: 5}",
        "ulimits: {nofile: {soft: 4, hard: 5}}",
        "oomScoreAdj: 5",
        "ports: [{container: 80-81}]",
        "mounts: [{type: tmpfs, target: /a, size: 1Mi, exec: true}]",
        "mounts: [{type: volume, source: a, target: /a, subpath: b}]",
        "network: {aliases: [a]}",
        "resources: {memoryReservation: 6Mi}",
        "resources: {cpuShares: 5}",
        "resources: {cpuset: '0'}",
        "resources: {disk: 1Gi}",
        "security: {runtime: runc}",
        "logs: {driver: local}",
        "logs: {compress: true}",
        "healthcheck: {exec: [a], startInterval: 1s}",
    ]
    revisions = {revision(spec) for spec in specs} | {GOLDEN[""]}
    assert len(revisions) == len(specs) + 1


def test_name_namespace_and_owner_are_in_the_revision():
    others = {revision("", name="x"), revision("", namespace="x"), revision("", owner="x")}
    assert len(others | {GOLDEN[""]}) == 4


def test_the_order_and_spelling_of_yaml_make_no_other_revision():
    assert revision("env: {A: '1', B: '2'}") == revision('env: {"B": "2", A: "1"}')
    assert revision("resources: {cpus: 1}") == revision("resources: {cpus: 1.0}")
    assert revision("resources: {memory: 1Gi}") == revision("resources: {memory: 1024Mi}")
