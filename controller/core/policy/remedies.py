"""Remedies that name the line of the policy: key, value, file and line to edit.

The remedy of a denial first names the change of the request. Clients learn the key but not the
place of the file, because they can be in a container.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace

from controller.core.engine_api.requests import Finding, Grant, GrantValue
from controller.core.policy.grants import apply_grant, grant_of, member
from controller.model.policy.document import Policy, PolicyOrigin

#: Limit of the findings with a suggestion; a request can have thousands.
ADVISED_MAX = 20
#: The command that puts an edited policy in force.
RELOAD = "trimtab policy reload"


def with_grants(
    findings: Iterable[Finding], policy: Policy, *, by_client: bool = False
) -> tuple[Finding, ...]:
    """Return the findings with the permitting line of the policy (``Finding.grant``).

    Without a known policy file, the findings are unchanged. A line that the file doesn't have yet is
    written in full: it has the entries of earlier findings too, so the last one grants them all.
    """
    every, origin = tuple(findings), policy.origin
    if origin is None:
        return every
    advised, written = list(every), policy
    for number, finding in enumerate(every[:ADVISED_MAX]):
        grant = grant_of(finding, policy)
        if grant is None:
            continue
        words = _sentence(grant, written, origin, by_client=by_client)
        advised[number] = replace(finding, grant=words)
        if not by_client and not origin.shipped and grant.key not in origin.lines:
            written = apply_grant(written, grant) or written
    return tuple(advised)


def granted_way_out(policy: Policy) -> str:
    """Return the line of the policy that grants networks with a way out."""
    granted, origin = "networks.modes: bridge", policy.origin
    line = None if origin is None else origin.lines.get(granted.partition(":")[0])
    return (
        granted if origin is None or line is None else f"{granted}, in {origin.file} (line {line})"
    )


def _sentence(grant: Grant, policy: Policy, origin: PolicyOrigin, *, by_client: bool) -> str:
    if by_client:
        return f"ask root to {_change(grant)} in the policy"
    if not origin.shipped:
        line = origin.lines.get(grant.key)
        if line is None:
            return f"{_new_key(grant, policy)} in {origin.file}, then {RELOAD}"
        return f"{_change(grant)} in {origin.file} (line {line}), then {RELOAD}"
    text = f"{_change(grant)} in a policy of your own (trimtab policy init)"
    if origin.home is not None and _has(origin.home, grant):
        text += ", or start with --policy home"
    return text


def _change(grant: Grant) -> str:
    value = _yaml_value(grant.value)
    match grant.how:
        case "add":
            return f"add {value} to {grant.key}"
        case "remove":
            return f"remove {value} from {grant.key}"
        case "set":
            return f"set {grant.key} to {value}"


def _new_key(grant: Grant, policy: Policy) -> str:
    """Return the change for a key that the file does not have.

    A list in the file replaces the default list, so the default entries are repeated.
    """
    if grant.how == "set":
        return _change(grant)
    changed = apply_grant(policy, grant)
    assert changed is not None, "a grant that no policy can have"
    value: object = changed.to_json()
    for part in grant.key.split("."):
        value = member(value, part)
    return f"write {grant.key}: {json.dumps(value)}"


def _yaml_value(value: GrantValue) -> str:
    """Return a value as YAML: sizes and words without quotes."""
    if isinstance(value, str) and re.fullmatch(r"[a-z]+|[0-9.]+([KMG]i|ms|s|m|h)?", value):
        return value
    return json.dumps(value)


def _has(policy: Policy, grant: Grant) -> bool:
    """Return True if a policy grants the value already."""
    value: object = policy.to_json()
    for part in grant.key.split("."):
        value = member(value, part) if isinstance(value, dict) else None
    match grant.how:
        case "add":
            entries = value if isinstance(value, list) else []
            return any(
                grant.value == entry
                or (str(entry).endswith("/") and str(grant.value).startswith(str(entry)))
                for entry in entries
            )
        case "remove":
            return isinstance(value, list) and grant.value not in value
        case "set":
            return apply_grant(policy, grant) == policy
