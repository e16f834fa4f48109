"""Paths of the host as the broker sees them: what the bind rules decide on."""

from __future__ import annotations

from dataclasses import dataclass

#: ``PathFacts.protected`` of a path in the engine's data root. It has a word of its own because
#: what lies below the volumes root there is judged as a mount of that volume.
ENGINE_DATA = "engine-data"


@dataclass(frozen=True, slots=True)
class StickyParent:
    """A parent that others may write to, with the sticky bit (/tmp), and the component below it.

    It does no harm when that component can't be replaced: it belongs to root or to the owner's
    uids, and isn't itself writable by others.
    """

    path: str
    next_uid: int
    next_mode: int


@dataclass(frozen=True, slots=True)
class PathFacts:
    """One path of the host, looked at by openat2 without following symlinks.

    ``kind``: dir, file, socket, other, symlink (some component is one), missing, unreadable.
    ``parents_writable_by_others``: the first parent that others may write to and that has no
    sticky bit, or ''; every parent with one is in ``sticky_parents``. ``parent_owners``: the uids,
    besides root's and the broker's, that own a parent and so may replace what is below it.
    ``place``: where it lies in its filesystem, '' where that isn't known.
    """

    path: str
    kind: str
    device: int = 0
    inode: int = 0
    uid: int = 0
    gid: int = 0
    mode: int = 0
    parents_writable_by_others: str = ""
    protected: str = ""  # what of the broker's own it is, contains or lies under; '' if nothing
    sticky_parents: tuple[StickyParent, ...] = ()
    parent_owners: tuple[int, ...] = ()
    place: str = ""
