"""What a document says of a container stands in the body of its create, in the engine's words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.engine_api.create_body import (
    UNKNOWN_CONTENT,
    aliases_on,
    create_body,
    joined_networks,
    variable_text,
)
from controller.core.proofs.rendering import shape_of_create
from controller.model.delivery import Delivery
from controller.model.names import NetworkNames
from tests.unit.core.engine_api.test_translate import NAMES, check, service


@pytest.mark.parametrize(
    ("spec", "body"),
    [
        ({"hostname": "web-1", "domainname": "example.org"},
         {"Hostname": "web-1", "Domainname": "example.org"}),
        ({"tty": True, "stdin": True}, {"Tty": True, "OpenStdin": True}),
        ({"groupAdd": ["video", "44"]}, {"HostConfig": {"GroupAdd": ["video", "44"]}}),
        ({"extraHosts": {"b": "10.0.0.5", "a": "host-gateway"}},
         {"HostConfig": {"ExtraHosts": ["a:host-gateway", "b:10.0.0.5"]}}),
        ({"extraHosts": {"b": "10.0.0.5,fd00::5", "a": "::1"}},
         {"HostConfig": {"ExtraHosts": ["a:::1", "b:10.0.0.5", "b:fd00::5"]}}),
        ({"dns": {"servers": ["9.9.9.9"], "search": ["."], "options": ["ndots:2"]}},
         {"HostConfig": {"Dns": ["9.9.9.9"], "DnsSearch": ["."], "DnsOptions": ["ndots:2"]}}),
        ({"ulimits": {"nofile": 5, "core": {"soft": 0, "hard": 1}}},
         {"HostConfig": {"Ulimits": [{"Name": "core", "Soft": 0, "Hard": 1},
                                     {"Name": "nofile", "Soft": 5, "Hard": 5}]}}),
        ({"oomScoreAdj": 500}, {"HostConfig": {"OomScoreAdj": 500}}),
        ({"resources": {"memoryReservation": "8Mi", "cpuShares": 512, "cpuset": "0-2,4"}},
         {"HostConfig": {"MemoryReservation": 8 << 20, "CpuShares": 512, "CpusetCpus": "0-2,4"}}),
        ({"resources": {"disk": "1Gi"}}, {"HostConfig": {"StorageOpt": {"size": str(1 << 30)}}}),
        ({"security": {"runtime": "runc"}}, {"HostConfig": {"Runtime": "runc"}}),
        ({"logs": {"driver": "local", "compress": False}},
         {"HostConfig": {"LogConfig": {"Type": "local", "Config": {
             "max-size": "10485760", "max-file": "3", "compress": "false"}}}}),
        ({"mounts": [{"type": "volume", "source": "d", "target": "/d", "subpath": "a/b", "noCopy": True}]},
         {"HostConfig": {"Mounts": [{"Type": "volume", "Source": "d", "Target": "/d",
                                     "VolumeOptions": {"Subpath": "a/b", "NoCopy": True}}]}}),
        ({"mounts": [{"type": "tmpfs", "target": "/t", "size": "1Mi", "mode": "1777"}]},
         {"HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/t",
                                     "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}}]}}),
        # Only HostConfig.Tmpfs has the option `exec`.
        ({"mounts": [{"type": "tmpfs", "target": "/t", "size": "1Mi", "mode": "700", "exec": True}]},
         {"HostConfig": {"Tmpfs": {"/t": "exec,size=1048576,mode=700"}}}),
    ],
)  # fmt: skip
def test_a_field_of_the_document_is_a_member_of_the_body(
    spec: dict[str, object], body: dict[str, Any]
) -> None:
    check(spec, body)


def test_a_check_of_a_starting_container_has_an_interval_of_its_own() -> None:
    check: dict[str, object] = {"exec": ["/x"], "startInterval": "2s"}
    made = create_body(service(healthcheck=check), slot=1, image="x", networks=NAMES)
    assert made["Healthcheck"]["StartInterval"] == 2_000_000_000


def test_a_range_of_ports_is_written_port_by_port() -> None:
    ports = [{"container": "8000-8002", "host": "9000-9002", "protocol": "udp"}]
    made = create_body(service(ports=ports), slot=1, image="x", networks=NAMES)
    assert made["ExposedPorts"] == {f"{port}/udp": {} for port in (8000, 8001, 8002)}
    assert made["HostConfig"]["PortBindings"] == {
        f"{port}/udp": [{"HostIp": "127.0.0.1", "HostPort": str(port + 1000)}]
        for port in (8000, 8001, 8002)
    }


ATTACHED = {"attach": [{"name": "back", "aliases": ["sql", "db"]}, "front"]}


@pytest.mark.parametrize(
    ("network", "ports", "joined"),
    [
        ({"mode": "declared", **ATTACHED}, [], ("prod.back", "prod.front")),
        ({"mode": "declared", **ATTACHED}, [{"container": 80, "host": 8080}],
         ("prod.back", "prod.front", "platform-ingress.prod")),
        ({"mode": "declared", "attach": ["front"]}, [{"container": 80}], ("prod.front",)),
        (ATTACHED, [], ("platform-network.prod", "prod.back", "prod.front")),
    ],
)  # fmt: skip
def test_mode_declared_joins_the_listed_networks_alone(
    network: dict[str, object], ports: list[dict[str, object]], joined: tuple[str, ...]
) -> None:
    wanted = service("prod", network=network, ports=ports)
    assert joined_networks(wanted, NAMES) == joined
    body = create_body(wanted, slot=1, image="x", networks=NAMES)
    assert body["HostConfig"]["NetworkMode"] == joined[0]


def test_aliases_resolve_on_their_network_only() -> None:
    wanted = service("prod", network={"aliases": ["www"], **ATTACHED})
    names = {name: aliases_on(wanted, name, NAMES) for name in joined_networks(wanted, NAMES)}
    assert names == {
        "platform-network.prod": ("web", "www"),
        "prod.back": ("web", "sql", "db"),
        "prod.front": ("web",),
    }


def test_aliases_are_for_the_network_of_the_mode() -> None:
    wanted = service(network={"mode": "bridge", "aliases": ["www"]})
    both = NetworkNames(bridge_joins_isolated=True)
    assert aliases_on(wanted, "platform-bridge", both) == ("web", "www")
    assert aliases_on(wanted, "platform-network", both) == ("web",)
    hidden = create_body(wanted, slot=1, image="x", networks=both, with_alias=False)
    assert set(map(str, hidden["NetworkingConfig"]["EndpointsConfig"].values())) == {"{}"}


def test_a_variable_of_a_secret_is_asked_for_by_its_content():
    delivery = Delivery("secret", "db", f"hmac:{'a' * 64}", "", key="url", variable="URL")
    assert variable_text(delivery) == f"URL=db/url@hmac:{'a' * 64}"
    assert variable_text(replace(delivery, content="")) == f"URL=db/url@{UNKNOWN_CONTENT}"


def test_a_sidecar_names_the_service_and_no_container():
    shares = {"service": "vpn", "network": True, "pid": True}
    body = create_body(service(shares=shares), slot=2, image="x", networks=NAMES)
    assert body["TrimtabShares"] == {"Service": "vpn", "Network": True, "Pid": True}
    assert "NetworkMode" not in body["HostConfig"]
    assert "NetworkingConfig" not in body
    opened = create_body(service(ipc="shareable"), slot=1, image="x", networks=NAMES)
    assert opened["HostConfig"]["IpcMode"] == "shareable"


def test_a_proof_covers_the_service_whose_namespaces_are_shared():
    def shape(slot: int, **shares: object) -> str:
        found = shape_of_create(
            create_body(service(shares=shares), slot=slot, image="x", networks=NAMES)
        )
        assert found is not None
        return found.shape

    signed = shape(1, service="vpn", network=True)
    assert shape(2, service="vpn", network=True) == signed
    others = shape(1, service="db", network=True), shape(1, service="vpn", pid=True)
    assert signed not in others
