"""The comparison of a container's mounts in the kernel with its admitted mounts.

Pure. A mount is identified by its source: the object at its root, its filesystem and its options.
The mount's place in the container proves nothing. The image decides where a path leads
(``/sbin`` and ``/var/run`` are links in most images), and the container's programs can change links
and rename folders at any time. So a path only chooses between mounts with the right source, and an
honest container may change its own links.

Invariant: no link and no name inside a container makes a mount look admitted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from controller.model.confinement import (
    UNLIMITED,
    Confinement,
    DifferenceKind,
    EffectiveState,
    ExpectedMount,
    KernelDifference,
    MountinfoLine,
    Root,
)
from controller.model.host_paths import is_below
from controller.model.quantities import format_bytes

PAGE = 4096
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


def compare(
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
