"""A Service with every field that the gate admits to clients, on a real engine: its inspect has each one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.instance import Host, eventually

POLICIES = Path(__file__).parents[2] / "configs" / "policies"
MIB = 1 << 20

DOCUMENTS = """
apiVersion: trimtab/v1
kind: Network
metadata: {name: back, owner: team}
---
apiVersion: trimtab/v1
kind: Volume
metadata: {name: state, owner: team}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: full, owner: team}
spec:
  image: trimtab.local/web:1
  hostname: full-1
  domainname: example.org
  groupAdd: ["44"]
  extraHosts: {database: 10.1.2.3, gateway: host-gateway}
  dns: {servers: [10.9.9.9], search: [example.org], options: ["ndots:2"]}
  tty: true
  stdin: true
  oomScoreAdj: 321
  ulimits: {nofile: {soft: 512, hard: 1024}, core: 0}
  devices: [{path: /dev/zero, target: /dev/nought, permissions: r}]
  resources: {memory: 96Mi, memoryReservation: 48Mi, cpus: 0.5, cpuShares: 512, cpuset: "0", pids: 64, shm: 4Mi}
  security: {runtime: runc}
  logs: {driver: local, maxSize: 1Mi, maxFiles: 2, compress: true}
  mounts:
    - {type: volume, source: state, target: /state, noCopy: true}
    - {type: tmpfs, target: /scratch, size: 1Mi, mode: "1777"}
    - {type: tmpfs, target: /programs, size: 1Mi, exec: true}
  network: {mode: declared, attach: [{name: back, aliases: [shop, shop.internal]}]}
  ports: [{container: 8000-8002, host: 28000-28002}]
  healthcheck: {exec: [/bin/sh, -c, "true"], interval: 1s, startPeriod: 5s, startInterval: 1s}
  rollout: {minHealthy: 0s}
"""


@pytest.fixture
def granted(host: Host) -> Host:
    """A host whose policy admits the fields, with a grant of one device to a listed owner."""
    policy = yaml.safe_load((POLICIES / "development.yaml").read_text())
    home = yaml.safe_load((POLICIES / "home.yaml").read_text())
    for section in ("networks", "resources", "security"):
        policy[section] = policy.get(section, {}) | home[section]
    policy["security"]["sharedNamespaces"] = ["network", "ipc", "pid"]
    policy["owners"] = [{"name": "team", "namespaces": ["default"]}]
    grant = {"owner": "team", "namespace": "default", "devices": ["/dev/zero"]}
    policy["devices"] = {"grants": [grant]}
    file = host.folder / "granting.yaml"
    file.write_text(yaml.safe_dump(policy))
    host.policy = str(file)
    return host


SIDECAR = """
apiVersion: trimtab/v1
kind: Service
metadata: {name: side, owner: team}
spec:
  image: trimtab.local/web:1
  entrypoint: [/bin/sleep, "3600"]
  init: true
  stopGracePeriod: 1s
  shares: {service: main, network: true, ipc: true, pid: true}
  rollout: {minHealthy: 0s}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: main, owner: team}
spec:
  image: trimtab.local/web:1
  ipc: shareable
  stopGracePeriod: 1s
  env: {VERSION: "1"}
  rollout: {minHealthy: 0s}
"""


def only(host: Host, service: str) -> dict[str, Any]:
    (container,) = host.containers(service)
    return container


def test_a_service_with_every_new_field_runs_as_it_says(granted: Host) -> None:
    granted.write("all.yaml", DOCUMENTS)
    with granted.running():
        made = only(granted, "full")
        config, host = made["Config"], made["HostConfig"]
        assert (config["Hostname"], config["Domainname"]) == ("full-1", "example.org")
        assert (config["Tty"], config["OpenStdin"]) == (True, True)
        assert config["Healthcheck"]["StartInterval"] == 10**9
        assert host["GroupAdd"] == ["44"]
        assert host["ExtraHosts"] == ["database:10.1.2.3", "gateway:host-gateway"]
        assert (host["Dns"], host["DnsSearch"]) == (["10.9.9.9"], ["example.org"])
        assert host["DnsOptions"] == ["ndots:2"]
        assert host["OomScoreAdj"] == 321
        assert {(u["Name"], u["Soft"], u["Hard"]) for u in host["Ulimits"]} == {
            ("nofile", 512, 1024),
            ("core", 0, 0),
        }
        assert host["Devices"] == [
            {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/nought", "CgroupPermissions": "r"}
        ]
        limits = (host["Memory"], host["MemoryReservation"], host["CpuShares"], host["CpusetCpus"])
        assert limits == (96 * MIB, 48 * MIB, 512, "0")
        assert (host["Runtime"], host["ShmSize"]) == ("runc", 4 * MIB)
        assert host["LogConfig"] == {
            "Type": "local",
            "Config": {"max-size": str(MIB), "max-file": "2", "compress": "true"},
        }
        assert "exec" in host["Tmpfs"]["/programs"].split(",")
        scratch = next(m for m in host["Mounts"] if m["Target"] == "/scratch")
        assert scratch["TmpfsOptions"] == {"SizeBytes": MIB, "Mode": 0o1777}
        assert sorted(host["PortBindings"]) == ["8000/tcp", "8001/tcp", "8002/tcp"]
        ends = made["NetworkSettings"]["Networks"]
        assert {"shop", "shop.internal", "full"} <= {*ends["back"]["Aliases"]}
        assert not [name for name in ends if "network" in name and name != "back"]

        inside = granted.engine.docker("exec", made["Id"], "/bin/sh", "-c", INSIDE).stdout
        assert inside.split() == ["full-1", "512", "44", "char", "10.1.2.3"], inside
        assert "from the image" in granted.cli("describe", "full").stdout.lower()
        assert "nothing to do" in granted.cli("plan", expect=0).stdout

        drift_is_undone_in_place(granted, made["Id"])
        granted.write(
            "all.yaml",
            DOCUMENTS.replace("48Mi", "32Mi").replace("cpuShares: 512", "cpuShares: 256"),
        )
        eventually(lambda: only(granted, "full")["HostConfig"]["CpuShares"] == 256)
        now = only(granted, "full")
        assert (now["Id"], now["HostConfig"]["MemoryReservation"]) == (made["Id"], 32 * MIB)

        granted.write("all.yaml", DOCUMENTS.replace("full-1", "full-2"))
        eventually(lambda: hostnames(granted) == ["full-2"], within_s=60)
        eventually(lambda: {"shop", "full"} <= aliases_on_back(only(granted, "full")))


def hostnames(host: Host) -> list[str]:
    return [container["Config"]["Hostname"] for container in host.containers("full")]


def aliases_on_back(container: dict[str, Any]) -> set[str]:
    end = container["NetworkSettings"]["Networks"].get("back") or {}
    return {*(end.get("Aliases") or ())}


#: What a program of the container sees, by the shell alone.
INSIDE = """
read name < /proc/sys/kernel/hostname; echo $name
ulimit -n
while read word rest; do [ $word = Groups: ] && for g in $rest; do [ $g = 44 ] && echo 44; done; done </proc/self/status
[ -c /dev/nought ] && [ -r /dev/nought ] && echo char
while read address host; do [ "$host" = database ] && echo $address; done </etc/hosts
true
"""


def drift_is_undone_in_place(host: Host, container: str) -> None:
    """Change limits behind the broker's back, and wait until they are back in the same container."""
    changed = ["update", "--cpu-shares", "100", "--memory-reservation", "16m", container]
    host.engine.docker(*changed)
    eventually(
        lambda: (
            (only(host, "full")["HostConfig"]["CpuShares"], only(host, "full")["Id"])
            == (512, container)
        ),
        within_s=60,
    )
    disconnected = ["network", "disconnect", "back", container]
    host.engine.docker(*disconnected)
    eventually(
        lambda: (
            "shop"
            in only(host, "full")["NetworkSettings"]["Networks"].get("back", {}).get("Aliases", ())
        ),
        within_s=60,
    )


def test_a_device_without_a_grant_is_refused_at_its_line(granted: Host) -> None:
    text = DOCUMENTS.replace("/dev/zero", "/dev/full")
    granted.write("all.yaml", text)
    arguments = ("validate", str(granted.directory), "--policy", granted.policy)
    told = granted.cli(*arguments, expect=4).stdout
    assert "devices: spec.devices[0]" in told, told
    assert 'add "/dev/full" to devices.grants.0.devices' in told, told


def shares(host: Host) -> str:
    """Return the id of the container of main once the sidecar shares its namespaces."""

    def shared() -> str:
        main, side = host.running_ids("main"), host.running_ids("side")
        if len(main) != 1 or len(side) != 1:
            return ""
        config = only(host, "side")["HostConfig"]
        modes = {config[name] for name in ("NetworkMode", "IpcMode", "PidMode")}
        if modes != {f"container:{main[0]}"}:
            return ""
        spaces = [links(only(host, name)) for name in ("main", "side")]
        return main[0] if spaces[0] and spaces[0] == spaces[1] else ""

    return eventually(shared, what="the sidecar shares the namespaces of main")


def links(container: dict[str, Any]) -> dict[str, str]:
    """Return the namespaces of a container's process, as the kernel names them."""
    pid = container["State"]["Pid"]
    try:
        spaces = ("net", "ipc", "pid")
        return {name: str(Path(f"/proc/{pid}/ns/{name}").readlink()) for name in spaces}
    except OSError:
        return {}


@pytest.mark.needs_root
def test_a_sidecar_shares_and_follows_its_service(granted: Host) -> None:
    granted.write("side.yaml", SIDECAR)
    with granted.running():
        first = shares(granted)
        side = only(granted, "side")["Id"]
        asked = ("exec", side, "/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
        assert granted.engine.docker(*asked).stdout
        granted.engine.docker("kill", first)
        assert shares(granted) == first
        granted.write("side.yaml", SIDECAR.replace('VERSION: "1"', 'VERSION: "2"'))
        eventually(lambda: granted.running_ids("main") not in ([], [first]))
        assert shares(granted) != first
        eventually(lambda: granted.cli("plan", expect=(0, 2)).returncode == 0)
        run = ("run", "--network", f"container:{side}", "trimtab.local/web:1")
        refused = granted.docker_through_broker(*run, check=False)
        assert "shares a network" in refused.stderr
    assert "Traceback" not in granted.said()
