"""Effective state: as what a container was admitted for good, and what the kernel shows of it.

``Confinement`` is recorded with the create's intent, so that the journal alone says what to
compare with. ``Effective`` is one reading of the kernel; where nothing can be read it is
``Unseen``, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class Fastening:
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
    mounts: tuple[Fastening, ...] = ()


@dataclass(frozen=True, slots=True)
class Mounted:
    """A line of mountinfo (proc_pid_mountinfo(5))."""

    id: int
    root: str  # what of its filesystem is mounted
    point: str
    options: frozenset[str]  # of the mount: ro, nosuid, …
    shared: bool  # mounts made on the host show up below it, and the other way round
    filesystem: str
    settings: frozenset[str]  # of the filesystem: size=…, ro, …

    @property
    def read_only(self) -> bool:
        """Tell whether nothing can be written through it."""
        return "ro" in self.options or "ro" in self.settings


@dataclass(frozen=True, slots=True)
class Reached:
    """What lies at a path inside a container: the mount that it is in, and the object itself."""

    target: str
    mount: int  # its id; -1 when nothing could be opened there
    device: int = 0
    inode: int = 0


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """What the container's cgroup enforces; None can't be seen, ``UNLIMITED`` is no limit."""

    memory: int | None = None
    memory_swap: int | None = None  # memory and swap together
    nano_cpus: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class Effective:
    """One reading of a container's first process.

    ``starting``: it is still the runtime's own, not yet the container's program. ``shared`` has
    the namespaces that it has in common with the broker, ``maskable`` the host's paths that an
    engine hides or write-protects.
    """

    uid: int = 0
    capabilities: dict[str, int] = field(default_factory=dict)  # by set: Eff, Prm, Bnd, Inh, Amb
    no_new_privileges: bool = True
    seccomp: int = 2
    shared: tuple[str, ...] = ()
    mounts: tuple[Mounted, ...] = ()
    reached: tuple[Reached, ...] = ()
    limits: CgroupLimits = CgroupLimits()
    maskable: tuple[str, ...] = ()
    starting: bool = False


@dataclass(frozen=True, slots=True)
class Unseen:
    """Nothing could be read. ``gone``: there is no process any more, so nothing to stop either."""

    reason: str
    gone: bool = False
