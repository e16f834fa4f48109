"""Changes of the policy that would permit a refused request: key and value.

The rule that refuses a value names the change (``Finding.permit``); rules without a line of the policy
name none. ``core.policy.remedies`` has the words.
"""

from __future__ import annotations

import json

from pydantic import BaseModel, ValidationError

from controller.core.engine_api.requests import Finding, Grant
from controller.model.policy.document import Policy


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
