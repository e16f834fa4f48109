"""The sections of a policy, each with the figures of ``strict`` as its defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.model.desired.fields import PortNumber
from controller.model.desired.spec import Model
from controller.model.names import CONTAINER_NAME_MAX, NetworkNames
from controller.model.policy.values import (
    NANO,
    Address,
    BaseName,
    Capability,
    Cpus,
    HostPath,
    ImagePrefix,
    KeptVolumes,
    PolicyBytes,
    PolicyDurationMs,
    Subnet,
    Uid,
)

#: What a file system takes as a name: a volume is a folder.
NAME_MAX = 255


class ImageRules(Model):
    """Which images may run: the allowlist, by whole components of the canonical reference."""

    allow: Annotated[tuple[ImagePrefix, ...], Field(min_length=1)] = ("ghcr.io/platformnetwork/",)
    #: Prefixes whose local images need no entry in the ledger; ``development`` only.
    trust_local: tuple[ImagePrefix, ...] = ()
    #: Only references with a digest.
    require_digest: bool = False
    #: What is mounted where an image declares a VOLUME, or a client asks for a volume without a
    #: name: see ``core.rules.image_volumes``.
    anonymous_volumes: KeptVolumes = "refuse"
    #: os/architecture values beside the host's own.
    platforms: tuple[str, ...] = ()


class Capabilities(Model):
    """What may be asked for with CapAdd; everything else stays dropped."""

    allowed: tuple[Capability, ...] = ("CHOWN", "SETUID", "SETGID")


class SecurityRules(Model):
    """Hardening beyond what is always forced."""

    require_non_root: bool = False
    require_read_only_root: bool = False
    runtimes: tuple[str, ...] = ("runc",)
    #: Groups beside the user's own may be asked for.
    group_add: bool = False
    #: What becomes of a container that runs and can't be compared with what was admitted.
    unverified: Literal["allow", "stop"] = "allow"


class MemoryLimit(Model):
    """Memory of a container; swap is always equal to it, so none is used."""

    default: PolicyBytes = 2 * 1024**3
    max: PolicyBytes = 8 * 1024**3


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

    default: PolicyBytes = 64 * 1024**2
    max: PolicyBytes = 256 * 1024**2
    #: Programs in it may be run, where that is asked for.
    executable: Annotated[bool, Field(alias="exec")] = False


class ResourceRules(Model):
    """Limits: what is given where none is asked for, and the most that may be asked for."""

    memory: MemoryLimit = MemoryLimit()
    cpus: CpuLimit = CpuLimit()
    pids: PidLimit = PidLimit()
    tmpfs: TmpfsLimit = TmpfsLimit()
    shm_max: PolicyBytes = 256 * 1024**2
    #: CPUs may be pinned.
    cpuset: bool = False
    #: The largest hard value of each ulimit that may be set.
    ulimits: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=lambda: {"nofile": 65536, "nproc": 512, "core": 0}
    )
    #: Size of the writable layer, where the host's storage can bound it; None refuses the option.
    disk_max: PolicyBytes | None = None


class Project(Model):
    """A folder whose files the user *uid* edits, and containers may mount."""

    path: HostPath
    uid: Uid


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
    #: A volume that a client's create names is made if it is absent, and a volume may be made
    #: without a name.
    create_volumes: bool = False
    #: Folders that may be mounted although they lie below a forbidden one.
    projects: tuple[Project, ...] = ()


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
    #: A range may be given, from which the engine chooses a free port.
    ranges: bool = False


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
    #: A service with mode bridge joins its namespace's isolated network, too: it reaches the internet
    #: and the isolated services, and they reach it.
    bridge_joins_isolated: bool = False
    #: Networks that clients make are internal, whatever they ask for.
    client_internal: bool = True
    ports: HostPorts = HostPorts()
    #: Names that containers may answer to beside their own.
    aliases: tuple[str, ...] = ()
    #: In networks that clients make, their containers may answer to any name.
    client_aliases: bool = False
    #: Ranges within which clients may choose the subnets of networks that they make.
    subnets: tuple[Subnet, ...] = ()
    #: What further entries of /etc/hosts may lead to.
    extra_hosts: tuple[Literal["addresses", "host-gateway"], ...] = ()
    ipv6: bool = False
    #: Networks of ours, by their name on the engine, that any namespace may join.
    granted: tuple[str, ...] = ()

    @property
    def names(self) -> NetworkNames:
        """The base names, for the planner, and what joins what."""
        return NetworkNames(
            self.isolated,
            self.ingress,
            self.bridge,
            bridge_joins_isolated=self.bridge_joins_isolated,
        )


class LogRules(Model):
    """Drivers that keep the log here, and its rotation."""

    drivers: Annotated[tuple[Literal["json-file", "local"], ...], Field(min_length=1)] = (
        "json-file",
        "local",
    )
    default_size: PolicyBytes = 10 * 1024**2
    default_files: Annotated[int, Field(ge=1)] = 3
    max_size: PolicyBytes = 100 * 1024**2
    max_files: Annotated[int, Field(ge=1)] = 10


class RestartRules(Model):
    """Restart policies of the engine that may be asked for."""

    policies: tuple[Literal["no", "always", "on-failure", "unless-stopped"], ...] = (
        "no",
        "always",
        "on-failure",
        "unless-stopped",
    )
    max_retries: Annotated[int, Field(ge=0, le=1000)] = 10


class HealthcheckRules(Model):
    """Bounds of health checks: a check is a command that the engine runs over and over."""

    min_interval: PolicyDurationMs = 1_000
    max_interval: PolicyDurationMs = 3_600_000
    min_timeout: PolicyDurationMs = 1
    max_timeout: PolicyDurationMs = 600_000
    max_retries: Annotated[int, Field(ge=1)] = 10
    max_start_period: PolicyDurationMs = 3_600_000
    shell: bool = True


class Env(Model):
    """Bounds of the environment, and variables that decide what code runs."""

    max: Annotated[int, Field(ge=0)] = 512
    max_bytes: PolicyBytes = 64 * 1024
    denied: tuple[str, ...] = ("LD_PRELOAD", "LD_AUDIT")
    #: A name without a value unsets the image's variable, as the engine has it; else it is refused.
    unset: bool = False


class Exec(Model):
    """Commands that operators run in a container that runs already."""

    enabled: bool = True
    #: From then on a session is cut, and its processes are ended.
    max_duration: Annotated[PolicyDurationMs, Field(ge=1_000, le=86_400_000)] = 3_600_000
    #: Whether root may be named as the user; without a name it is the container's own.
    root: bool = False


class Labels(Model):
    """Bounds of labels, and prefixes that grant rights in other tools that read the engine."""

    max: Annotated[int, Field(ge=0)] = 100
    max_bytes: PolicyBytes = 64 * 1024
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


class Names(Model):
    """Names that clients give to containers, networks and volumes."""

    max: Annotated[int, Field(ge=CONTAINER_NAME_MAX, le=NAME_MAX)] = CONTAINER_NAME_MAX
    #: Host names may have ``_``, as the engine takes them.
    underscores: bool = False


class Quotas(Model):
    """Containers in the inventory, in any state."""

    per_service: Annotated[int, Field(ge=0)] = 100
    per_owner: Annotated[int, Field(ge=0)] = 200
