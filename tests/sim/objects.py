"""What lives in the simulated engine: images, containers, networks, volumes, as inspect shows them.

Every member that is shown has the place, the type and the meaning that a dockerd 26.1 gives it
(``tests/contract/test_engine_contract.py``); members that nothing reads are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from tests.sim.clock import instant

Body = dict[str, Any]

#: Networks that are there from the start: name, driver.
PREDEFINED = (("bridge", "bridge"), ("host", "host"), ("none", "null"))
DATA_ROOT = "/var/lib/docker"
#: What containers and volumes may be called.
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

#: HostConfig as inspect shows it for a create that asked for nothing.
HOST_DEFAULTS: Body = {
    "Binds": None,
    "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "bridge",
    "PortBindings": None,
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False,
    "CapAdd": None,
    "CapDrop": None,
    "CgroupnsMode": "host",
    "IpcMode": "private",
    "OomScoreAdj": 0,
    "PidMode": "",
    "Privileged": False,
    "PublishAllPorts": False,
    "ReadonlyRootfs": False,
    "SecurityOpt": None,
    "ShmSize": 64 << 20,
    "Runtime": "runc",
    "CpuShares": 0,
    "Memory": 0,
    "NanoCpus": 0,
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpusetCpus": "",
    "MemoryReservation": 0,
    "MemorySwap": 0,
    "PidsLimit": None,
    "Ulimits": None,
    "MaskedPaths": _MASKED,
    "ReadonlyPaths": _READ_ONLY,
}


@dataclass(frozen=True, slots=True)
class SimImage:
    """A local image, or one that a registry has (then with ``digest``).

    ``programs`` are the files that can be run.
    """

    reference: str
    id: str
    digest: str = ""
    command: tuple[str, ...] = ("/bin/serve",)
    programs: tuple[str, ...] = ("/bin/serve", "/bin/work", "/bin/sh")
    labels: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    healthcheck: Body | None = None
    user: str = "65534:65534"
    exposed: tuple[str, ...] = ()

    @property
    def repository(self) -> str:
        stem, colon, tag = self.reference.rpartition(":")
        return stem if colon and "/" not in tag else self.reference

    def inspect(self) -> Body:
        config: Body = {
            "User": self.user,
            "Env": ["PATH=/bin"],
            "Cmd": list(self.command),
            "Volumes": {path: {} for path in self.volumes} or None,
            "WorkingDir": "/",
            "Entrypoint": None,
            "Labels": dict(self.labels) or None,
        }
        if self.exposed:
            config["ExposedPorts"] = {port: {} for port in self.exposed}
        if self.healthcheck is not None:
            config["Healthcheck"] = self.healthcheck
        return {
            "Id": self.id,
            "RepoTags": [self.reference],
            "RepoDigests": [f"{self.repository}@{self.digest}"] if self.digest else [],
            "Config": config,
            "Architecture": "amd64",
            "Os": "linux",
            "Size": 2_000_000,
        }

    def listed(self) -> Body:
        shown = self.inspect()
        return {
            "Id": self.id,
            "RepoTags": shown["RepoTags"],
            "RepoDigests": shown["RepoDigests"],
            "Labels": dict(self.labels) or None,
            "Size": shown["Size"],
            "ParentId": "",
            "Containers": -1,
            "Created": 1_735_689_600,
            "SharedSize": -1,
        }


@dataclass(slots=True)
class SimNetwork:
    id: str
    name: str
    driver: str
    created: float
    internal: bool = False
    options: Body = field(default_factory=dict)
    labels: Body = field(default_factory=dict)
    subnet: int = 0
    predefined: bool = False
    addresses: int = 1
    #: The subnet, range and gateway that the create named; empty without a subnet.
    pool: Body = field(default_factory=dict)

    def address(self) -> str:
        """Return an address that nobody had yet."""
        if self.driver != "bridge":
            return ""
        self.addresses += 1
        if not self.pool:
            return f"172.{self.subnet}.{self.addresses // 256}.{self.addresses % 256}"
        chosen_from = IPv4Network(self.pool.get("IPRange") or self.pool["Subnet"])
        return str(chosen_from[self.addresses % chosen_from.num_addresses])

    @property
    def prefix(self) -> int:
        """The length of the subnet's prefix."""
        return IPv4Network(self.pool["Subnet"]).prefixlen if self.pool else 16

    def inspect(self, joined: dict[str, Body] | None) -> Body:
        shown: Body = {
            "Name": self.name,
            "Id": self.id,
            "Created": instant(self.created),
            "Scope": "local",
            "Driver": self.driver,
            "EnableIPv6": False,
            "IPAM": {
                "Driver": "default",
                "Options": None,
                "Config": [self.pool or {"Subnet": f"172.{self.subnet}.0.0/16"}]
                if self.subnet
                else [],
            },
            "Internal": self.internal,
            "Attachable": False,
            "Ingress": False,
            "Containers": joined or {},
            "Options": dict(self.options),
            "Labels": dict(self.labels),
        }
        return shown


@dataclass(slots=True)
class SimVolume:
    name: str
    created: float
    labels: Body | None = None
    driver: str = "local"
    options: Body | None = None

    def inspect(self) -> Body:
        return {
            "CreatedAt": instant(self.created)[:19] + "Z",
            "Driver": self.driver,
            "Labels": self.labels,
            "Mountpoint": f"{DATA_ROOT}/volumes/{self.name}/_data",
            "Name": self.name,
            "Options": self.options,
            "Scope": "local",
        }


@dataclass(slots=True)
class Endpoint:
    """A container's place in a network; ``network`` is '' until its first start."""

    network: str = ""
    aliases: list[str] | None = None
    id: str = ""
    address: str = ""
    #: The address that it was told to have; '' for one of the engine's choice.
    chosen: str = ""

    def inspect(self) -> Body:
        return {
            "IPAMConfig": {"IPv4Address": self.chosen} if self.chosen else None,
            "Links": None,
            "Aliases": self.aliases,
            "NetworkID": self.network,
            "EndpointID": self.id,
            "Gateway": "",
            "IPAddress": self.address,
            "IPPrefixLen": 16 if self.address else 0,
            "DriverOpts": None,
        }


@dataclass(slots=True)
class SimContainer:
    """A container. ``config`` and ``host`` are as inspect shows them, defaults filled in."""

    id: str
    name: str
    image: SimImage
    created: float
    config: Body
    host: Body
    mounts: list[Body]
    networks: dict[str, Endpoint]
    argv: tuple[str, ...]
    status: str = "created"
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: float | None = None
    up_since: float = 0.0  # as started_at, by the clock that doesn't jump
    addresses: set[str] = field(default_factory=set)  # all that it ever had
    ports: dict[str, list[Body]] = field(default_factory=dict)  # published now
    finished_at: float | None = None
    restart_count: int = 0
    manually_stopped: bool = False
    restart_delay: float = 0.0  # of the last restart by policy
    health: str = ""  # only what isn't probed is unhealthy here
    probing: int = 0  # how often its probes were stopped
    pid: int = 0
    #: The service's present namespace and name, if a move changed them.
    moved_to: tuple[str, str] | None = None
    run: int = 0  # how often it was started: what is due for an older run isn't any more

    @property
    def running(self) -> bool:
        """What the engine's State.Running says: paused and restarting count."""
        return self.status in {"running", "paused", "restarting"}

    @property
    def alive(self) -> bool:
        """Tell whether there is a process."""
        return self.status in {"running", "paused"}

    @property
    def policy(self) -> str:
        return str(self.host["RestartPolicy"]["Name"])

    def state(self) -> Body:
        shown: Body = {
            "Status": self.status,
            "Running": self.running,
            "Paused": self.status == "paused",
            "Restarting": self.status == "restarting",
            "OOMKilled": self.oom_killed,
            "Dead": False,
            "Pid": self.pid if self.alive else 0,
            "ExitCode": self.exit_code,
            "Error": self.error,
            "StartedAt": instant(self.started_at),
            "FinishedAt": instant(self.finished_at),
        }
        if self.health:
            shown["Health"] = {"Status": self.health, "FailingStreak": 0, "Log": []}
        return shown

    def inspect(self) -> Body:
        return {
            "Id": self.id,
            "Created": instant(self.created),
            "Path": self.argv[0],
            "Args": list(self.argv[1:]),
            "State": self.state(),
            "Image": self.image.id,
            "Name": f"/{self.name}",
            "RestartCount": self.restart_count,
            "Driver": "overlay2",
            "Platform": "linux",
            "HostConfig": dict(self.host),
            "Mounts": list(self.mounts),
            "Config": dict(self.config),
            "NetworkSettings": {
                "Ports": dict(self.ports),
                "Networks": {name: end.inspect() for name, end in self.networks.items()},
            },
        }

    def listed(self) -> Body:
        return {
            "Id": self.id,
            "Names": [f"/{self.name}"],
            "Image": self.config["Image"],
            "ImageID": self.image.id,
            "Command": " ".join(self.argv),
            "Created": int(self.created),
            "Ports": [],
            "Labels": dict(self.config["Labels"]),
            "State": self.status,
            "Status": self.status,
            "HostConfig": {"NetworkMode": self.host["NetworkMode"]},
            "NetworkSettings": {
                "Networks": {name: end.inspect() for name, end in self.networks.items()}
            },
            "Mounts": list(self.mounts),
        }
