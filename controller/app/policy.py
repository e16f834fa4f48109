"""Policies: where their files are, and how a policy is read from a file or from the broker."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.model.errors import PolicyInvalid, UsageError
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


#: Returns the error if a user can change the policy file that must not.
AccessCheck = Callable[[Path, os.stat_result], PolicyInvalid | None]


def read_policy(path: Path, *, check_access: AccessCheck | None = None) -> Policy:
    """Read a policy from a file; *check_access* judges the very file that is read.

    Raises:
        PolicyInvalid: the file can't be read or isn't a policy, or others can change it; the message
            names file, line and reason.
    """
    from controller.core.policy.load import load_policy  # pydantic: slow to load

    try:
        with path.open(encoding="utf-8") as file:
            exposed = check_access(path, os.fstat(file.fileno())) if check_access else None
            if exposed is not None:
                raise exposed
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyInvalid(
            "policy.unreadable", f"{path}: {error}", remedy="name a readable file with --policy"
        ) from error
    return _with_shipped(load_policy(text, str(path)))


def policy_from_route(payload: Mapping[str, Any]) -> Policy:
    """Return the policy from the broker's ``/trimtab/v1/policy``, with its origin if included.

    The origin is missing in answers to clients, and in those of earlier brokers.
    """
    from controller.model.policy.document import Policy, PolicyOrigin

    policy = Policy.model_validate_json(json.dumps(payload["policy"]))
    origin = payload.get("origin")
    if not isinstance(origin, dict):
        return policy
    return _with_shipped(policy.read_from(PolicyOrigin(str(origin["file"]), dict(origin["lines"]))))


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


def access_error(
    path: Path, status: os.stat_result, *, broker_uid: int, controller_uid: int
) -> PolicyInvalid | None:
    """Return the error if another user can change the policy file, else None.

    A user who can write the file decides what the broker admits. The broker refuses such a file at
    its start, and keeps the previous policy at a reload. The owner can always change the mode. Where broker and controller share a uid, the controller
    can change every file of the broker's: then its ownership isn't checked.
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
    if mode & stat.S_IWGRP and not _is_group_of_owner(status):
        return PolicyInvalid(
            "policy.exposed",
            f"{path} can be written by the group {_group_name(status.st_gid)} (mode {mode:04o})",
            remedy=f"chmod g-w {path}",
        )
    return None


def _is_group_of_owner(status: os.stat_result) -> bool:
    """Return True for root's group, and for the private group of the file's owner.

    Many systems give each user a group of the same name without other members.
    """
    if status.st_gid == 0:
        return True
    try:
        group, owner = grp.getgrgid(status.st_gid), pwd.getpwuid(status.st_uid)
    except KeyError:
        return False
    return group.gr_name == owner.pw_name and not set(group.gr_mem) - {owner.pw_name}


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
