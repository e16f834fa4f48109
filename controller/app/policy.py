"""Policies: where their files are, and how a policy is read from a file or from the broker."""

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import stat
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.model.errors import PolicyInvalid, UsageError, error_reason
from controller.model.host_paths import is_below
from controller.model.policy.shipped import SHIPPED_POLICIES

if TYPE_CHECKING:
    from controller.model.policy.document import Policy

PACKAGE = Path(__file__).resolve().parents[1]
PROJECT = PACKAGE.parent


def policy_file(name: str) -> Path:
    """Return the file of a policy: a path as given, else ``configs/policies/NAME.yaml``.

    A policy beside DIR is never picked up: write access to DIR must not grant control of the
    policy.

    Raises:
        UsageError: the policy is unknown.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name).absolute()
    for folder in (PROJECT / "configs" / "policies", PACKAGE / "policies"):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise UsageError(
        "policy.unknown",
        f"there is no policy {name!r}",
        remedy=f"name {', '.join(SHIPPED_POLICIES)}, or the path of a file",
    )


def is_shipped(file: Path) -> bool:
    """Return True if a policy's file is part of the package."""
    return file.parent.resolve() == (PACKAGE / "policies").resolve()


#: Returns the error if a user can change the policy file that must not; see ``access_error``.
AccessCheck = Callable[[Path, os.stat_result, bytes], PolicyInvalid | None]


def read_policy(path: Path, *, check_access: AccessCheck | None = None) -> Policy:
    """Read a policy from a file; *check_access* judges the very file that is read.

    Raises:
        PolicyInvalid: the file can't be read or isn't a policy, or others can change it; the message
            names file, line and reason.
    """
    from controller.core.policy.text import load_policy  # pydantic: slow to load

    try:
        with path.open(encoding="utf-8") as file:
            if check_access is not None:
                number = file.fileno()
                exposed = check_access(path, os.fstat(number), read_acl(number))
                if exposed is not None:
                    raise exposed
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyInvalid(
            "policy.unreadable",
            f"{path} can't be read: {error_reason(error)}",
            remedy="name a readable file with --policy",
        ) from error
    return _with_shipped(load_policy(text, str(path)))


def policy_from_route(payload: Mapping[str, Any]) -> Policy:
    """Return the policy from the broker's ``/trimtab/v1/policy``, with its origin if included.

    The origin is missing in answers to clients.
    """
    from controller.model.policy.document import Policy, PolicyOrigin

    policy = Policy.model_validate_json(json.dumps(payload["policy"]))
    if directory := payload.get("directory"):
        policy = policy.with_directory(str(directory))
    origin = payload.get("origin")
    if not isinstance(origin, dict):
        return policy
    return _with_shipped(policy.read_from(PolicyOrigin(str(origin["file"]), dict(origin["lines"]))))


def policy_of_directory(policy: Policy, directory: str | Path) -> Policy:
    """Return the policy for documents of a directory. One that contains a forbidden path is unknown."""
    path = os.path.realpath(directory)
    if any(is_below(each, path) for each in policy.mounts.forbidden):
        return policy
    return policy.with_directory(path)


def _with_shipped(policy: Policy) -> Policy:
    """Attach the policy ``home`` to a policy from the package.

    Remedies name ``home`` if ``home`` grants a denied permission.
    """
    origin = policy.origin
    if origin is None or not is_shipped(Path(origin.file)):
        return policy
    home = None if policy.name == "home" else read_policy(policy_file("home"))
    return policy.read_from(replace(origin, shipped=True, home=home))


# Who can change a policy file


#: A version, then entries of a tag, permissions and an id (linux/posix_acl_xattr.h).
_ACL_HEADER, _ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_ACL_NAMED = {0x02: "user", 0x08: "group"}
_ACL_WRITE = 0x02


def read_acl(file: int | Path) -> bytes:
    """Return the POSIX access ACL of a file as the kernel stores it, b"" without one.

    Raises:
        OSError: the file can't be read.
    """
    try:
        return os.getxattr(file, "system.posix_acl_access")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return b""
        raise


def access_error(
    path: Path, status: os.stat_result, acl: bytes, *, broker_uid: int, controller_uid: int
) -> PolicyInvalid | None:
    """Return the error if another user can change the policy file, else None.

    A user who can write the file decides what the broker admits. The broker refuses such a file at
    its start, and keeps the previous policy at a reload. The owner can always change the mode.
    Where broker and controller share a uid, the controller can change every file of the broker's:
    then its ownership isn't checked. *acl* is from ``read_acl``.
    """
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid == controller_uid != broker_uid:
        return PolicyInvalid(
            "policy.exposed",
            f"{path} belongs to the controller's user (uid {controller_uid}), who could change it",
            remedy=f"chown root {path}",
        )
    if mode & stat.S_IWOTH:
        return PolicyInvalid(
            "policy.exposed",
            f"{path} can be written by every user (mode {mode:04o})",
            remedy=f"chmod go-w {path}",
        )
    # With an ACL, the group bits of the mode limit what the ACL grants.
    named = _named_writer(acl) if mode & stat.S_IWGRP else ""
    if named:
        return PolicyInvalid(
            "policy.exposed",
            f"{path} can be written by the {named} (an ACL grants it)",
            remedy=f"chmod g-w {path}",
        )
    if mode & stat.S_IWGRP and not _is_group_of_owner(status):
        return PolicyInvalid(
            "policy.exposed",
            f"{path} can be written by the group {_group_name(status.st_gid)} (mode {mode:04o})",
            remedy=f"chmod g-w {path}",
        )
    return None


def _is_group_of_owner(status: os.stat_result) -> bool:
    """Return True for root's group and the private group of the file's owner, without others in it.

    Many systems give each user a group of the same name without other members.
    """
    try:
        group, owner = grp.getgrgid(status.st_gid), pwd.getpwuid(status.st_uid)
    except KeyError:
        return False
    if status.st_gid != 0 and group.gr_name != owner.pw_name:
        return False
    members = {each.pw_name for each in pwd.getpwall() if each.pw_gid == status.st_gid}
    return not members.union(group.gr_mem) - {"root", owner.pw_name}


def _named_writer(acl: bytes) -> str:
    """Return the first user or group that an ACL names and lets write, '' for none."""
    for tag, permissions, identifier in _ACL_ENTRY.iter_unpack(acl[_ACL_HEADER.size :]):
        if tag in _ACL_NAMED and permissions & _ACL_WRITE:
            return f"{_ACL_NAMED[tag]} {identifier}"
    return ""


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
