"""The mount view of an unprivileged child: access to needed paths below closed folders.

The usual case is a checkout in ``/root``. The controller's user can't traverse ``/root`` (0700),
but must read the interpreter, the package and DIR. ``plan_view`` plans the mounts;
``drop_privileges`` mounts them in a private namespace. An empty file system covers the closed
folder, and only the needed paths are bind-mounted there, read-only, at the same names.
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
    """A path that the user must reach."""

    path: Path
    #: The purpose in messages, for example ``the package's folder``.
    purpose: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class MountView:
    """The mounts of a view."""

    #: The folders to cover with an empty file system.
    closed: tuple[Path, ...] = ()
    #: The paths to bind-mount, parents first.
    binds: tuple[Need, ...] = ()
    #: Folders and sockets to cover at last, so that the user doesn't reach them by any bind.
    hidden: tuple[Path, ...] = ()


def permissions(status: os.stat_result, *, uid: int, gid: int) -> int:
    """Return the permission bits of a user without supplementary groups, as for others."""
    shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
    return status.st_mode >> shift & stat.S_IRWXO


def closed_ancestor(
    path: Path, *, uid: int, gid: int, stat_path: StatPath = os.stat
) -> Path | None:
    """Return the topmost folder above *path* that the user can't traverse, or None."""
    for parent in reversed(path.parents):
        if not permissions(stat_path(parent), uid=uid, gid=gid) & stat.S_IXOTH:
            return parent
    return None


def plan_view(
    needs: Iterable[Need], *, uid: int, gid: int, stat_path: StatPath = os.stat
) -> MountView:
    """Plan the mounts that give a user its needed paths.

    Raises:
        StateError: a needed folder itself is closed to the user. The remedy is a chmod.
    """
    closed: set[Path] = set()
    binds: dict[Path, Need] = {}
    for need in needs:
        status = stat_path(need.path)
        needed = stat.S_IROTH | stat.S_IXOTH
        if stat.S_ISDIR(status.st_mode) and needed & ~permissions(status, uid=uid, gid=gid):
            raise StateError(
                "folder.closed",
                f"{need.path} ({need.purpose}) is closed to the controller's user (uid {uid})",
                remedy=f"chmod o+rx {need.path}, or move it to a folder that others may read",
            )
        ancestor = closed_ancestor(need.path, uid=uid, gid=gid, stat_path=stat_path)
        if ancestor is not None:
            closed.add(ancestor)
            known = binds.get(need.path)
            if known is None or (need.writable and not known.writable):
                binds[need.path] = need
    topmost = {path for path in closed if not any(other in path.parents for other in closed)}
    ordered = sorted(binds.values(), key=lambda need: (len(need.path.parts), str(need.path)))
    return MountView(closed=tuple(sorted(topmost)), binds=tuple(ordered))
