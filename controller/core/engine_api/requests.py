"""What a client asked the engine for, as typed values: the result of ``core.engine_api.parse``.

Nothing of a client's body survives but what is here. A field of the wrong type, an unknown one
or one that nobody may set is a ``Finding`` and counts as unset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

#: The JSON body of an Engine API request, or an object within one.
RequestBody = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """Why part of a request is refused: the rule's id, where, why, and what would pass.

    ``tolerable``: nothing but the policy's own bound is passed, so that a mode of the rule
    (``model.policy.modes``) may let it through, and the body can be made with the value as it was asked.
    ``grant`` names the line of the policy that would admit it (``core.policy.grants``), '' for none.
    """

    rule: str
    path: str
    reason: str
    remedy: str = ""
    tolerable: bool = False
    grant: str = ""

    @property
    def advice(self) -> str:
        """The remedy, and the line of the policy that would admit it as it is."""
        return "; or ".join(part for part in (self.remedy, self.grant) if part)


#: The findings of one rule.
Findings = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class PortRequest:
    """A published port; ``host`` 0 lets the engine choose, ``host_ip`` '' is unset.

    With ``last`` the engine chooses a free one from ``host`` to ``last``. ``path`` is where it
    stands in the body, for messages.
    """

    container: int
    protocol: str
    host: int = 0
    host_ip: str = ""
    last: int = 0
    path: str = field(default="", compare=False)

    @property
    def host_text(self) -> str:
        """The host's port as the engine's API writes it, '' where the engine chooses."""
        return f"{self.host}-{self.last}" if self.last else str(self.host or "")


@dataclass(frozen=True, slots=True)
class MountRequest:
    """A mount, in whichever of the three ways it was asked for (``form``).

    ``form`` is ``binds`` (HostConfig.Binds), ``mounts`` (HostConfig.Mounts) or ``tmpfs``
    (HostConfig.Tmpfs): the rebuilt body keeps it. ``size`` 0 is unset.
    """

    type: str  # bind, volume, tmpfs
    source: str
    target: str
    read_only: bool = False
    form: str = "mounts"
    path: str = ""  # where in the body, for messages
    no_copy: bool = False
    subpath: str = ""
    driver: str = ""  # ``local`` where a volume mount says so
    size: int = 0
    mode: int | None = None
    executable: bool = False  # a tmpfs whose files may be run
    access: str = ""  # ``ro`` or ``rw`` where HostConfig.Binds says so
    propagation: str = ""


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """A network to join, named as the client did, and the names to answer to in it."""

    network: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthcheckRequest:
    """A health check; durations in nanoseconds, 0 inherits."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    retries: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit of processes."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log driver ('' is unset) and its options."""

    type: str = ""
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RestartRequest:
    """What the engine does when the container exits; '' is unset."""

    name: str = ""
    max_retries: int = 0


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Resources; 0 (and ``pids`` None) is unset. Bytes, nano-CPUs, microseconds."""

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    memory_swappiness: int | None = None
    nano_cpus: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpu_shares: int = 0
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """The body of a container create."""

    image: str = ""
    # Config
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    shell: tuple[str, ...] = ()
    healthcheck: HealthcheckRequest | None = None
    volumes: tuple[str, ...] = ()  # Config.Volumes: paths of anonymous volumes
    working_dir: str = ""
    network_disabled: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    stop_timeout: int | None = None
    # HostConfig
    limits: ResourceLimits = ResourceLimits()
    restart: RestartRequest = RestartRequest()
    log: LogConfig = LogConfig()
    network_mode: str = ""
    ports: tuple[PortRequest, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # NAME:ADDRESS
    mounts: tuple[MountRequest, ...] = ()
    cap_add: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()  # beside the user's own
    security_opt: tuple[str, ...] = ()
    auto_remove: bool = False
    read_only_root: bool = False
    init: bool | None = None
    ipc_mode: str = ""
    cgroupns_mode: str = ""
    isolation: str = ""
    runtime: str = ""
    oom_score_adj: int = 0
    shm_size: int = 0
    cpuset: str = ""
    storage: tuple[tuple[str, str], ...] = ()
    console_size: tuple[int, int] = (0, 0)
    ulimits: tuple[Ulimit, ...] = ()
    # NetworkingConfig
    endpoints: tuple[EndpointRequest, ...] = ()
    findings: tuple[Finding, ...] = ()

    def label(self, name: str) -> str:
        """Return the value of a label, '' if it isn't asked for."""
        return dict(self.labels).get(name, "")


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """The body of a container update."""

    limits: ResourceLimits = ResourceLimits()
    restart: RestartRequest = RestartRequest()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """The addresses of a network; ``ip_range`` and ``gateway`` '' are the engine's to choose."""

    subnet: str
    ip_range: str = ""
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """The body of a network create; ``masquerade`` and ``icc`` are bridge options.

    ``options`` has the names of further ones, all of which are refused.
    """

    name: str = ""
    driver: str = ""
    internal: bool = False
    masquerade: bool | None = None
    icc: bool | None = None
    ipv6: bool = False
    pools: tuple[Pool, ...] = ()
    options: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """The body of a volume create."""

    name: str = ""
    driver: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """The body of a network connect (``endpoint``) or disconnect (``force``)."""

    container: str = ""
    endpoint: EndpointRequest = EndpointRequest("")
    force: bool = False
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A command to run in a container; ``user`` and ``working_dir`` '' are the container's own."""

    command: tuple[str, ...] = ()
    user: str = ""
    env: tuple[str, ...] = ()
    working_dir: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)
    detach_keys: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecStart:
    """How such a command is started: ``detach`` leaves it to itself."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)
    findings: tuple[Finding, ...] = ()
