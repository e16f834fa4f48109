"""The comparison of a container's state and mounts in the kernel with what was admitted.

The comparison of a container's state in the kernel with its admitted confinement.

Pure. The kinds of differences:

- A *breach* gives the container more than its confinement, and more than the policy admits. The
  broker reports a violation and stops the container.
- A *drift* is any other difference: another limit within the policy, or a network of the own
  namespace. The controller repairs drift.
- A *doubt* is a state that cannot be read. A doubt never counts as a breach or drift.

Fewer rights than admitted are no difference, since programs drop capabilities themselves.

The comparison of a container's mounts in the kernel with its admitted mounts.

Pure. A mount is identified by its source: the object at its root, its filesystem and its options.
The mount's place in the container proves nothing. The image decides where a path leads
(``/sbin`` and ``/var/run`` are links in most images), and the container's programs can change links
and rename folders at any time. So a path only chooses between mounts with the right source, and an
honest container may change its own links.

Invariant: no link and no name inside a container makes a mount look admitted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.core.engine_api.comparable_fields import REQUIRED_LIMITS
from controller.model.confinement import (
    UNLIMITED,
    CgroupLimits,
    Confinement,
    DifferenceKind,
    EffectiveState,
    ExpectedMount,
    KernelDifference,
    MountinfoLine,
    Root,
)
from controller.model.host_paths import is_below
from controller.model.observed import Settings
from controller.model.policy.values import format_cpus
from controller.model.quantities import format_bytes

SHM_DEFAULT = 64 * 1024**2
#: Files that the engine mounts from the container's own folder, or from the folder of the container
#: whose network is shared, whatever the image's links are.
_OWN_FILES = ("hosts", "hostname", "resolv.conf")
_INIT = frozenset({"docker-init", "tini", "tini-static", "catatonit"})
_KERNELS = {
    "/proc": ("proc",),
    "/dev": ("tmpfs",),
    "/dev/pts": ("devpts",),
    "/dev/mqueue": ("mqueue",),
    "/dev/console": ("devpts",),
    "/sys/fs/cgroup": ("tmpfs", "cgroup", "cgroup2"),
}
#: Devices that a runtime mounts in a user namespace, where it cannot create device nodes.
_DEVICES = {
    "/dev/full": os.makedev(1, 7),
    "/dev/null": os.makedev(1, 3),
    "/dev/random": os.makedev(1, 8),
    "/dev/tty": os.makedev(5, 0),
    "/dev/urandom": os.makedev(1, 9),
    "/dev/zero": os.makedev(1, 5),
}


def compare_mounts(
    confinement: Confinement, container: str, effective: EffectiveState
) -> Iterator[KernelDifference]:
    """Yield all differences between the admitted mounts and the mounts in the kernel."""
    view = _View(effective, confinement, container)
    assigned = _assign(confinement.mounts, view)
    known = set(assigned)
    for number, expected in assigned.items():
        yield from _flags(expected, view.mounts[number])
    for expected in confinement.mounts:
        if expected not in assigned.values():
            number, difference = _missing(expected, view, known)
            known |= {number}
            yield difference
    for mount in effective.mounts:
        if mount.id not in known and not _is_engines(mount, view):
            place = f"{mount.filesystem} {mount.root} is mounted at {mount.point}"
            yield _difference(f"{place}, which was not admitted")
    yield from _masks(effective)


def _difference(text: str, kind: DifferenceKind = DifferenceKind.BREACH) -> KernelDifference:
    return KernelDifference("effective.mount", text, kind)


class _View:
    """A reading of the kernel's state, indexed by mount ids and by the admitted targets."""

    def __init__(self, effective: EffectiveState, confinement: Confinement, container: str) -> None:
        self.confinement = confinement
        self.container = container
        self.mounts = {mount.id: mount for mount in effective.mounts}
        self.program = effective.program
        self.host_root = effective.host_root
        self._roots = {each.mount: each for each in effective.roots if each.kind != "unreadable"}
        self._unreadable = {each.mount for each in effective.roots} - self._roots.keys()
        self._reached = {each.target: each.mount for each in effective.reached}
        self._host_tmpfs = effective.host_tmpfs

    def at(self, target: str) -> MountinfoLine | None:
        """Return the mount into which a path leads now."""
        return self.mounts.get(self._reached.get(target, -1))

    def root(self, mount: MountinfoLine) -> Root | None:
        """Return the object at a mount's root; None if the broker could not open the root."""
        return self._roots.get(mount.id)

    def is_own_tmpfs(self, mount: MountinfoLine) -> bool:
        """Return True if the mount is a whole tmpfs, and none of the host's."""
        whole = mount.filesystem == "tmpfs" and mount.root == "/"
        return whole and mount.device not in self._host_tmpfs

    def why_unknown(self, mount: MountinfoLine) -> str:
        """Return the reason why a mount's root is unknown although nobody hides it; '' if none."""
        if mount.id in self._unreadable:
            return "its filesystem doesn't answer"
        return "another mount covers it" if self.is_covered(mount) else ""

    def is_covered(self, mount: MountinfoLine) -> bool:
        """Return True if another mount covers the mount, so that no path leads there."""
        above = {mount.id}
        parent = self.mounts.get(mount.parent)
        while parent is not None and parent.id not in above:
            above.add(parent.id)
            parent = self.mounts.get(parent.parent)
        return any(
            other.parent == mount.id
            if other.point == mount.point
            else is_below(mount.point, other.point)
            for other in self.mounts.values()
            if other.id not in above
        )


# The admitted mounts


def _assign(mounts: tuple[ExpectedMount, ...], view: _View) -> dict[int, ExpectedMount]:
    """Return the admitted mount of each mount in the kernel, by the id of the latter.

    The strictest choose first. Otherwise a lenient mount could take the only match of a stricter
    mount.
    """
    assigned: dict[int, ExpectedMount] = {}

    def choose(expected: ExpectedMount, *candidates: MountinfoLine | None, exactly: bool) -> bool:
        for mount in candidates:
            if mount is None or mount.id in assigned or not _has_source(mount, expected, view):
                continue
            if not exactly or not any(_flags(expected, mount)):
                assigned[mount.id] = expected
                return True
        return False

    strictest_first = sorted(
        mounts, key=lambda each: (not each.read_only, each.executable, each.size)
    )
    left = [
        expected
        for expected in strictest_first
        if not choose(expected, view.at(expected.target), *view.mounts.values(), exactly=True)
    ]
    for expected in left:
        choose(expected, view.at(expected.target), exactly=False)
    return assigned


def _has_source(mount: MountinfoLine, expected: ExpectedMount, view: _View) -> bool:
    """Return True if a mount has the admitted source."""
    if expected.type == "tmpfs":
        return view.is_own_tmpfs(mount)
    if not expected.source:
        return _is_anonymous(mount.root)
    if expected.remote:
        is_remote = mount.filesystem in {"nfs", "nfs4", "cifs"}
        return (
            is_remote and mount.source == expected.remote and _is_at(mount.root, expected.subpath)
        )
    root = view.root(mount)
    if root is None or not expected.inode or root.device != expected.device:
        return False
    if expected.subpath:
        # The folder inside the volume need not exist at the admission, so its inode is unknown.
        return bool(expected.place) and is_below(mount.root, expected.place)
    return root.inode == expected.inode


def _is_at(root: str, subpath: str) -> bool:
    return root == f"/{subpath.strip('/')}" if subpath else root == "/"


def _is_anonymous(root: str) -> bool:
    parts = root.split("/")
    return (
        len(parts) > 3
        and parts[-1] == "_data"
        and parts[-3] == "volumes"
        and len(parts[-2]) == 64
        and all(digit in "0123456789abcdef" for digit in parts[-2])
    )


def _flags(expected: ExpectedMount, mount: MountinfoLine) -> Iterator[KernelDifference]:
    """Yield the rights of a mount with the right source beyond the admitted rights."""
    target = expected.target
    if expected.read_only and not mount.read_only:
        yield _difference(f"{target} is writable, and was admitted read-only")
    if mount.shared:
        yield _difference(f"mounts of the host show through below {target}")
    if expected.type != "tmpfs":
        return
    for option in ("nosuid", "nodev", *(() if expected.executable else ("noexec",))):
        if option not in mount.options:
            yield _difference(f"the tmpfs at {target} isn't {option}")
    size = size_of(mount)
    if expected.size == UNLIMITED:
        return
    if size is None or size > -(-expected.size // PAGE) * PAGE:
        shown = "any size" if size is None else format_bytes(size)
        yield _difference(
            f"the tmpfs at {target} may hold {shown}, not {format_bytes(expected.size)}"
        )


def size_of(mount: MountinfoLine) -> int | None:
    """Return the size of a tmpfs in bytes, None if it has no limit."""
    for setting in mount.settings:
        name, _, value = setting.partition("=")
        if name == "size" and value.rstrip("kmg").isdigit():
            factor = {"k": 1024, "m": 1024**2, "g": 1024**3}.get(value[-1], 1)
            return int(value.rstrip("kmg")) * factor
    return None


def _missing(expected: ExpectedMount, view: _View, known: set[int]) -> tuple[int, KernelDifference]:
    """Return the mount at the target of a missing one: its id, -1 for none, and the difference."""
    target = expected.target
    left = [mount for mount in view.mounts.values() if mount.id not in known]
    for mount in left:
        place = expected.place
        same = is_below(mount.root, place) if expected.subpath else mount.root == place
        if place and same and (why := view.why_unknown(mount)):
            doubt = f"the mount for {target} can't be looked at: {why}"
            return mount.id, _difference(doubt, DifferenceKind.DOUBT)
    there = view.at(target)
    if there is not None and there in left and not _is_base(there, view):
        return there.id, _other_source(expected, there)
    return -1, _difference(f"nothing is mounted for {target}", DifferenceKind.DOUBT)


def _other_source(expected: ExpectedMount, mount: MountinfoLine) -> KernelDifference:
    shown, target = f"{mount.root} is mounted at {expected.target}", expected.target
    if expected.type == "tmpfs":
        return _difference(f"{mount.filesystem} {shown}, not a tmpfs of its own")
    if not expected.source:
        return _difference(f"{shown}, not a volume of its own")
    if not expected.inode or (expected.subpath and not expected.place):
        unknown = f"the admitted source of {target} couldn't be inspected"
        return _difference(unknown, DifferenceKind.DOUBT)
    if mount.root == expected.source:
        # For example by an editor that writes a new file.
        return _difference(f"{shown}, and was replaced on the host since it was admitted")
    wanted = "a part of" if expected.subpath else "the"
    admitted = "" if expected.subpath else " that was admitted"
    return _difference(f"{shown}, not {wanted} {expected.source}{admitted}")


# The engine's own mounts in every container


def _is_base(mount: MountinfoLine, view: _View) -> bool:
    """Return True for the root mount, and for mounts of kernel filesystems."""
    point, confinement = mount.point, view.confinement
    if point == "/":
        return mount.read_only or not confinement.read_only_root
    if mount.shared:
        return False
    if point == "/dev/shm":  # noqa: S108 - a container's, not ours
        size = size_of(mount)
        within = size is not None and size <= (confinement.shm or SHM_DEFAULT)
        return mount.filesystem == "tmpfs" and within
    if point in _KERNELS:
        return mount.filesystem in _KERNELS[point]
    if point == "/sys":
        return mount.filesystem == "sysfs" and mount.read_only
    if point.startswith("/sys/fs/cgroup/"):
        return mount.filesystem in {"cgroup", "cgroup2"} and _is_closed_cgroup(mount, view)
    return point.startswith(("/proc/", "/sys/")) and _is_masked(mount)


def _is_closed_cgroup(mount: MountinfoLine, view: _View) -> bool:
    """Return True if the container cannot write to a cgroup: the cgroup belongs to the host's root.

    In a user namespace a runtime cannot make the mount read-only.
    """
    own = view.container in mount.root.split("/")
    return mount.read_only or (own and not view.host_root)


def _is_engines(mount: MountinfoLine, view: _View) -> bool:
    """Return True for a mount that the engine adds to every container."""
    if _is_base(mount, view):
        return True
    if mount.shared:
        return False
    folder = view.confinement.network_of or view.container
    if any(mount.root.endswith(f"/{folder}/{name}") for name in _OWN_FILES):
        return True
    return _is_init(mount, view) or _is_device(mount, view)


def _is_init(mount: MountinfoLine, view: _View) -> bool:
    """Return True for the engine's init: read-only, named so, and executed by the first process.

    The init stays the container's first process. A host file with such a name at another place is
    not the program of that process.
    """
    root = view.root(mount)
    return (
        root is not None
        and root.kind == "file"
        and mount.read_only
        and mount.root.rpartition("/")[2] in _INIT
        and (root.device, root.inode) == view.program
    )


def _is_device(mount: MountinfoLine, view: _View) -> bool:
    root = view.root(mount)
    if root is None or root.kind != "character":
        return False
    admitted = {node.partition("=")[2] for each in view.confinement.devices for node in each.nodes}
    number = f"{os.major(root.number)}:{os.minor(root.number)}"
    return root.number == _DEVICES.get(mount.point) or number in admitted


def _is_masked(mount: MountinfoLine) -> bool:
    """Return True if a path of the kernel is hidden, or mounted read-only onto itself."""
    if mount.filesystem in {"tmpfs", "devtmpfs"}:
        return mount.root == "/null" or (mount.read_only and mount.root == "/")
    itself = mount.filesystem == "proc" and f"/proc{mount.root}" == mount.point
    return itself and mount.read_only


def _masks(effective: EffectiveState) -> Iterator[KernelDifference]:
    masked = {mount.point for mount in effective.mounts if _is_masked(mount)}
    for path in effective.maskable:
        if path not in masked:
            yield KernelDifference("effective.mask", f"{path} is open to the container")


PAGE = 4096
FILTERED = 2  # the Seccomp value in /proc/PID/status of a process with a filter
NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
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


def compare_kernel(
    expected: ExpectedState, effective: EffectiveState, joined: tuple[JoinedNetwork, ...]
) -> tuple[KernelDifference, ...]:
    """Return all differences, breaches first; () if the state is as admitted."""
    differences = [
        *_privileges(expected, effective),
        *_namespaces(expected, effective),
        *compare_mounts(expected.confinement, expected.id, effective),
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
        ("CPUs", limits.nano_cpus, settings.quota_cpus, bounds.nano_cpus, format_cpus),
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
