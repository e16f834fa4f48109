"""The policy: the rules of the gate as root writes them, closed and frozen.

Defaults are those of ``strict``, the figures of the security analysis: a policy that leaves
something out is never looser than that. What no policy can grant (privileged, the engine's
socket, a host namespace) has no switch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from controller.model.names import DEFAULT_NAMESPACE, NetworkNames
from controller.model.policy_values import (
    NANO,
    Address,
    BaseName,
    Bytes,
    Capability,
    Cpus,
    Day,
    DurationMs,
    HostPath,
    ImagePrefix,
    Namespace,
    OwnerName,
    PortNumber,
    Uid,
)
from controller.model.spec import Model

#: The owner of what operators create by hand.
OPERATOR_OWNER = "operator"
#: The engine refuses less memory than this.
MEMORY_FLOOR = 6 * 1024**2


class Images(Model):
    """Which images may run: the allowlist, by whole components of the canonical reference."""

    allow: Annotated[tuple[ImagePrefix, ...], Field(min_length=1)] = ("ghcr.io/platformnetwork/",)
    #: Prefixes whose local images need no entry in the ledger; ``development`` only.
    trust_local: tuple[ImagePrefix, ...] = ()
    #: Only references with a digest.
    require_digest: bool = False
    #: Container paths without a mount: an image's VOLUMEs and Config.Volumes.
    anonymous_volumes: bool = False
    #: os/architecture values beside the host's own.
    platforms: tuple[str, ...] = ()


class Capabilities(Model):
    """What may be asked for with CapAdd; everything else stays dropped."""

    allowed: tuple[Capability, ...] = ("CHOWN", "SETUID", "SETGID")


class Security(Model):
    """Hardening beyond what is always forced."""

    require_non_root: bool = False
    require_read_only_root: bool = False
    runtimes: tuple[str, ...] = ("runc",)


class Memory(Model):
    """Memory of a container; swap is always equal to it, so none is used."""

    default: Bytes = 2 * 1024**3
    max: Bytes = 8 * 1024**3


class CpuLimit(Model):
    """CPUs of a container, in nano-CPUs."""

    default: Cpus = NANO
    max: Cpus = 4 * NANO


class PidLimit(Model):
    """Processes of a container."""

    default: Annotated[int, Field(ge=1)] = 256
    max: Annotated[int, Field(ge=1)] = 512


class TmpfsLimit(Model):
    """Size of one tmpfs mount."""

    default: Bytes = 64 * 1024**2
    max: Bytes = 256 * 1024**2


class Resources(Model):
    """Limits: what is given where none is asked for, and the most that may be asked for."""

    memory: Memory = Memory()
    cpus: CpuLimit = CpuLimit()
    pids: PidLimit = PidLimit()
    tmpfs: TmpfsLimit = TmpfsLimit()
    shm_max: Bytes = 256 * 1024**2
    #: The largest hard value of each ulimit that may be set.
    ulimits: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=lambda: {"nofile": 65536, "nproc": 512, "core": 0}
    )
    #: Size of the writable layer, where the host's storage can bound it; None refuses the option.
    disk_max: Bytes | None = None


class Mounts(Model):
    """Bind sources, by whole components. The never-allowed ones need no entry here."""

    forbidden: tuple[HostPath, ...] = (
        "/etc/passwd",
        "/etc/shadow",
        "/etc/sudoers",
        "/root",
        "/home",
        "/proc",
        "/sys",
        "/dev",
    )
    allowed: tuple[HostPath, ...] = ("/tmp/", "/var/lib/platform/", "/var/lib/docker/volumes/")  # noqa: S108
    max: Annotated[int, Field(ge=0, le=256)] = 64


class HostPorts(Model):
    """Which host addresses and ports may be published; the first address is given to a port
    that names none.
    """

    host_ips: Annotated[tuple[Address, ...], Field(min_length=1, alias="hostIPs")] = (
        "127.0.0.1",
        "::1",
    )
    min_host: PortNumber = 1024
    #: Ports of the engine, its cluster and other agents with rights on the host.
    reserved: tuple[PortNumber, ...] = (2375, 2376, 2377, 4243, 4789, 7946, 8472, 10250)
    max: Annotated[int, Field(ge=0, le=1024)] = 64
    #: Ports below ``minHost``, or reserved, that may be published all the same.
    granted: tuple[PortNumber, ...] = ()


class Networks(Model):
    """Modes that are granted, and the names of the networks that they imply."""

    modes: Annotated[tuple[Literal["none", "bridge", "isolated"], ...], Field(min_length=1)] = (
        "none",
        "bridge",
        "isolated",
    )
    isolated: BaseName = "platform-network"
    ingress: BaseName = "platform-ingress"
    bridge: BaseName = "platform-bridge"
    #: Networks that clients make are internal, whatever they ask for.
    client_internal: bool = True
    ports: HostPorts = HostPorts()
    #: Names that containers may answer to beside their own.
    aliases: tuple[str, ...] = ()
    ipv6: bool = False
    #: Networks of ours, by their name on the engine, that any namespace may join.
    granted: tuple[str, ...] = ()

    @property
    def names(self) -> NetworkNames:
        """The base names, for the planner."""
        return NetworkNames(self.isolated, self.ingress, self.bridge)


class Logs(Model):
    """Drivers that keep the log here, and its rotation."""

    drivers: Annotated[tuple[Literal["json-file", "local"], ...], Field(min_length=1)] = (
        "json-file",
        "local",
    )
    default_size: Bytes = 10 * 1024**2
    default_files: Annotated[int, Field(ge=1)] = 3
    max_size: Bytes = 100 * 1024**2
    max_files: Annotated[int, Field(ge=1)] = 10


class Restart(Model):
    """Restart policies of the engine that may be asked for."""

    policies: tuple[Literal["no", "always", "on-failure", "unless-stopped"], ...] = (
        "no",
        "always",
        "on-failure",
        "unless-stopped",
    )
    max_retries: Annotated[int, Field(ge=0, le=1000)] = 10


class Healthcheck(Model):
    """Bounds of health checks: a check is a command that the engine runs over and over."""

    min_interval: DurationMs = 1_000
    max_interval: DurationMs = 3_600_000
    min_timeout: DurationMs = 1
    max_timeout: DurationMs = 600_000
    max_retries: Annotated[int, Field(ge=1)] = 10
    max_start_period: DurationMs = 3_600_000
    shell: bool = True


class Env(Model):
    """Bounds of the environment, and variables that decide what code runs."""

    max: Annotated[int, Field(ge=0)] = 512
    max_bytes: Bytes = 64 * 1024
    denied: tuple[str, ...] = ("LD_PRELOAD", "LD_AUDIT")


class Labels(Model):
    """Bounds of labels, and prefixes that grant rights in other tools that read the engine."""

    max: Annotated[int, Field(ge=0)] = 100
    max_bytes: Bytes = 64 * 1024
    denied_prefixes: tuple[str, ...] = (
        "socket-proxy.",
        "com.sockguard.",
        "com.centurylinklabs.watchtower.",
        "ofelia.",
        "traefik.",
        "com.docker.swarm.",
        "com.docker.stack.",
        "io.kubernetes.",
    )


class Quotas(Model):
    """Containers in the inventory, in any state."""

    per_service: Annotated[int, Field(ge=0)] = 100
    per_owner: Annotated[int, Field(ge=0)] = 200


class Owner(Model):
    """An owner: its namespaces, the bind sources under which it may mount, its uids, its quota.

    ``sources`` empty means every source that the policy allows; ``quota`` None the policy's.
    """

    name: OwnerName
    namespaces: Annotated[tuple[Namespace, ...], Field(min_length=1)] = (DEFAULT_NAMESPACE,)
    sources: tuple[HostPath, ...] = ()
    uids: tuple[Annotated[int, Field(ge=1, le=2**32 - 2)], ...] = ()
    quota: Annotated[int, Field(ge=0)] | None = None


class Client(Model):
    """A user of the host who may speak to the socket, for one owner."""

    uid: Uid
    owner: OwnerName


class Loosens(Model):
    """What an exception grants; only what is written."""

    cap_add: tuple[Capability, ...] = ()
    memory_max: Bytes | None = None
    cpus_max: Cpus | None = None
    pids_max: Annotated[int, Field(ge=1)] | None = None
    shm_max: Bytes | None = None
    host_ports: tuple[PortNumber, ...] = ()
    host_ips: Annotated[tuple[Address, ...], Field(alias="hostIPs")] = ()
    mounts: tuple[HostPath, ...] = ()
    networks: tuple[str, ...] = ()  # names on the engine, of other namespaces
    modes: tuple[Literal["none", "bridge", "isolated"], ...] = ()
    runtimes: tuple[str, ...] = ()
    root: bool = False
    writable_root: bool = False
    anonymous_volumes: bool = False


class Exemption(Model):
    """A loosening for one service, with its reason and its last day (UTC)."""

    owner: OwnerName
    namespace: Namespace
    service: str
    repository: str
    reason: Annotated[str, Field(min_length=10)]
    expires: Day
    loosens: Loosens

    @property
    def ends_at(self) -> float:
        """The instant from which it no longer holds, in seconds since the epoch."""
        day = date.fromisoformat(self.expires) + timedelta(days=1)
        return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()

    @property
    def label(self) -> str:
        """How it is called in verdicts."""
        return f"exception:{self.owner}/{self.namespace}/{self.service}"


class Policy(Model):
    """The whole policy. ``owners`` None lists none: any owner is taken."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    profile: Literal["strict", "production", "development"] = "strict"
    images: Images = Images()
    capabilities: Capabilities = Capabilities()
    security: Security = Security()
    resources: Resources = Resources()
    mounts: Mounts = Mounts()
    networks: Networks = Networks()
    logs: Logs = Logs()
    restart: Restart = Restart()
    auto_remove: bool = True
    healthcheck: Healthcheck = Healthcheck()
    env: Env = Env()
    labels: Labels = Labels()
    quotas: Quotas = Quotas()
    owners: Annotated[tuple[Owner, ...], Field(min_length=1)] | None = None
    operators: tuple[Uid, ...] = ()
    clients: tuple[Client, ...] = ()
    #: Uids that may speak from another pid namespace than the broker's (a container).
    container_peers: tuple[Uid, ...] = ()
    exceptions: tuple[Exemption, ...] = ()
    #: What becomes of a container whose effective state can't be looked at.
    unverified: Literal["accept", "stop"] = "accept"

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        problems = tuple(_contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def owner(self, name: str) -> Owner | None:
        """Return the listed owner of that name; with no list, any name is an owner of all."""
        if self.owners is None:
            return Owner(name=name)
        return next((owner for owner in self.owners if owner.name == name), None)

    def namespace_of(self, owner: str) -> str:
        """Return the namespace of an owner's clients: the first of its own, else ``default``."""
        listed = self.owner(owner) if self.owners is not None else None
        return listed.namespaces[0] if listed else DEFAULT_NAMESPACE

    def to_json(self) -> dict[str, object]:
        """Return the policy as JSON that ``from_json`` reads back, every default written out."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_json(cls, value: object) -> Policy:
        """Read back what ``to_json`` gave (or what a file's YAML means).

        Raises:
            pydantic.ValidationError: it isn't a policy.
        """
        return cls.model_validate_json(json.dumps(value))

    @property
    def digest(self) -> str:
        """SHA-256 of the policy's canonical JSON, in hex."""
        text = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _contradictions(policy: Policy) -> Iterable[str]:
    if policy.images.trust_local and policy.profile != "development":
        yield (
            "images.trustLocal needs `profile: development`: elsewhere a local image is trusted "
            "one at a time, with `trimtab image trust`"
        )
    if policy.profile == "production" and policy.owners is None:
        yield "`profile: production` needs the list of owners"
    resources = policy.resources
    for what, default, most in (
        ("memory", resources.memory.default, resources.memory.max),
        ("cpus", resources.cpus.default, resources.cpus.max),
        ("pids", resources.pids.default, resources.pids.max),
        ("tmpfs", resources.tmpfs.default, resources.tmpfs.max),
    ):
        if default > most:
            yield f"resources.{what}: the default is above the maximum"
    if resources.memory.default < MEMORY_FLOOR:
        yield "resources.memory.default: the engine needs at least 6Mi"
    logs = policy.logs
    if logs.default_size > logs.max_size or logs.default_files > logs.max_files:
        yield "logs: the default is above the maximum"
    networks = policy.networks
    if len({networks.isolated, networks.ingress, networks.bridge}) != 3:
        yield "networks.isolated, .ingress and .bridge need three different names"
    yield from _people(policy)


def _people(policy: Policy) -> Iterable[str]:
    names = None if policy.owners is None else [owner.name for owner in policy.owners]
    if names is not None and len(set(names)) != len(names):
        yield "owners: a name is listed twice"
    uids = [client.uid for client in policy.clients]
    if len(set(uids)) != len(uids):
        yield "clients: a uid is listed twice"
    for client in policy.clients:
        if client.uid == 0 or client.uid in policy.operators:
            yield f"clients: uid {client.uid} is an operator already"
        if client.owner == OPERATOR_OWNER:
            yield f"clients: `{OPERATOR_OWNER}` is what operators' own containers belong to"
    if names is not None:
        used = [client.owner for client in policy.clients] + [e.owner for e in policy.exceptions]
        for owner in dict.fromkeys(used):
            if owner not in names:
                yield f"owner {owner!r} is used and not listed in owners"
