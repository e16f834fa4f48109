"""The comparison of a container's state in the kernel with its admitted confinement.

Pure. The kinds of differences:

- A *breach* gives the container more than its confinement, and more than the policy admits. The
  broker reports a violation and stops the container.
- A *drift* is any other difference: another limit within the policy, or a network of the own
  namespace. The controller repairs drift.
- A *doubt* is a state that cannot be read. A doubt never counts as a breach or drift.

Fewer rights than admitted are no difference, since programs drop capabilities themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.core.enforcement import kernel_mounts as mounts
from controller.core.engine_api.comparable_fields import REQUIRED_LIMITS
from controller.model.confinement import (
    UNLIMITED,
    CgroupLimits,
    Confinement,
    DifferenceKind,
    EffectiveState,
    KernelDifference,
)
from controller.model.observed import Settings
from controller.model.policy.values import format_cpus
from controller.model.quantities import format_bytes

PAGE = 4096
FILTERED = 2  # the Seccomp value in /proc/PID/status of a process with a filter
NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
CPU_PERIOD = 100_000
#: The names in capability.h, by bit.
CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)


@dataclass(frozen=True, slots=True)
class PolicyBounds:
    """The policy's maximum for a service, including its exceptions."""

    memory: int
    nano_cpus: int
    pids: int


@dataclass(frozen=True, slots=True)
class JoinedNetwork:
    """A network that the container has joined."""

    name: str
    own: bool  # created by us, in the container's namespace or by its owner
    id: str = ""


#: Breaches that the broker can undo on the running container: a limit, or a network.
REVERSIBLE = frozenset({"effective.limit", "effective.network"})


@dataclass(frozen=True, slots=True)
class ExpectedState:
    """The admitted state, and the bounds of today's policy."""

    id: str
    confinement: Confinement
    settings: Settings
    bounds: PolicyBounds
    seccomp: bool = True  # the engine supports seccomp
    #: The members of the create that the engine drops with the policy's leave.
    ignored: frozenset[str] = frozenset()


def compare(
    expected: ExpectedState, effective: EffectiveState, joined: tuple[JoinedNetwork, ...]
) -> tuple[KernelDifference, ...]:
    """Return all differences, breaches first; () if the state is as admitted."""
    differences = [
        *_privileges(expected, effective),
        *_namespaces(expected, effective),
        *mounts.compare(expected.confinement, expected.id, effective),
        *_limits(expected, effective.limits),
        *_networks(expected, joined),
    ]
    order = list(DifferenceKind)
    return tuple(sorted(differences, key=lambda difference: order.index(difference.kind)))


# Privileges


def _privileges(expected: ExpectedState, effective: EffectiveState) -> Iterator[KernelDifference]:
    admitted = mask_of(expected.confinement.capabilities)
    for name, held in sorted(effective.capabilities.items()):
        if more := held & ~admitted:
            text = f"Cap{name} has {', '.join(names_of(more))} in addition to the admitted ones"
            yield KernelDifference("effective.capabilities", text)
    if not effective.no_new_privileges and not expected.confinement.new_privileges:
        yield KernelDifference("effective.privileges", "its programs can gain privileges")
    if not expected.seccomp:
        doubt = "the engine has no seccomp"
        yield KernelDifference("effective.seccomp", doubt, DifferenceKind.DOUBT)
    elif effective.seccomp != FILTERED:
        yield KernelDifference("effective.seccomp", f"Seccomp is {effective.seccomp}, not a filter")
    if expected.confinement.non_root and effective.uid == 0:
        yield KernelDifference("effective.user", "it runs as root, which the policy refuses")
    yield from _groups(expected.confinement, effective)


def _groups(confinement: Confinement, effective: EffectiveState) -> Iterator[KernelDifference]:
    if not confinement.user:
        return
    gid = int(confinement.user.partition(":")[2])
    admitted = {gid, *map(int, confinement.groups)}
    if more := sorted({effective.gid, *effective.groups} - admitted):
        text = f"it is in the groups {', '.join(map(str, more))} in addition to the admitted ones"
        yield KernelDifference("effective.groups", text)


def mask_of(capabilities: tuple[str, ...]) -> int:
    """Return the kernel's mask for capabilities."""
    return sum(1 << CAPABILITIES.index(name) for name in capabilities if name in CAPABILITIES)


def names_of(mask: int) -> list[str]:
    """Return the names of a mask's capabilities; an unknown one as its number."""
    bits = [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
    return [CAPABILITIES[bit] if bit < len(CAPABILITIES) else str(bit) for bit in bits]


def _namespaces(expected: ExpectedState, effective: EffectiveState) -> Iterator[KernelDifference]:
    private = (*NAMESPACES, "cgroup") if expected.confinement.private_cgroup else NAMESPACES
    for name in private:
        if name in effective.shared and name not in expected.confinement.host_namespaces:
            yield KernelDifference("effective.namespace", f"it is in the host's {name} namespace")


# Limits

_MEMBERS = {
    "memory": REQUIRED_LIMITS["memory"],
    "CPUs": REQUIRED_LIMITS["cpus"],
    "processes": REQUIRED_LIMITS["pids"],
}


def _limits(expected: ExpectedState, limits: CgroupLimits) -> Iterator[KernelDifference]:
    settings, bounds = expected.settings, expected.bounds
    rows = (
        ("memory", limits.memory, settings.memory, bounds.memory, format_bytes),
        ("CPUs", limits.nano_cpus, nano_cpus(settings), bounds.nano_cpus, format_cpus),
        ("processes", limits.pids, settings.pids, bounds.pids, str),
    )
    for name, shown, admitted, most, format_number in rows:
        if shown in (None, UNLIMITED) and not expected.ignored.isdisjoint(_MEMBERS[name]):
            continue
        if shown is None:
            doubt = f"the limit of {name} can't be seen"
            yield KernelDifference("effective.limit", doubt, DifferenceKind.DOUBT)
        elif shown == UNLIMITED:
            yield KernelDifference("effective.limit", f"{name} have no limit")
        elif shown > max(_rounded(name, admitted), most):
            reason = f"{format_number(shown)} of {name}: admitted are {format_number(admitted)}"
            yield KernelDifference("effective.limit", reason)
        elif not _rounded(name, admitted, down=True) <= shown <= _rounded(name, admitted):
            drift = f"{format_number(shown)} of {name}: admitted were {format_number(admitted)}"
            yield KernelDifference("effective.limit", drift, DifferenceKind.DRIFT)
    if "MemorySwap" not in expected.ignored:
        yield from _swap(settings, limits)


def _swap(settings: Settings, limits: CgroupLimits) -> Iterator[KernelDifference]:
    """Judge swap: no swap is admitted beyond the memory, whatever the memory limit is now."""
    together, memory = limits.memory_swap, limits.memory
    if together is None:
        doubt = "the limit of swap can't be seen"
        yield KernelDifference("effective.limit", doubt, DifferenceKind.DOUBT)
    elif together == UNLIMITED:
        if memory != UNLIMITED:  # reported as "memory have no limit" already
            yield KernelDifference("effective.limit", "swap has no limit")
    elif memory is not None and together > max(memory, _rounded("memory", settings.memory_swap)):
        reason = f"{format_bytes(together - memory)} of swap: none is admitted"
        yield KernelDifference("effective.limit", reason)


def nano_cpus(settings: Settings) -> int:
    """Return the admitted CPUs in nano-CPUs, given as NanoCpus or as CpuQuota and CpuPeriod."""
    if settings.nano_cpus or settings.cpu_quota <= 0:
        return settings.nano_cpus
    return settings.cpu_quota * 1_000_000_000 // (settings.cpu_period or CPU_PERIOD)


def _rounded(name: str, admitted: int, *, down: bool = False) -> int:
    """Return an admitted number in the kernel's units: whole pages, whole microseconds."""
    match name:
        case "memory":
            return admitted // PAGE * PAGE if down else -(-admitted // PAGE) * PAGE
        case "CPUs":
            # The kernel stores a quota as whole microseconds in its period.
            return admitted // 10_000 * 10_000 if down else admitted
        case _:
            return admitted


# Networks


def _networks(
    expected: ExpectedState, joined: tuple[JoinedNetwork, ...]
) -> Iterator[KernelDifference]:
    admitted = set(expected.settings.networks)
    for network in sorted(joined, key=lambda each: each.name):
        if not network.own:
            fault = "a foreign one of that name" if network.name in admitted else "not admitted"
            yield KernelDifference(
                "effective.network", f"it is in the network {network.name}: {fault}"
            )
        elif network.name not in admitted:
            drift = f"it is in the network {network.name}"
            yield KernelDifference("effective.network", drift, DifferenceKind.DRIFT)
    for name in sorted(admitted - {network.name for network in joined}):
        drift = f"it isn't in the network {name}"
        yield KernelDifference("effective.network", drift, DifferenceKind.DRIFT)


def texts_by_kind(differences: tuple[KernelDifference, ...]) -> Mapping[DifferenceKind, str]:
    """Return the descriptions of each kind of difference, joined into a text."""
    return {
        kind: "; ".join(each.text for each in differences if each.kind is kind)
        for kind in DifferenceKind
        if any(each.kind is kind for each in differences)
    }
