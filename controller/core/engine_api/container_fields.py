"""The fields of a container: in documents, in the engine's bodies and in Compose, each of them once.

``core.engine_api.field_tables`` has the type of each member and its treatment by the gate, and the
models in ``model.desired.spec`` the type and the bounds of each field of a document. Everything else
about a field is a row here, and is read from here: the body of a create, the settings that are
compared with the admitted ones, the bounds of the policy and the lines that would permit more, the
fields named in refusals and plans, what an engine may drop, and the conversion from and to Compose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from controller.core.engine_api.field_reader import Field, flag, whole
from controller.core.engine_api.field_tables import CONFIG, HOST_CONFIG
from controller.core.engine_api.requests import CreateRequest, ResourceLimits
from controller.model.observed import CPU_SHARES_MAX
from controller.model.quantities import format_bytes

if TYPE_CHECKING:
    # The journal is read without a policy.
    from controller.model.policy.document import Policy

#: The gate's row of each member. A name in both objects is that of ``HostConfig``.
GATE: Final[Mapping[str, Field]] = {entry.name: entry for entry in (*CONFIG, *HOST_CONFIG)}
_HOST: Final = frozenset(entry.name for entry in HOST_CONFIG)


class ChangedBy(StrEnum):
    """What brings a member of an existing container to another value."""

    REPLACE = "replace"  # a new container: the member is fixed at the create
    UPDATE = "update"  # an update: every container is admitted with a value
    UPDATE_IF_SET = "update if set"  # an update if admitted with a value: no update unsets it
    FOREIGN = "foreign"  # never admitted: an update past the gate sets it, and none unsets it


@dataclass(frozen=True, slots=True)
class NumberBounds:
    """The least and the most of a set number: each a number, or the line of the policy that has it."""

    rule: str
    least: int | str
    most: int | str

    def of(self, policy: Policy) -> tuple[int, int]:
        """Return the least and the most."""
        return _in_policy(self.least, policy), _in_policy(self.most, policy)

    def line(self, number: int, policy: Policy) -> str:
        """Return the line of the policy that a number is beyond; '' if none."""
        least, most = self.of(policy)
        beyond = self.least if number < least else self.most if number > most else ""
        return beyond if isinstance(beyond, str) else ""


def unchanged(value: object) -> object:
    """Return a value of a document as a body has it."""
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class ContainerField:
    """A field of a container."""

    #: The name of the member in the body of a create.
    member: str
    #: The field of a document with this value, which a create copies (``form``).
    document: str = ""
    #: The field of a document of which ``create_body`` makes the member in a way of its own.
    made_of: str = ""
    #: Returns the member for the value of the document. An unset member is left out.
    form: Callable[[Any], object] = unchanged
    #: The attribute of a Compose service with the value of the member.
    compose: str = ""
    changed_by: ChangedBy = ChangedBy.REPLACE
    #: Returns the value of a limit in words. A limit has the attribute of the gate's row in ``EngineLimits``.
    show: Callable[..., str] | None = None
    #: The members of the engine's ``/info`` that are false if the engine drops the value.
    info: str = ""
    bound: NumberBounds | None = None

    @property
    def gate(self) -> Field:
        """The gate's row of the member."""
        return GATE[self.member]

    @property
    def place(self) -> str:
        """The place of the member in the body."""
        return f"HostConfig.{self.member}" if self.is_of_host else self.member

    @property
    def is_of_host(self) -> bool:
        """True for a member of ``HostConfig``."""
        return self.member in _HOST

    def number_in(self, request: CreateRequest | ResourceLimits) -> int | None:
        """Return the number in a create or in its limits; None if unset, or if it is in the other one."""
        return getattr(request, self.gate.attribute or "", None)

    @property
    def path(self) -> str:
        """The field of a document, however the member is made of it; '' for none."""
        return self.document or self.made_of

    @property
    def is_plain(self) -> bool:
        """True for a number or a switch. Neither can be a secret."""
        return self.gate.read in (whole, flag)


def snake_case(path: str) -> str:
    """Return the attributes for a path in a document or in a policy."""
    return re.sub(r"[A-Z]", lambda capital: f"_{capital[0].lower()}", path)


def camel_case(name: str) -> str:
    """Return the name in a document for an attribute."""
    return re.sub(r"_([a-z])", lambda letter: letter[1].upper(), name)


def _in_policy(number: int | str, policy: Policy) -> int:
    found = attrgetter(snake_case(number))(policy) if isinstance(number, str) else number
    assert isinstance(found, int), f"{number} is a number of the policy"
    return found


# Values of limits in words


def in_bytes(count: int) -> str:
    """Return a limit in bytes."""
    return format_bytes(count) if count > 0 else "unlimited"


def in_cpus(nano: int) -> str:
    """Return a limit in nano-CPUs."""
    return f"{nano / 1_000_000_000:g}" if nano else "unlimited"


def in_number(count: int) -> str:
    """Return a limit that is a number."""
    return str(count) if count else "unlimited"


def as_it_is(value: object) -> str:
    """Return a setting that is no limit."""
    return str(value) or "unset"


# Members for values of documents


def _nano(cpus: float | None) -> object:
    return None if cpus is None else round(cpus * 1_000_000_000)


def _storage(size: int | None) -> object:
    return {"size": str(size)} if size else {}


def _by_name(values: Mapping[str, str]) -> object:
    return dict(sorted(values.items()))


_UPDATE, _IF_SET, _FOREIGN = ChangedBy.UPDATE, ChangedBy.UPDATE_IF_SET, ChangedBy.FOREIGN
FIELDS: Final = (
    ContainerField("Hostname", "spec.hostname", compose="hostname"),
    ContainerField("Domainname", "spec.domainname", compose="domainname"),
    ContainerField("User", "spec.user", compose="user"),
    ContainerField("Tty", "spec.tty", compose="tty"),
    ContainerField("OpenStdin", "spec.stdin", compose="stdin_open"),
    ContainerField("ExposedPorts", made_of="spec.ports"),
    ContainerField("Env", made_of="spec.env"),
    ContainerField("TrimtabEnv", made_of="spec.env"),
    ContainerField("TrimtabHooks", made_of="spec.lifecycle"),
    ContainerField("TrimtabShares", made_of="spec.shares"),
    ContainerField("Cmd", "spec.command"),
    ContainerField("Entrypoint", "spec.entrypoint"),
    ContainerField("Healthcheck", made_of="spec.healthcheck"),
    ContainerField("Image", made_of="spec.image"),
    ContainerField("WorkingDir", "spec.workingDir", compose="working_dir"),
    ContainerField("MacAddress", compose="mac_address"),
    ContainerField("Labels", made_of="spec.containerLabels"),
    ContainerField("StopSignal", "spec.stopSignal", compose="stop_signal"),
    ContainerField("StopTimeout", made_of="spec.stopGracePeriod"),
    ContainerField("NetworkingConfig", made_of="spec.network"),
    # Limits, in the order in which sentences name them.
    ContainerField(
        *("Memory", "spec.resources.memory"),
        compose="mem_limit",
        changed_by=_UPDATE,
        show=in_bytes,
        info="MemoryLimit",
    ),
    ContainerField(
        "MemorySwap",
        made_of="spec.resources.memory",
        changed_by=_UPDATE,
        show=in_bytes,
        info="MemoryLimit SwapLimit",
    ),
    ContainerField(
        *("MemoryReservation", "spec.resources.memoryReservation"),
        compose="mem_reservation",
        changed_by=_IF_SET,
        show=in_bytes,
        info="MemoryLimit",
    ),
    ContainerField(
        *("NanoCpus", "spec.resources.cpus"),
        form=_nano,
        changed_by=_UPDATE,
        show=in_cpus,
        info="CpuCfsQuota CpuCfsPeriod",
    ),
    ContainerField(
        "CpuQuota", compose="cpu_quota", changed_by=_IF_SET, show=as_it_is, info="CpuCfsQuota"
    ),
    ContainerField(
        "CpuPeriod", compose="cpu_period", changed_by=_IF_SET, show=as_it_is, info="CpuCfsPeriod"
    ),
    ContainerField(
        *("CpuShares", "spec.resources.cpuShares"),
        compose="cpu_shares",
        changed_by=_IF_SET,
        show=as_it_is,
        info="CPUShares",
        bound=NumberBounds("resources.shares", 2, CPU_SHARES_MAX),
    ),
    ContainerField(
        *("CpusetCpus", "spec.resources.cpuset"),
        compose="cpuset",
        changed_by=_IF_SET,
        show=as_it_is,
        info="CPUSet",
    ),
    ContainerField(
        *("PidsLimit", "spec.resources.pids"),
        compose="pids_limit",
        changed_by=_UPDATE,
        show=in_number,
        info="PidsLimit",
        bound=NumberBounds("resources.pids", 1, "resources.pids.max"),
    ),
    ContainerField(
        "MemorySwappiness", compose="mem_swappiness", bound=NumberBounds("resources.swap", 0, 100)
    ),
    ContainerField("CpusetMems", changed_by=_FOREIGN),
    ContainerField("BlkioWeight", changed_by=_FOREIGN),
    ContainerField("CpuRealtimePeriod", compose="cpu_rt_period", changed_by=_FOREIGN),
    ContainerField("CpuRealtimeRuntime", compose="cpu_rt_runtime", changed_by=_FOREIGN),
    ContainerField("OomKillDisable", compose="oom_kill_disable"),
    ContainerField("CpuCount", compose="cpu_count"),
    ContainerField("CpuPercent", compose="cpu_percent"),
    ContainerField("CgroupParent", compose="cgroup_parent"),
    ContainerField("DeviceCgroupRules", compose="device_cgroup_rules"),
    ContainerField("Devices", made_of="spec.devices"),
    ContainerField("DeviceRequests", made_of="spec.devices"),
    ContainerField("Ulimits", made_of="spec.ulimits"),
    ContainerField("Mounts", made_of="spec.mounts"),
    ContainerField("LogConfig", made_of="spec.logs"),
    ContainerField("NetworkMode", made_of="spec.network.mode"),
    ContainerField("PortBindings", made_of="spec.ports"),
    ContainerField("RestartPolicy", made_of="spec.restart.policy", changed_by=_UPDATE),
    ContainerField("VolumesFrom", compose="volumes_from"),
    ContainerField("Annotations", compose="annotations"),
    ContainerField("CapAdd", "spec.security.capAdd", compose="cap_add"),
    ContainerField("CapDrop", compose="cap_drop"),
    ContainerField("CgroupnsMode", compose="cgroup"),
    ContainerField("Dns", "spec.dns.servers", compose="dns"),
    ContainerField("DnsOptions", "spec.dns.options", compose="dns_opt"),
    ContainerField("DnsSearch", "spec.dns.search", compose="dns_search"),
    ContainerField("ExtraHosts", made_of="spec.extraHosts", compose="extra_hosts"),
    ContainerField("GroupAdd", "spec.groupAdd", compose="group_add"),
    ContainerField("IpcMode", made_of="spec.ipc"),
    ContainerField(
        "OomScoreAdj",
        "spec.oomScoreAdj",
        compose="oom_score_adj",
        bound=NumberBounds("resources.oom", "resources.oomScoreAdjMin", 1000),
    ),
    ContainerField("PidMode", compose="pid"),
    ContainerField("Privileged", compose="privileged"),
    ContainerField("ReadonlyRootfs", "spec.security.readOnlyRootFilesystem", compose="read_only"),
    ContainerField("SecurityOpt", compose="security_opt"),
    ContainerField("StorageOpt", "spec.resources.disk", form=_storage, compose="storage_opt"),
    ContainerField("Tmpfs", made_of="spec.mounts"),
    ContainerField("UTSMode", compose="uts"),
    ContainerField("UsernsMode", compose="userns_mode"),
    ContainerField("ShmSize", "spec.resources.shm"),
    ContainerField("Sysctls", "spec.sysctls", form=_by_name, compose="sysctls"),
    ContainerField("Runtime", "spec.security.runtime", compose="runtime"),
    ContainerField("Init", "spec.init", compose="init"),
)
#: The limits that an engine can change on a living container.
LIMITS: Final = tuple(each for each in FIELDS if each.show is not None)
#: The numbers with bounds.
BOUNDED: Final = tuple((each, each.bound) for each in FIELDS if each.bound is not None)
