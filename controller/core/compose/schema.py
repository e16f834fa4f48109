"""The JSON schema of the Compose Specification, and attributes that exclude one another.

Validation by the JSON schema of the Compose Specification, with messages for people.

``compose-spec.json`` is the schema of compose-go ``SCHEMA_VERSION``, unchanged; its licence is
``compose-spec.LICENSE``. ``schema`` adds the newer attributes that trimtab reads. The schema is
loaded with the first project.

Mutually exclusive attributes, and groups with at least one required attribute.

The reference is the package ``validation`` of compose-go.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from controller.core.compose import nodes
from controller.core.encoding.text import kind_of
from controller.model.errors import Problem

if TYPE_CHECKING:
    from jsonschema import Draft7Validator
    from jsonschema.exceptions import ValidationError


SCHEMA_VERSION = "2.4.8"
#: The errors of one tree that are reported.
MAX_ERRORS = 50
_KINDS = {
    "array": "a list",
    "object": "a mapping",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


#: Attributes that are newer than the schema and that trimtab doesn't read.
NEWER = frozenset(
    [
        "include",
        "initial_sync",
        "jobs",
        "provenance",
        "sbom",
        "umask",
        "use_service_name_alias",
    ]
)


_FLAG = {"type": ["boolean", "string"]}
#: Newer attributes of services that ``schema`` adds: trimtab reads them, or refuses their service alone.
_ADDED = {
    "models": {"type": ["array", "object"]},
    "provider": {"type": "object"},
    "pull_policy": {
        "type": "string",
        "pattern": (
            r"^(?:always|never|build|if_not_present|missing|refresh|daily|weekly"
            r"|every_(?:[0-9]+[wdhms])+)\Z"
        ),
    },
    "pull_refresh_after": {"type": "string"},
    "use_api_socket": _FLAG,
}


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of the Compose Specification, with newer attributes."""
    text = resources.files(__package__).joinpath("compose-spec.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    definitions = found["definitions"]
    hook = copy.deepcopy(definitions["service_hook"])
    hook["properties"] |= {"image": {"type": "string"}, "per_replica": _FLAG}
    definitions["pre_start_hook"] = hook
    reference = {"$ref": "#/definitions/pre_start_hook"}
    service = definitions["service"]["properties"]
    service |= {"pre_start": {"type": "array", "items": reference}, **_ADDED}
    (joined,) = service["networks"]["oneOf"][1]["patternProperties"].values()
    joined["oneOf"][0]["properties"]["interface_name"] = {"type": "string"}
    found["properties"]["models"] = {"type": "object"}
    return found


def _anchored(part: Any) -> Any:
    """Return the schema with patterns that end at the end of a name, not before a line break."""
    if isinstance(part, list):
        return [_anchored(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {
        (f"{name[:-1]}\\Z" if name.endswith("$") else name): _anchored(each)
        for name, each in part.items()
    }


@cache
def _validator() -> Draft7Validator:
    from jsonschema import Draft7Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def unique(_validator: Any, bound: Any, items: Any, _schema: Any) -> Iterator[ValidationError]:
        """Compare items as JSON: linear, and as the validator of Docker Compose."""
        if bound and isinstance(items, list):
            texts = {json.dumps(item, sort_keys=True) for item in items}
            if len(texts) < len(items):
                yield ValidationError("an entry is repeated")

    extended: Any = extend(Draft7Validator, {"uniqueItems": unique})  # type: ignore[no-untyped-call]
    found: Draft7Validator = extended(_anchored(schema()))
    return found


def validate(root: nodes.ComposeNode, report: nodes.ReadingReport) -> None:
    """Report every value against the schema."""
    errors = _validator().iter_errors(nodes.plain(root))
    for number, error in enumerate(errors):
        if number == MAX_ERRORS:
            return
        for problem in _problems(error, root):
            report.add(problem)


def _problems(error: ValidationError, root: nodes.ComposeNode) -> Iterator[Problem]:
    error = _most_specific(error)
    path: nodes.NodePath = tuple(error.absolute_path)
    node = _find(root, path)
    validator, value, bound = str(error.validator), error.instance, _bound(error)
    if validator == "additionalProperties" and isinstance(value, dict):
        yield from _unknown_keys(error, node, path)
    elif validator == "required" and isinstance(value, dict):
        for name in bound:
            if name not in value:
                message = f"{name} is missing"
                yield nodes.problem_at(node, "compose.missing", message, f"add {name}", path)
    else:
        message, remedy = _words(error, validator, bound)
        code = "compose.type" if validator in {"type", "oneOf"} else "compose.value"
        yield nodes.problem_at(node, code, message, remedy, path)


def _bound(error: ValidationError) -> Any:
    return error.validator_value


def _words(error: ValidationError, validator: str, bound: Any) -> tuple[str, str]:
    value = error.instance
    match validator:
        case "type":
            expected = _expected([bound])
        case "oneOf":
            expected = _expected(_types(branch) for branch in bound)
        case "enum":
            choices = ", ".join(map(str, bound))
            return f"{value!r} is not a permitted value", f"write one of: {choices}"
        case "pattern":
            return f"{value!r} is not a permitted value", "write one that docs/compose.md names"
        case "uniqueItems":
            return "an entry is repeated", "keep one of them"
        case _:
            return error.message, "correct the value"
    remedy = f"write {expected}"
    if isinstance(value, bool | int | float) and "a string" in expected:
        remedy = f'quote the value: "{json.dumps(value)}"'
    return f"must be {expected}, not {kind_of(value)}", remedy


def _types(branch: dict[str, Any]) -> object:
    reference = branch.get("$ref", "")
    if reference:
        branch = schema()["definitions"][reference.rpartition("/")[2]]
    if "oneOf" in branch:
        return [_types(each) for each in branch["oneOf"]]
    return branch.get("type", "object")


def _expected(types: Any) -> str:
    names: list[str] = []

    def collect(found: Any) -> None:
        if isinstance(found, str):
            names.append(_KINDS[found])
        else:
            for each in found:
                collect(each)

    collect(types)
    return " or ".join(dict.fromkeys(names))


def _most_specific(error: ValidationError) -> ValidationError:
    """Return the error of the branch for the kind of the value, if there is such a branch."""
    while error.validator == "oneOf" and error.context:
        inner = [each for each in error.context if not _is_other_kind(each)]
        if not inner:
            return error
        error = max(inner, key=lambda each: len(each.absolute_path))
    return error


def _is_other_kind(error: ValidationError) -> bool:
    """Return True if a branch failed because the value has another kind."""
    return not error.relative_path and error.validator in {"type", "oneOf"}


def _unknown_keys(
    error: ValidationError, node: nodes.ComposeNode, path: nodes.NodePath
) -> Iterator[Problem]:
    of_mapping: Any = error.schema
    known = list(of_mapping.get("properties", ()))
    patterns = list(of_mapping.get("patternProperties", ()))
    for name in node.members:
        if name in known or any(re.search(pattern, name) for pattern in patterns):
            continue
        member = node.members[name]
        if not known:
            message, remedy = f"invalid name {name!r}", "use letters, digits, '.', '_' and '-'"
            yield nodes.problem_at(member, "compose.name", message, remedy, path)
            continue
        if name in NEWER:
            message = f"{name} is newer than the supported Compose Specification"
            remedy = f"remove {name}; compose-go {SCHEMA_VERSION} has the supported attributes"
            yield nodes.problem_at(member, "compose.newer", message, remedy, (*path, name))
            continue
        close = difflib.get_close_matches(name, known, 1)
        remedy = f"did you mean {close[0]}?" if close else "remove it, or give it a name x-…"
        message = f'unknown key "{name}"'
        yield nodes.problem_at(member, "compose.unknown", message, remedy, (*path, name))


def _find(root: nodes.ComposeNode, path: nodes.NodePath) -> nodes.ComposeNode:
    for part in path:
        found = root.get(part) if isinstance(part, str) else root.items[part]
        if found is None:
            return root
        root = found
    return root


Check = Callable[[nodes.ComposeNode, nodes.NodePath], None]


def check_choices(root: nodes.ComposeNode, report: nodes.ReadingReport) -> None:
    """Report mutually exclusive attributes."""
    _CHECKS.walk(root, report, lambda check, node, path: check(node, path))


def _external_volume(node: nodes.ComposeNode, path: nodes.NodePath) -> None:
    external = node.get("external")
    if external is None or external.value is not True:
        return
    for name, member in node.members.items():
        if name not in {"name", "external"} and not name.startswith("x-"):
            message = f"an external volume can't have {name}"
            nodes.fail(member, "compose.conflict", message, f"remove {name}, or external", path)


def _sources(*names: str) -> Check:
    def check(node: nodes.ComposeNode, path: nodes.NodePath) -> None:
        present = [name for name in names if name in node.members]
        if len(present) > 1:
            message = f"{' and '.join(present)} exclude one another"
            nodes.fail(node, "compose.conflict", message, "keep one of them", path)
        if not present and not {"driver", "external"} & node.members.keys():
            choices = ", ".join(names)
            nodes.fail(node, "compose.missing", f"one of {choices} is missing", "add one", path)

    return check


def _device_request(node: nodes.ComposeNode, path: nodes.NodePath) -> None:
    if {"count", "device_ids"} <= node.members.keys():
        message = "count and device_ids exclude one another"
        nodes.fail(node, "compose.conflict", message, "keep one of them", path)


_CHECKS: nodes.PathTable[Check] = nodes.PathTable(
    {
        "volumes.*": _external_volume,
        "configs.*": _sources("file", "environment", "content"),
        "secrets.*": _sources("file", "environment"),
        "services.*.deploy.resources.reservations.devices.*": _device_request,
        "services.*.gpus.*": _device_request,
    }
)
