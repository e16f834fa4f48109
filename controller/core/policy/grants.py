"""Changes of the policy that would permit a refused request: key and value.

The rule that refuses a value names the change (``Finding.permit``); rules without a line of the policy
name none. The words are here.

Remedies that name the line of the policy: key, value, file and line to edit.

The remedy of a denial first names the change of the request. Clients learn the key but not the
place of the file, because they can be in a container.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace

from pydantic import BaseModel, ValidationError

from controller.core.engine_api.requests import Finding, Grant, GrantValue
from controller.model.policy.document import Policy, PolicyOrigin


def grant_of(finding: Finding, policy: Policy) -> Grant | None:
    """Return the change of the policy to permit the refused value, if the policy can have it."""
    grant = finding.permit
    return grant if grant is not None and _is_valid(policy, grant) else None


def apply_grant(policy: Policy, grant: Grant) -> Policy | None:
    """Return the policy with a grant; None if the result is not a valid policy."""
    whole = policy.to_json()
    _apply(whole, grant.key.split("."), grant)
    try:
        return Policy.from_json(whole)
    except ValidationError:
        return None


def _is_valid(policy: Policy, grant: Grant) -> bool:
    """Return True if the granted value is valid in the policy.

    Only its own section is checked, because a flood of denials calls this for each denial.
    """
    top, *path = grant.key.split(".")
    section = next((getattr(policy, name) for name in _SECTIONS if _SECTIONS[name] == top), None)
    if not path or not isinstance(section, BaseModel):
        return apply_grant(policy, grant) is not None
    section_json = section.model_dump(mode="json", by_alias=True)
    before = json.dumps(section_json)
    _apply(section_json, path, grant)
    if json.dumps(section_json) == before:
        return False  # granted already: the reason of the denial is another
    try:
        type(section).model_validate_json(json.dumps(section_json))
    except ValidationError:
        return False
    return True


#: The policy's sections: the name in code, and in the file.
_SECTIONS = {name: field.alias or name for name, field in Policy.model_fields.items()}


def _apply(value: object, path: list[str], grant: Grant) -> None:
    *folders, last = path
    for part in folders:
        value = member(value, part)
    if not isinstance(value, dict):
        return
    before = value.get(last)
    entries = before if isinstance(before, list) else []
    match grant.how:
        case "add":
            value[last] = [*entries, grant.value]
        case "remove":
            value[last] = [entry for entry in entries if entry != grant.value]
        case "set":
            value[last] = grant.value


def member(holder: object, part: str) -> object:
    """Return a member of an object, or an item of a list, by its name in the file."""
    if isinstance(holder, list):
        return holder[int(part)]
    return holder.get(part) if isinstance(holder, dict) else None


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
