"""Which folders a user can't pass through, and how to let it see just what it needs.

A clone in ``/root`` is the usual case: the controller's user can't traverse ``/root`` (0700), yet
it must read interpreter, package and DIR. ``plan_view`` decides; ``drop`` carries it out in a
private mount namespace: an empty filesystem over the closed folder, and in it, at the same paths,
only what is needed, read-only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from controller.model.errors import StateError

StatPath = Callable[[Path], os.stat_result]


@dataclass(frozen=True, slots=True)
class Need:
    """A path that the user must reach; ``holder_of`` says for what, in messages."""

    path: Path
    purpose: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class MountView:
    """What to mount: empty filesystems over ``closed``, then each need, parents first."""

    closed: tuple[Path, ...] = ()
    binds: tuple[Need, ...] = ()


def searchable(status: os.stat_result, *, uid: int, gid: int) -> bool:
    """Tell whether a user without supplementary groups may pass through a folder."""
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def readable(status: os.stat_result, *, uid: int, gid: int) -> bool:
    """Tell whether a user without supplementary groups may list a folder or read a file."""
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IRUSR)
    if status.st_gid == gid:
        return bool(status.st_mode & stat.S_IRGRP)
    return bool(status.st_mode & stat.S_IROTH)


def closed_ancestor(path: Path, *, uid: int, gid: int, look: StatPath = os.stat) -> Path | None:
    """Return the topmost folder above *path* that the user can't pass through, if any."""
    for parent in reversed(path.parents):
        if not searchable(look(parent), uid=uid, gid=gid):
            return parent
    return None


def plan_view(needs: Iterable[Need], *, uid: int, gid: int, look: StatPath = os.stat) -> MountView:
    """Decide what the user's view must be given.

    Raises:
        StateError: a needed folder is itself closed to the user; the remedy is the chmod.
    """
    closed: set[Path] = set()
    binds: dict[Path, Need] = {}
    for need in needs:
        status = look(need.path)
        if stat.S_ISDIR(status.st_mode) and not (
            searchable(status, uid=uid, gid=gid) and readable(status, uid=uid, gid=gid)
        ):
            raise StateError(
                "folder.closed",
                f"{need.path} ({need.purpose}) is closed to the controller's user (uid {uid})",
                remedy=f"chmod o+rx {need.path}, or move it to a folder that others may read",
            )
        ancestor = closed_ancestor(need.path, uid=uid, gid=gid, look=look)
        if ancestor is not None:
            closed.add(ancestor)
            known = binds.get(need.path)
            if known is None or (need.writable and not known.writable):
                binds[need.path] = need
    topmost = {path for path in closed if not any(other in path.parents for other in closed)}
    ordered = sorted(binds.values(), key=lambda need: (len(need.path.parts), str(need.path)))
    return MountView(closed=tuple(sorted(topmost)), binds=tuple(ordered))
