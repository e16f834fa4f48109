"""The confinement of a container: as admitted for its whole life, and as the kernel shows it.

``Confinement`` is recorded with the intent of the create, so the journal alone is enough for a
comparison. ``EffectiveState`` is one reading of the kernel. Where the kernel cannot be read, the
result is ``NotReadable`` with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

UNLIMITED = -1


class DifferenceKind(StrEnum):
    """How serious a difference between the admitted and the effective state is."""

    BREACH = "breach"
    DRIFT = "drift"
    DOUBT = "doubt"  # the property cannot be read


class Gap(StrEnum):
    """What an adopted container may lack of its document.

    The first four are hardening (``core.adoption.gaps``), the others forms of the same thing
    (``core.adoption.forms``).
    """

    CAPABILITIES = "capabilities"
    NEW_PRIVILEGES = "new-privileges"
    LOGS = "logs"
    WRITABLE_ROOT = "writable-root"
    FILES = "files"
    PORTS = "ports"
    TMPFS = "tmpfs"
    HEALTHCHECK = "healthcheck"


#: The names of all gaps.
GAPS = tuple(gap.value for gap in Gap)


@dataclass(frozen=True, slots=True)
class KernelDifference:
    """One difference between the admitted and the effective state."""

    rule: str
    #: The difference as a sentence.
    text: str
    kind: DifferenceKind = DifferenceKind.BREACH


@dataclass(frozen=True, slots=True)
class ExpectedMount:
    """A mount as admitted."""

    type: str  # bind, volume, tmpfs, config, secret
    target: str
    #: A path of the host, the name of a volume or Config, '' for an anonymous volume.
    source: str = ""
    read_only: bool = False
    subpath: str = ""
    size: int = 0  # of a tmpfs, in bytes; UNLIMITED for an adopted container's without a size
    executable: bool = False  # a tmpfs whose files can be executed
    #: The device and inode of the source at admission; 0 without a source, or if unreadable.
    device: int = 0
    inode: int = 0
    #: The path of the source within its filesystem; '' without a source, or if unreadable.
    place: str = ""
    #: Of delivered files (type config or secret): the content, the variant, the one file, and
    #: whether the folder stays when the content changes.
    content: str = ""
    variant: str = ""
    key: str = ""
    stable: bool = False
    #: Of a volume of another machine: the source that the kernel shows; '' for any other.
    remote: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedDevice:
    """A device as admitted."""

    source: str  # a path of the host, or a CDI name
    #: The numbers of its device nodes, as ``PATH=MAJOR:MINOR``.
    nodes: tuple[str, ...] = ()
    #: The digest of the CDI specification; '' for a path.
    specification: str = ""


@dataclass(frozen=True, slots=True)
class Confinement:
    """The admitted properties that cannot change while the container exists."""

    capabilities: tuple[str, ...] = ()  # without CAP_
    read_only_root: bool = False
    non_root: bool = False  # the policy forced it
    private_cgroup: bool = False
    shm: int = 0  # bytes; 0 is the engine's default
    runtime: str = ""  # '' is the engine's default
    mounts: tuple[ExpectedMount, ...] = ()
    devices: tuple[ExpectedDevice, ...] = ()
    #: The container whose network is shared, with its files of names and resolvers; '' for none.
    network_of: str = ""
    #: The user as ``UID:GID``, and the numbers of further groups. '' where the image chose them, or the
    #: container can change them (CAP_SETGID).
    user: str = ""
    groups: tuple[str, ...] = ()
    #: An adopted container whose programs can gain privileges.
    new_privileges: bool = False
    #: An observer of the host, with the namespaces that are the host's (net, pid).
    observer: bool = False
    host_namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MountinfoLine:
    """A line of mountinfo (proc_pid_mountinfo(5))."""

    id: int
    root: str  # the mounted part of the filesystem
    point: str
    options: frozenset[str]  # of the mount: ro, nosuid, …
    shared: bool  # mounts propagate between the host and this mount, in both directions
    filesystem: str
    settings: frozenset[str]  # of the filesystem: size=…, ro, …
    parent: int = 0  # the id of the mount that contains this mount
    device: str = ""  # of the filesystem, as MAJOR:MINOR
    source: str = ""  # of the filesystem, such as server:/path

    @property
    def read_only(self) -> bool:
        """Return True if nothing can be written through the mount."""
        return "ro" in self.options or "ro" in self.settings


@dataclass(frozen=True, slots=True)
class MountPath:
    """The mount in which a path of the container ends, after following symbolic links."""

    target: str
    mount: int  # the id of the mount; -1 if the path could not be opened


@dataclass(frozen=True, slots=True)
class Root:
    """The object at the root of a mount, opened where the kernel shows the mount.

    A mount under another mount has no ``Root``, because no path leads to it.
    """

    mount: int
    device: int
    inode: int
    #: dir, file, character (a device), other; unreadable if the filesystem does not answer, because
    #: it is gone or on the network.
    kind: str = "dir"
    number: int = 0  # of a device


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """The limits that the cgroup enforces. None is unreadable, ``UNLIMITED`` is no limit."""

    memory: int | None = None
    memory_swap: int | None = None  # memory and swap together
    nano_cpus: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class EffectiveState:
    """One reading of a container's first process."""

    #: The ids of the user, the group and further groups, in the numbering of the container.
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: dict[str, int] = field(default_factory=dict)  # by set: Eff, Prm, Bnd, Inh, Amb
    no_new_privileges: bool = True
    seccomp: int = 2
    #: The namespaces that the process shares with the broker.
    shared: tuple[str, ...] = ()
    mounts: tuple[MountinfoLine, ...] = ()
    reached: tuple[MountPath, ...] = ()
    roots: tuple[Root, ...] = ()
    #: The device and inode of the executed file.
    program: tuple[int, int] = (0, 0)
    #: The devices of every tmpfs in the broker's own mount namespace.
    host_tmpfs: frozenset[str] = frozenset()
    #: False if no user of the container is the host's root.
    host_root: bool = True
    limits: CgroupLimits = CgroupLimits()
    #: The paths of the host that an engine hides or write-protects.
    maskable: tuple[str, ...] = ()
    #: True while the process is still the runtime's, before it executes the container's program.
    starting: bool = False


@dataclass(frozen=True, slots=True)
class NotReadable:
    """The effective state could not be read."""

    reason: str
    #: The process has ended, so there is nothing to stop.
    gone: bool = False
