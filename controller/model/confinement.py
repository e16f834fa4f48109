"""Effective state: as what a container was admitted for good, and what the kernel shows of it.

``Confinement`` is recorded with the create's intent, so that the journal alone says what to
compare with. ``EffectiveState`` is one reading of the kernel; where nothing can be read it is
``NotReadable``, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

UNLIMITED = -1


class DifferenceKind(StrEnum):
    """What a difference is."""

    BREACH = "breach"
    DRIFT = "drift"
    DOUBT = "doubt"  # it can't be seen


@dataclass(frozen=True, slots=True)
class KernelDifference:
    """One difference, with its rule and a sentence."""

    rule: str
    text: str
    kind: DifferenceKind = DifferenceKind.BREACH


@dataclass(frozen=True, slots=True)
class ExpectedMount:
    """A mount as it was admitted.

    ``device`` and ``inode`` are its source's when it was admitted, ``place`` where the source lies
    in its filesystem; 0 and '' where that couldn't be seen, or there was no source.
    """

    type: str  # bind, volume, tmpfs
    target: str
    source: str = ""  # a path of the host, a volume's name, '' for an anonymous volume
    read_only: bool = False
    subpath: str = ""
    size: int = 0  # of a tmpfs, in bytes
    executable: bool = False  # a tmpfs whose files may be run
    device: int = 0
    inode: int = 0
    place: str = ""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What was admitted and can't be changed while the container lives."""

    capabilities: tuple[str, ...] = ()  # without CAP_
    read_only_root: bool = False
    non_root: bool = False  # the policy forced it
    private_cgroup: bool = False
    shm: int = 0  # bytes; 0 is the engine's default
    runtime: str = ""  # '' is the engine's default
    mounts: tuple[ExpectedMount, ...] = ()


@dataclass(frozen=True, slots=True)
class MountinfoLine:
    """A line of mountinfo (proc_pid_mountinfo(5))."""

    id: int
    root: str  # what of its filesystem is mounted
    point: str
    options: frozenset[str]  # of the mount: ro, nosuid, …
    shared: bool  # mounts made on the host show up below it, and the other way round
    filesystem: str
    settings: frozenset[str]  # of the filesystem: size=…, ro, …
    parent: int = 0  # the id of the mount that it was mounted in
    device: str = ""  # of its filesystem, as MAJOR:MINOR

    @property
    def read_only(self) -> bool:
        """Tell whether nothing can be written through it."""
        return "ro" in self.options or "ro" in self.settings


@dataclass(frozen=True, slots=True)
class MountPath:
    """Where a path inside a container leads now, through its links: the mount that it ends in."""

    target: str
    mount: int  # its id; -1 when nothing could be opened there


@dataclass(frozen=True, slots=True)
class Root:
    """The object at the root of a mount, opened where the kernel shows the mount.

    A mount that another one covers has none: no path leads there. Of what a filesystem doesn't tell,
    because it is gone or a network's, the kind is ``unreadable``.
    """

    mount: int
    device: int
    inode: int
    kind: str = "dir"  # dir, file, character (a device), unreadable, other
    number: int = 0  # of a device


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """What the container's cgroup enforces; None can't be seen, ``UNLIMITED`` is no limit."""

    memory: int | None = None
    memory_swap: int | None = None  # memory and swap together
    nano_cpus: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class EffectiveState:
    """One reading of a container's first process.

    ``starting``: it is still the runtime's own, not yet the container's program. ``shared`` has
    the namespaces that it has in common with the broker, ``maskable`` the host's paths that an
    engine hides or write-protects. ``program`` is the device and inode of the file that it
    executes, ``host_tmpfs`` the devices of every tmpfs that the broker itself sees. ``uid`` is as the
    container numbers it; without ``host_root`` none of its users is the host's root.
    """

    uid: int = 0
    capabilities: dict[str, int] = field(default_factory=dict)  # by set: Eff, Prm, Bnd, Inh, Amb
    no_new_privileges: bool = True
    seccomp: int = 2
    shared: tuple[str, ...] = ()
    mounts: tuple[MountinfoLine, ...] = ()
    reached: tuple[MountPath, ...] = ()
    roots: tuple[Root, ...] = ()
    program: tuple[int, int] = (0, 0)
    host_tmpfs: frozenset[str] = frozenset()
    host_root: bool = True
    limits: CgroupLimits = CgroupLimits()
    maskable: tuple[str, ...] = ()
    starting: bool = False


@dataclass(frozen=True, slots=True)
class NotReadable:
    """Nothing could be read. ``gone``: there is no process any more, so nothing to stop either."""

    reason: str
    gone: bool = False
