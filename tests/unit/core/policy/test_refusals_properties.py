"""The gate's text rules admit all that ``validate`` accepts, for each slot and any policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from controller.broker.gate.routes import CREATE_BODY_MAX
from controller.cli.clients.offline import preview_creations
from controller.core.admission.create import admit_create
from controller.core.admission.networks_volumes import admit_network, admit_volume
from controller.core.encoding import json_values
from controller.core.engine_api.create_body import container_body
from controller.core.engine_api.parse import parse_create, parse_network, parse_volume
from controller.core.engine_api.translate import network_body, volume_body
from controller.core.manifests.check_together import desired_of
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.core.planning.slot_plan import create_of
from controller.core.rules.context import CONTROLLER, Stamp
from controller.core.rules.verdict import AdmissionDecision
from controller.model.desired.desired import Desired, Network, Volume
from controller.model.desired.plan import CreateContainer, CreateNetwork, CreateVolume
from controller.model.observed import Observed
from controller.model.policy.document import Policy
from tests.examples import examples

#: What ``LONG`` stands for: beyond the bounds of environment, arguments, labels and paths.
LONG = 70_000
STAMP = Stamp("i1", "01890000-0000-7000-8000-00000000abcd")
IMAGES = (
    "ghcr.io/platformnetwork/web:1",
    "wordpress:6",
    "ghcr.io/platformnetwork/web@sha256:" + "a" * 64,
)

names = st.sampled_from(["a", "web", "db-2", "x" * 27, "platform-x", "0", "abcdefabcdef"])
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
words = st.one_of(texts, st.sampled_from(["", "LONG", "é", "e\u0301", "a\nb"]))
paths = st.one_of(
    st.sampled_from(
        [
            *("/data", "/etc", "/etc/nginx/nginx.conf", "/etc/passwd", "/etc/hosts", "/proc/x"),
            *(
                "/usr/lib/x",
                "/tmp/x",
                "/tmp/x:y",
                "/srv/e\u0301",
                "/tmp/\u00ad",
                "/run/docker.sock",
            ),
            *("/var/lib/docker/volumes/v/_data", "/tmp/back\\slash", "/LONG"),
        ]
    ),
    st.lists(st.text("abc.:é \u202e", min_size=1, max_size=4), min_size=1, max_size=3).map(
        lambda parts: "/" + "/".join(parts)
    ),
)
sizes = st.sampled_from(["1Ki", "4Mi", "6Mi", "64Mi", "512Mi", "3Gi", "100Gi"])
spans = st.sampled_from(["1ms", "500ms", "1s", "30s", "10m", "2h"])
mounts = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("bind"), "source": paths, "target": paths},
        optional={"readOnly": st.booleans()},
    ),
    st.fixed_dictionaries(
        {"type": st.just("volume"), "source": names, "target": paths},
        optional={
            "readOnly": st.booleans(),
            "shared": st.booleans(),
            "subpath": st.sampled_from(["a", "a/b", "é", "a b", "x" * 300]),
            "noCopy": st.booleans(),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just("tmpfs"), "target": paths, "size": sizes},
        optional={"mode": st.sampled_from(["1777", "700"]), "exec": st.booleans()},
    ),
)
ports = st.fixed_dictionaries(
    {"container": st.sampled_from([1, 80, 443, 65535])},
    optional={
        "host": st.sampled_from([1, 80, 2375, 8080, 65535]),
        "hostIP": st.sampled_from(["127.0.0.1", "0.0.0.0", "::1", "::", "10.0.0.9"]),
        "protocol": st.sampled_from(["tcp", "udp"]),
    },
)
port_ranges = st.fixed_dictionaries(
    {"container": st.sampled_from(["80-83", "8000-8010"])},
    optional={
        "host": st.sampled_from(["80-83", "9000-9010", "2370-2380"]),
        "protocol": st.sampled_from(["tcp", "udp", "sctp"]),
    },
)
host_names = st.sampled_from(["a", "web-1", "my_app", "a.b", "x" * 63, "db-2", "team.web.1-0123ab"])
addresses = st.sampled_from(["10.0.0.5", "::1", "2001:db8::1", "0.0.0.0"])
limits_of_processes = st.one_of(
    st.integers(0, 2**20), st.fixed_dictionaries({"soft": st.just(0), "hard": st.just(2**30)})
)
attached = st.one_of(
    st.sampled_from(["back", "front"]),
    st.fixed_dictionaries(
        {"name": st.sampled_from(["back", "front"])},
        optional={"aliases": st.lists(host_names, max_size=2)},
    ),
)
labels = st.dictionaries(
    st.one_of(st.sampled_from(["traefik.x", "com.example", "a=b", "io.trimtabx"]), texts),
    words,
    max_size=3,
)
checks = st.fixed_dictionaries(
    {"exec": st.lists(words, min_size=1, max_size=2)},
    optional={
        "interval": spans,
        "timeout": spans,
        "startPeriod": spans,
        "retries": st.integers(1, 10),
        "startInterval": spans,
    },
)
specs = st.fixed_dictionaries(
    {"image": st.sampled_from(IMAGES)},
    optional={
        "replicas": st.integers(0, 3),
        "entrypoint": st.lists(words, min_size=1, max_size=2),
        "command": st.lists(words, min_size=1, max_size=2),
        "env": st.dictionaries(
            st.sampled_from(["A", "LD_PRELOAD", "B.c", "_x-y"]), words, max_size=3
        ),
        "workingDir": paths,
        "user": st.sampled_from(["0", "1000:1000", "app", "a" * 70, "root:wheel"]),
        "groupAdd": st.lists(st.sampled_from(["0", "44", "video", "a" * 64]), max_size=2),
        "hostname": host_names,
        "domainname": host_names,
        "extraHosts": st.dictionaries(
            host_names, st.one_of(addresses, st.just("host-gateway")), max_size=2
        ),
        "dns": st.fixed_dictionaries(
            {},
            optional={
                "servers": st.lists(addresses, max_size=2),
                "search": st.lists(st.one_of(host_names, st.just(".")), max_size=2),
                "options": st.lists(st.sampled_from(["ndots:2", "rotate"]), max_size=2),
            },
        ),
        "tty": st.booleans(),
        "stdin": st.booleans(),
        "oomScoreAdj": st.sampled_from([0, 5, 1000]),
        "ulimits": st.dictionaries(
            st.sampled_from(["nofile", "core", "memlock"]), limits_of_processes, max_size=2
        ),
        "init": st.booleans(),
        "stopSignal": st.sampled_from(["SIGTERM", "SIGRTMIN+3", "SIGKILL"]),
        "stopGracePeriod": st.sampled_from(["0s", "10s", "300s"]),
        "ports": st.lists(st.one_of(ports, port_ranges), max_size=3),
        "mounts": st.lists(mounts, max_size=3),
        "network": st.fixed_dictionaries(
            {},
            optional={
                "mode": st.sampled_from(["isolated", "bridge", "none", "declared"]),
                "aliases": st.lists(host_names, max_size=2),
                "attach": st.lists(attached, max_size=2),
            },
        ),
        "resources": st.fixed_dictionaries(
            {},
            optional={
                "memory": sizes,
                "cpus": st.sampled_from([0.01, 0.5, 3, 64]),
                "pids": st.sampled_from([1, 300, 5000]),
                "shm": sizes,
                "memoryReservation": sizes,
                "cpuShares": st.sampled_from([2, 512, 4096]),
                "cpuset": st.sampled_from(["0", "0-2,4", "9999"]),
                "disk": sizes,
            },
        ),
        "security": st.fixed_dictionaries(
            {},
            optional={
                "capAdd": st.lists(
                    st.sampled_from(["CHOWN", "CAP_SETUID", "SYS_ADMIN", "ALL"]),
                    max_size=2,
                    unique=True,
                ),
                "readOnlyRootFilesystem": st.booleans(),
                "runtime": st.sampled_from(["runc", "kata"]),
            },
        ),
        "healthcheck": checks,
        "restart": st.fixed_dictionaries(
            {"policy": st.sampled_from(["Always", "OnFailure", "Never"])}
        ),
        "logs": st.fixed_dictionaries(
            {},
            optional={
                "driver": st.sampled_from(["json-file", "local"]),
                "maxSize": sizes,
                "maxFiles": st.sampled_from([1, 3, 50]),
                "compress": st.booleans(),
            },
        ),
        "containerLabels": labels,
    },
)
metadata = st.fixed_dictionaries(
    {"name": names, "owner": st.sampled_from(["me", "operator", "o" * 63])},
    optional={"namespace": st.sampled_from(["default", "team", "n" * 20])},
)
policies = st.fixed_dictionaries(
    {},
    optional={
        "images": st.fixed_dictionaries(
            {},
            optional={
                "allow": st.lists(
                    st.sampled_from(["ghcr.io/platformnetwork/", "docker.io/library/"]),
                    min_size=1,
                    unique=True,
                ),
                "requireDigest": st.booleans(),
            },
        ),
        "capabilities": st.just({"allowed": ["CHOWN", "SYS_ADMIN"]}),
        "security": st.fixed_dictionaries(
            {},
            optional={
                "requireNonRoot": st.booleans(),
                "requireReadOnlyRoot": st.booleans(),
                "groupAdd": st.booleans(),
            },
        ),
        "mounts": st.sampled_from([{"allowed": ["/tmp/", "/srv/"]}, {"max": 1}]),
        "networks": st.fixed_dictionaries(
            {},
            optional={
                "modes": st.lists(
                    st.sampled_from(["none", "isolated", "bridge"]), min_size=1, unique=True
                ),
                "ports": st.sampled_from(
                    [{"granted": [80]}, {"hostIPs": ["0.0.0.0"]}, {"minHost": 1}]
                ),
                "isolated": st.just("x" * 42),
                "serviceAliases": st.booleans(),
                "extraHosts": st.just(["addresses", "host-gateway"]),
                "dns": st.just(
                    {"servers": ["10.0.0.0/8", "::/0"], "search": True, "options": True}
                ),
            },
        ),
        "owners": st.just([{"name": "me", "namespaces": ["default", "team"]}]),
        "restart": st.just({"policies": ["no", "always"], "maxRetries": 3}),
        "modes": st.dictionaries(
            st.sampled_from(["image.mutable", "resources.memory", "user.root", "mount.tmpfs"]),
            st.sampled_from(["warn", "audit"]),
        ),
        "env": st.just({"max": 1}),
        "labels": st.just({"max": 7}),
    },
)


def document(kind: str, about: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Return one document."""
    return {"apiVersion": "trimtab/v1", "kind": kind, "metadata": about, "spec": spec}


def sent(body: dict[str, Any]) -> object:
    """Return a body as the broker reads it from the wire."""
    content = json.dumps(body).encode()
    assert len(content) <= CREATE_BODY_MAX, "the broker reads no body of that size"
    return json_values.parse_strict(content)


def creates(desired: Desired, rules: Policy) -> Iterator[tuple[str, AdmissionDecision]]:
    """Yield the gate's decision on each create of the controller, by the created object."""
    base = rules.networks.names
    supplies = Prerequisites(desired, Observed(instance=""), base)
    declared: list[Network | Volume] = [*desired.networks, *desired.volumes]
    for resource in declared:
        for action in supplies.declared(resource):
            yield str(resource.key), judged(action, rules)
    for service in desired.services:
        for action in supplies.missing(service, creating=True):
            if isinstance(action, CreateNetwork | CreateVolume):
                yield f"{service.key}: {action.target}", judged(action, rules)
        for slot in range(1, service.spec.replicas + 1):
            for with_alias in (True, False):
                made = create_of(
                    service, supplies, slot=slot, containers=(), cause="", with_alias=with_alias
                )
                yield f"{service.key}: slot {slot}", judged(made, rules)


def judged(action: object, rules: Policy) -> AdmissionDecision:
    """Return the gate's decision on a create, without facts of the host."""
    match action:
        case CreateContainer():
            body = container_body(action, rules.networks.names)
            request = parse_create(sent(body))
            return admit_create(
                request, name=action.target, actor=CONTROLLER, policy=rules, facts=None, stamp=STAMP
            )
        case CreateNetwork():
            network = parse_network(sent(network_body(action)))
            return admit_network(
                network, actor=CONTROLLER, policy=rules, existing=None, stamp=STAMP
            )
        case CreateVolume():
            volume = parse_volume(sent(volume_body(action)))
            return admit_volume(volume, actor=CONTROLLER, policy=rules, existing=None, stamp=STAMP)
        case _:
            raise AssertionError(f"an action that makes nothing: {action}")


@settings(max_examples=examples(40))
@given(metadata, specs, policies, st.booleans())
def test_what_validate_passes_is_admitted_by_the_text_rules_of_the_gate(
    about: dict[str, Any], spec: dict[str, Any], sections: dict[str, Any], internal: bool
) -> None:
    try:
        rules = Policy.from_json({"name": "drawn", **sections})
    except ValueError:
        assume(False)
    others = {"owner": about["owner"], "namespace": about.get("namespace", "default")}
    documents = [
        document("Service", about, spec),
        document("Network", {"name": "back", **others}, {"internal": internal}),
        document("Network", {"name": "front", **others}, {}),
        document("Volume", {"name": "data-1", **others}, {}),
    ]
    text = yaml.safe_dump_all(documents, allow_unicode=True).replace("LONG", "x" * LONG)
    desired = desired_of({"drawn.yaml": text})
    refused = {
        str(key) for key, verdict in preview_creations(desired, rules) if verdict.decision == "deny"
    }
    event(f"valid: {desired.valid}, refused: {bool(refused)}")
    if not desired.valid or refused:
        return
    denied = {
        what: admission.verdict
        for what, admission in creates(desired, rules)
        if admission.verdict.decision == "deny"
    }
    assert denied == {}
