"""Policies: where their files are, and how a policy is read from a file or from the broker."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


def read_policy(path: Path) -> Policy:
    """Read a policy from a file.

    Raises:
        PolicyInvalid: the file can't be read or isn't a policy; the message names file, line and
            reason.
    """
    from controller.core.policy.load import load_policy  # pydantic: slow to load

    try:
        text = path.read_text(encoding="utf-8")
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
