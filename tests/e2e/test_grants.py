"""What a policy grants one by one, on a real engine: made, kept through passes, and refused without its line."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.instance import Host, web

pytestmark = pytest.mark.needs_root
QUICK = "init: true\nstopGracePeriod: 1s\nrollout: {minHealthy: 0s}\n"
LAN = "lan0"  # an interface of the engine's network
SERVICES = {
    "sent": "logs: {driver: gelf, options: {gelf-address: 'udp://127.0.0.1:12201'}}\n",
    "forward": "logs: {driver: fluentd, options: {tag: 'app.{{.Name}}'}}\n",
    "vpn": "devices: [/dev/net/tun]\nsecurity: {capAdd: [NET_ADMIN]}\n",
    "stick": "devices: [{device}]\n",
    "fixed": "network: {mode: declared, attach: [{name: back, address: 10.80.4.10}]}\n",
    "six": "network: {mode: declared, attach: [six]}\n",
    "dns": (
        "network: {mode: declared, attach: [{name: lan, address: 192.0.2.200}]}\n"
        "rollout: {order: StopFirst, minHealthy: 0s}\n"
    ),
}
OBSERVER = """
user: "64001:64001"
observe: {network: true, pid: true}
security: {readOnlyRootFilesystem: true}
mounts: [{type: bind, source: /, target: /host, readOnly: true}]
"""
OBJECTS = """
apiVersion: trimtab/v1
kind: Network
metadata: {name: back, owner: team}
spec: {subnet: 10.80.4.0/24}
---
apiVersion: trimtab/v1
kind: Network
metadata: {name: six, owner: team}
spec: {ipv6Subnet: "fd12:3456:789b::/64"}
---
apiVersion: trimtab/v1
kind: Network
metadata: {name: lan, owner: team}
spec: {internal: false, macvlan: lan0, subnet: 192.0.2.0/24, ipRange: 192.0.2.192/27}
---
apiVersion: trimtab/v1
kind: Volume
metadata: {name: films, owner: team}
spec: {remote: {type: nfs, server: 192.0.2.5, path: /export/films, options: [ro, soft]}}
"""


def grants(device: str) -> dict[str, Any]:
    place = {"owner": "team", "namespace": "default"}
    return {
        "owners": [{"name": "team", "namespaces": ["default"]}],
        "exceptions": [
            {
                **place,
                "service": "watch",
                "repository": "trimtab.local/web",
                "reason": "it exports metrics of the host",
                "expires": "2999-12-31",
                "loosens": {"observer": 64001},
            }
        ],
        "logs": {
            "collectors": [
                {"driver": "gelf", "address": "udp://127.0.0.1:12201"},
                {"driver": "fluentd", "address": "tcp://127.0.0.1:24224"},
            ]
        },
        "devices": {
            "grants": [{**place, "devices": ["/dev/net/tun", device], "capAdd": ["NET_ADMIN"]}]
        },
        "mounts": {"remote": [{**place, "type": "nfs", "server": "192.0.2.5", "path": "/export"}]},
        "networks": {
            "staticAddresses": True,
            "ipv6": True,
            "subnets": ["10.80.0.0/16"],
            "macvlan": [{**place, "parent": LAN, "range": "192.0.2.192/27"}],
        },
    }


def granted(text: str, device: str) -> str:
    policy = yaml.safe_load(text)
    for section, lines in grants(device).items():
        known = policy.get(section)
        policy[section] = {**known, **lines} if isinstance(known, dict) else lines
    return yaml.safe_dump(policy)


@contextlib.contextmanager
def serial_port() -> Iterator[str]:
    """A device node of a USB serial port; nothing is plugged in."""
    path = f"/dev/ttyUSB{700 + os.getpid() % 200}"
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(188, 97))
    try:
        yield path
    finally:
        Path(path).unlink()


def inspect(host: Host, service: str) -> dict[str, Any]:
    (found,) = host.containers(service)
    return found


def test_what_is_granted_runs_and_stays_and_is_refused_without_its_line(host: Host) -> None:
    host.use_networks_of_its_own("grants")
    link = ["ip", "link", "add", LAN, "type", "veth", "peer", "name", "lan1"]
    subprocess.run(host.engine.inside(*link), check=True)
    subprocess.run(host.engine.inside("ip", "link", "set", LAN, "up"), check=True)
    policy = Path(host.policy)
    plain = policy.read_text()
    with serial_port() as device:
        policy.write_text(granted(plain, device))
        for name, extra in SERVICES.items():
            host.write(
                f"{name}.yaml", web(name, extra=extra.replace("{device}", device) + "init: true\n")
            )
        host.write("watch.yaml", web("watch", extra=OBSERVER + QUICK))
        host.write("objects.yaml", OBJECTS)
        host.up()
        host.await_ready(*SERVICES, "watch")
        made = len(host.records("intent"))

        logs = inspect(host, "forward")["HostConfig"]["LogConfig"]
        assert logs["Config"]["fluentd-async"] == "true", "no collector answers"
        assert "serves on 8080" in host.cli("logs", "sent").stdout, "the engine keeps a copy"
        vpn = inspect(host, "vpn")["HostConfig"]
        assert (vpn["CapAdd"], vpn["Devices"][0]["PathOnHost"]) == (["NET_ADMIN"], "/dev/net/tun")
        assert inspect(host, "stick")["HostConfig"]["Devices"][0]["PathOnHost"] == device
        for service, network, address in (
            ("fixed", "back", "10.80.4.10"),
            ("dns", "lan", "192.0.2.200"),
        ):
            joined = inspect(host, service)["NetworkSettings"]["Networks"][network]
            assert joined["IPAddress"] == address
        six = inspect(host, "six")["NetworkSettings"]["Networks"]["six"]
        assert six["GlobalIPv6Address"].startswith("fd12:3456:789b:")

        observer = inspect(host, "watch")
        modes = (observer["HostConfig"]["NetworkMode"], observer["HostConfig"]["PidMode"])
        assert modes == ("host", "host")
        pid = observer["State"]["Pid"]
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        seen = Path(f"/proc/{pid}/root/host")
        assert (seen / "etc/passwd").exists()
        assert not any((seen / "proc").iterdir()), "no mount below the root filesystem"

        assert_no_socket_answers(host, observer["Id"])

        # A new revision of a service takes the address over.
        host.write(
            "fixed.yaml", web("fixed", extra=SERVICES["fixed"] + "init: true\nenv: {A: '1'}\n")
        )
        host.cli("apply")
        host.await_ready("fixed")
        joined = inspect(host, "fixed")["NetworkSettings"]["Networks"]["back"]
        assert joined["IPAddress"] == "10.80.4.10"
        # What runs is as it was admitted: nothing is repaired.
        before = len(host.records("intent"))
        assert before > made
        host.cli("apply")
        assert len(host.records("intent")) == before
        assert host.all_ready()

        policy.write_text(plain)
        host.cli("policy", "reload")
        refused = {
            name: {rule for rule in RULES if rule in str(host.resource(name))}
            for name in (*SERVICES, "watch")
        }
        assert refused == {
            "sent": {"log.driver"},
            "forward": {"log.driver"},
            "vpn": {"devices"},
            "stick": {"devices"},
            "fixed": {"network.address"},
            "six": set(),
            "dns": {"network.address"},
            "watch": {"observer, "},
        }


#: Connects to each path from within an observer, whose files of the host are below /host.
CONNECT = """
import json, socket, sys
def ask(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        try:
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.1\\r\\nHost: docker\\r\\nConnection: close\\r\\n\\r\\n")
            return connection.recv(4096).decode()
        except OSError as error:
            return error.strerror
print(json.dumps([ask(path) for path in sys.argv[1:]]))
"""


def assert_no_socket_answers(host: Host, observer: str) -> None:
    """A process of the observer's, with its uid and namespaces, reaches no socket of the gate's or the engine's."""
    sockets = sorted(str(path) for path in host.state.rglob("*.sock"))
    assert len(sockets) > 1, sockets
    sockets.append(str(host.engine.socket))
    paths = [*(f"/host{each}" for each in sockets), *(f"/proc/1/root{each}" for each in sockets)]
    loader = [
        "/host/lib64/ld-linux-x86-64.so.2",
        "--library-path",
        "/host/usr/lib/x86_64-linux-gnu",
    ]
    python = [*loader, f"/host{os.path.realpath(sys.executable)}", "-I", "-c", CONNECT, *paths]
    done = host.docker_through_broker("exec", observer, "env", "PYTHONHOME=/host/usr", *python)
    assert json.loads(done.stdout) == ["Permission denied"] * len(paths)


RULES = ("log.driver", "devices", "network.address", "observer, ")
