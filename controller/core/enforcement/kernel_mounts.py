"""The mounts that the kernel shows of a container, against those that were admitted.

Pure. A mount is recognised by its source: the object at its root, its filesystem and its options.
Its place in the container proves nothing. The image decides where a path leads (``/sbin`` and
``/var/run`` are links in most), and the container's own programs can change links and rename
folders at any time after the engine mounted something below them. So a path only chooses between
mounts whose source is right already, and an honest container may change its own links.

Invariant: no link and no name inside a container makes a mount look admitted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from controller.core.engine_api.grammar import is_below
from controller.model.confinement import (
    Confinement,
    DifferenceKind,
    EffectiveState,
    ExpectedMount,
    KernelDifference,
    MountinfoLine,
    Root,
)
from controller.model.quantities import format_bytes

PAGE = 4096
SHM_DEFAULT = 64 * 1024**2
#: What the engine mounts from the container's own folder, wherever the image's links lead.
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
#: Devices that a runtime mounts where it isn't allowed to make them (user namespaces).
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
    """Yield every difference between the mounts that were admitted and those that are there."""
    view = _View(effective, confinement, container)
    found = _assign(confinement.mounts, view)
    known = set(found)
    for number, fastening in found.items():
        yield from _flags(fastening, view.mounts[number])
    for fastening in confinement.mounts:
        if fastening not in found.values():
            number, difference = _missing(fastening, view, known)
            known |= {number}
            yield difference
    for mount in effective.mounts:
        if mount.id not in known and not _is_engines(mount, view):
            what = f"{mount.filesystem} {mount.root} is mounted at {mount.point}"
            yield _difference(f"{what}, which was not admitted")
    yield from _masks(effective)


def _difference(text: str, kind: DifferenceKind = DifferenceKind.BREACH) -> KernelDifference:
    return KernelDifference("effective.mount", text, kind)


class _View:
    """One reading, by the ids of mounts and by the targets of what was admitted."""

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
        """Return the mount that a path leads into now."""
        return self.mounts.get(self._reached.get(target, -1))

    def root(self, mount: MountinfoLine) -> Root | None:
        """Return the object at a mount's root; None if it couldn't be opened."""
        return self._roots.get(mount.id)

    def is_own_tmpfs(self, mount: MountinfoLine) -> bool:
        """Return True if it is a whole tmpfs, and none of the host's."""
        whole = mount.filesystem == "tmpfs" and mount.root == "/"
        return whole and mount.device not in self._host_tmpfs

    def why_unknown(self, mount: MountinfoLine) -> str:
        """Return why the object at a mount's root isn't known though nobody hides it; else ''."""
        if mount.id in self._unreadable:
            return "its filesystem doesn't answer"
        return "another mount covers it" if self.is_covered(mount) else ""

    def is_covered(self, mount: MountinfoLine) -> bool:
        """Return True if another mount lies over it, so that no path leads to it."""
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


# What was admitted


def _assign(fastenings: tuple[ExpectedMount, ...], view: _View) -> dict[int, ExpectedMount]:
    """Return which mount is which of those that were admitted, by the mount's id.

    The strictest choose first, so that none takes the only mount that fits a stricter one.
    """
    found: dict[int, ExpectedMount] = {}

    def choose(fastening: ExpectedMount, *mounts: MountinfoLine | None, exactly: bool) -> bool:
        for mount in mounts:
            if mount is None or mount.id in found or not _is_source_of(mount, fastening, view):
                continue
            if not exactly or not any(_flags(fastening, mount)):
                found[mount.id] = fastening
                return True
        return False

    strictest_first = sorted(
        fastenings, key=lambda each: (not each.read_only, each.executable, each.size)
    )
    left = [
        fastening
        for fastening in strictest_first
        if not choose(fastening, view.at(fastening.target), *view.mounts.values(), exactly=True)
    ]
    for fastening in left:
        choose(fastening, view.at(fastening.target), exactly=False)
    return found


def _is_source_of(mount: MountinfoLine, fastening: ExpectedMount, view: _View) -> bool:
    """Return True if a mount has the source that was admitted."""
    if fastening.type == "tmpfs":
        return view.is_own_tmpfs(mount)
    if not fastening.source:
        return _is_anonymous(mount.root)
    root = view.root(mount)
    if root is None or not fastening.inode or root.device != fastening.device:
        return False
    if fastening.subpath:
        # The part didn't have to be there when the volume was admitted.
        return bool(fastening.place) and is_below(mount.root, fastening.place)
    return root.inode == fastening.inode


def _is_anonymous(root: str) -> bool:
    parts = root.split("/")
    return (
        len(parts) > 3
        and parts[-1] == "_data"
        and parts[-3] == "volumes"
        and len(parts[-2]) == 64
        and all(digit in "0123456789abcdef" for digit in parts[-2])
    )


def _flags(fastening: ExpectedMount, mount: MountinfoLine) -> Iterator[KernelDifference]:
    """Yield what a mount of the right source allows beside what was admitted."""
    target = fastening.target
    if fastening.read_only and not mount.read_only:
        yield _difference(f"{target} is writable, and was admitted read-only")
    if mount.shared:
        yield _difference(f"mounts of the host show through below {target}")
    if fastening.type != "tmpfs":
        return
    for option in ("nosuid", "nodev", *(() if fastening.executable else ("noexec",))):
        if option not in mount.options:
            yield _difference(f"the tmpfs at {target} isn't {option}")
    size = size_of(mount)
    if size is None or size > -(-fastening.size // PAGE) * PAGE:
        told = "any size" if size is None else format_bytes(size)
        yield _difference(
            f"the tmpfs at {target} may hold {told}, not {format_bytes(fastening.size)}"
        )


def size_of(mount: MountinfoLine) -> int | None:
    """Return the size of a tmpfs in bytes, None for one without."""
    for setting in mount.settings:
        name, _, value = setting.partition("=")
        if name == "size" and value.rstrip("kmg").isdigit():
            factor = {"k": 1024, "m": 1024**2, "g": 1024**3}.get(value[-1], 1)
            return int(value.rstrip("kmg")) * factor
    return None


def _missing(
    fastening: ExpectedMount, view: _View, known: set[int]
) -> tuple[int, KernelDifference]:
    """Return what is at the target instead of what was admitted: a mount's id, -1 for none."""
    target = fastening.target
    left = [mount for mount in view.mounts.values() if mount.id not in known]
    for mount in left:
        place = fastening.place
        same = is_below(mount.root, place) if fastening.subpath else mount.root == place
        if place and same and (why := view.why_unknown(mount)):
            doubt = f"the mount for {target} can't be looked at: {why}"
            return mount.id, _difference(doubt, DifferenceKind.DOUBT)
    there = view.at(target)
    if there is not None and there in left and not _is_base(there, view):
        return there.id, _other_source(fastening, there)
    return -1, _difference(f"nothing is mounted for {target}", DifferenceKind.DOUBT)


def _other_source(fastening: ExpectedMount, mount: MountinfoLine) -> KernelDifference:
    shown, target = f"{mount.root} is mounted at {fastening.target}", fastening.target
    if fastening.type == "tmpfs":
        return _difference(f"{mount.filesystem} {shown}, not a tmpfs of its own")
    if not fastening.source:
        return _difference(f"{shown}, not a volume of its own")
    if not fastening.inode or (fastening.subpath and not fastening.place):
        unknown = f"what was admitted at {target} couldn't be looked at"
        return _difference(unknown, DifferenceKind.DOUBT)
    wanted = "a part of" if fastening.subpath else "the"
    admitted = "" if fastening.subpath else " that was admitted"
    return _difference(f"{shown}, not {wanted} {fastening.source}{admitted}")


# What the engine gives to every container


def _is_base(mount: MountinfoLine, view: _View) -> bool:
    """Return True for the root, and for what shows the kernel."""
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
    """Return True if the container can't write to a cgroup, which belongs to the host's root.

    In a user namespace a runtime can't make the mount read-only.
    """
    own = view.container in mount.root.split("/")
    return mount.read_only or (own and not view.host_root)


def _is_engines(mount: MountinfoLine, view: _View) -> bool:
    """Return True for a mount that the engine gives to every container."""
    if _is_base(mount, view):
        return True
    if mount.shared:
        return False
    if any(mount.root.endswith(f"/{view.container}/{name}") for name in _OWN_FILES):
        return True
    return _is_init(mount, view) or _is_device(mount, view)


def _is_init(mount: MountinfoLine, view: _View) -> bool:
    """Return True for the engine's init: read-only, of that name, and what the process executes.

    It stays the container's first process as long as the container runs. A host's file of that
    name which is mounted elsewhere isn't executed by it.
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
    number = _DEVICES.get(mount.point)
    return root is not None and root.kind == "character" and root.number == number


def _is_masked(mount: MountinfoLine) -> bool:
    """Tell whether a path of the kernel's is hidden, or itself read-only."""
    if mount.filesystem in {"tmpfs", "devtmpfs"}:
        return mount.root == "/null" or (mount.read_only and mount.root == "/")
    itself = mount.filesystem == "proc" and f"/proc{mount.root}" == mount.point
    return itself and mount.read_only


def _masks(effective: EffectiveState) -> Iterator[KernelDifference]:
    masked = {mount.point for mount in effective.mounts if _is_masked(mount)}
    for path in effective.maskable:
        if path not in masked:
            yield KernelDifference("effective.mask", f"{path} is open to the container")
