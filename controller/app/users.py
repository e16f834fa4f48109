"""The users of the processes.

As root, controller and shipper run as unprivileged users of their own. Otherwise all processes
share the caller's uid.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from controller.model.errors import StateError, UsageError
from controller.settings import GROUP

#: The default user of the shipper.
SHIPPER = "trimtab-ship"
#: The uid of ``nobody`` on Linux (kernel.overflowuid).
NOBODY_UID = 65534


@dataclass(frozen=True, slots=True)
class User:
    """The user of a child process; ``dropped`` is False for the parent's own uid."""

    uid: int
    gid: int
    dropped: bool


def controller_user(name: str | None, *, uid: int) -> User:
    """Return the controller's user: for root a separate user, else the caller.

    Raises:
        UsageError: *name* was given, and the caller isn't root.
        StateError: the user doesn't exist, or is root or nobody.
    """
    if uid != 0:
        if name is not None:
            raise UsageError("user.not-root", "--controller-user can only be given by root")
        return User(uid, os.getgid(), dropped=False)
    wanted = name or GROUP
    try:
        entry = pwd.getpwnam(wanted)
    except KeyError as error:
        raise StateError(
            "user.missing",
            f"there is no user {wanted!r} to run the controller as",
            remedy=f"useradd --system --no-create-home --shell /usr/sbin/nologin {wanted}, "
            "or name another with --controller-user",
        ) from error
    if entry.pw_uid in (0, NOBODY_UID) or entry.pw_name == "nobody":
        raise StateError(
            "user.unfit",
            f"the controller never runs as {entry.pw_name}",
            remedy="give it a user of its own with --controller-user",
        )
    try:
        gid = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        gid = entry.pw_gid
    if gid == 0:
        raise StateError("user.unfit", f"the group of {wanted!r} is root's")
    return User(entry.pw_uid, gid, dropped=True)


def shipper_user(name: str | None) -> User:
    """Return the shipper's user, an unprivileged user without other files. For root only.

    Raises:
        StateError: the user doesn't exist, or is root, nobody, or in root's group.
    """
    wanted = name or SHIPPER
    try:
        entry = pwd.getpwnam(wanted)
    except KeyError as error:
        raise StateError(
            "user.missing",
            f"there is no user {wanted!r} to ship as",
            remedy=f"useradd --system --no-create-home --shell /usr/sbin/nologin {wanted}, "
            "or name another with --user",
        ) from error
    if entry.pw_uid in (0, NOBODY_UID) or entry.pw_gid == 0:
        raise StateError(
            "user.unfit",
            f"{entry.pw_name} doesn't ship: root can more, and nobody is many",
            remedy="give the shipper a user of its own with --user",
        )
    return User(entry.pw_uid, entry.pw_gid, dropped=True)


def trimtab_gid() -> int:
    """Return the gid of the group with access to the sockets; without such a group the caller's."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return os.getgid()
