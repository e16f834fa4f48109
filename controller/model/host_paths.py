"""Paths of the host as the broker sees them: the input of the bind rules."""

from __future__ import annotations

from dataclasses import dataclass

#: ``PathFacts.protected`` of a path in the engine's data root. The value is separate because a path
#: below the volumes root is judged as a mount of that volume.
ENGINE_DATA = "engine-data"
#: ``PathFacts.protected`` of the directory of the desired state.
DIRECTORY = "desired-state directory"
#: Names in a folder that make the folder one with declarations: the Compose files of a project, and Git.
DECLARING = (
    *("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"),
    *("compose.override.yaml", "compose.override.yml"),
    *("docker-compose.override.yml", "docker-compose.override.yaml", ".git"),
)
#: The time zone of the host, which every container may read. The first is usually a link into
#: ``ZONES``: its facts are those of the file there.
TIME_ZONE = ("/etc/localtime", "/etc/timezone")
ZONES = "/usr/share/zoneinfo"


@dataclass(frozen=True, slots=True)
class StickyParent:
    """A parent with the sticky bit (such as /tmp) and write access for other users.

    The parent is harmless if nobody else can replace the next component of the path. The component
    must belong to root or to the owner's uids, and other users must have no write access to it.
    """

    path: str
    #: Owner and mode of the next component of the path.
    next_uid: int
    next_mode: int


@dataclass(frozen=True, slots=True)
class PathFacts:
    """One path of the host, inspected with openat2 without following symbolic links."""

    path: str
    #: dir, file, socket, other, symlink (some component is a link), missing, unreadable, other-view (the
    #: engine sees another tree). What is known of a missing path are the folders above it.
    kind: str
    device: int = 0
    inode: int = 0
    uid: int = 0
    gid: int = 0
    mode: int = 0
    #: The first parent that other users can write to and that has no sticky bit; '' if none.
    parents_writable_by_others: str = ""
    #: The protected path of the broker that this path is, contains or lies under; '' if none.
    protected: str = ""
    #: The path lies below the directory of the desired state, and touches no other protected path.
    in_directory: bool = False
    #: The first name of ``DECLARING`` in a folder of the directory; '' if none.
    declares: str = ""
    #: Every parent with the sticky bit that other users can write to.
    sticky_parents: tuple[StickyParent, ...] = ()
    #: The uids, other than root's and the broker's, that own a parent. They can replace the
    #: components below it.
    parent_owners: tuple[int, ...] = ()
    #: The path within its filesystem; '' if unknown.
    place: str = ""
    #: ``character`` or ``block`` of a device, whose ``kind`` is other; '' otherwise.
    device_type: str = ""
    #: The device's number (st_rdev).
    number: int = 0
    #: The kernel writes its messages to this device, or it isn't known whether it does.
    console: bool = False


def is_below(path: str, folder: str) -> bool:
    """Return True if a clean path is a folder or lies in it, by whole components."""
    return path == folder or path.startswith("/" if folder == "/" else f"{folder}/")
