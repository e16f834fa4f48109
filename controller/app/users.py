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
#: The user of the fetcher.
FETCHER = "trimtab-fetch"
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
    entry = _find_user(wanted, purpose="run the controller as", option="--controller-user")
    if entry.pw_uid in (0, NOBODY_UID) or entry.pw_name == "nobody":
        raise StateError(
            "user.unfit",
            f"the controller never runs as {entry.pw_name}",
            remedy="give it a user of its own with --controller-user",
        )
    gid = _gid_of_group(default=entry.pw_gid)
    if gid == 0:
        raise StateError("user.unfit", f"the group of {wanted!r} is root's")
    return User(entry.pw_uid, gid, dropped=True)


def shipper_user(name: str | None) -> User:
    """Return the shipper's user, an unprivileged user without other files. For root only.

    Raises:
        StateError: the user doesn't exist, or is root, nobody, or in root's group.
    """
    entry = _find_user(name or SHIPPER, purpose="ship as", option="--user")
    if entry.pw_uid in (0, NOBODY_UID) or entry.pw_gid == 0:
        raise StateError(
            "user.unfit",
            f"{entry.pw_name} can't run the shipper: the shipper needs an unprivileged user without other processes",
            remedy="give the shipper a user of its own with --user",
        )
    return User(entry.pw_uid, entry.pw_gid, dropped=True)


def fetcher_user(*, uid: int) -> User:
    """Return the fetcher's user: for root a separate user, else the caller.

    Raises:
        StateError: the user doesn't exist, or is root, nobody, or in root's or trimtab's group.
    """
    if uid != 0:
        return User(uid, os.getgid(), dropped=False)
    entry = _find_user(FETCHER, purpose="fetch Git sources as", option=None)
    if entry.pw_uid in (0, NOBODY_UID) or entry.pw_gid in (0, trimtab_gid()):
        raise StateError(
            "user.unfit",
            f"{FETCHER} doesn't fetch: its group is root's or {GROUP}",
            remedy=f"give {FETCHER} a group of its own",
        )
    return User(entry.pw_uid, entry.pw_gid, dropped=True)


def trimtab_gid() -> int:
    """Return the gid of the group with access to the sockets; without such a group the caller's."""
    return _gid_of_group(default=os.getgid())


def _gid_of_group(*, default: int) -> int:
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return default


def _find_user(name: str, *, purpose: str, option: str | None) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise StateError(
            "user.missing",
            f"there is no user {name!r} to {purpose}",
            remedy=f"useradd --system --no-create-home --shell /usr/sbin/nologin {name}"
            + (f", or name another with {option}" if option else ""),
        ) from error
