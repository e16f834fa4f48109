"""Load a policy from YAML text, or report its faults with their places."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.core.yaml.documents import Document, compose
from controller.model.errors import PolicyInvalid
from controller.model.policy.document import Policy, PolicyOrigin

REMEDY = "correct the file; configs/policies/strict.yaml shows every key"
_SHOWN_MAX = 10


def load_policy(text: str, file: str) -> Policy:
    """Return the policy of a file's text.

    Raises:
        PolicyInvalid: the text is not a policy. The message has a line ``FILE:LINE: where: why``
            for each fault.
    """
    documents, problems = compose(text, file)
    if problems:
        lines = [f"{p.file}:{p.line}: {p.message}" for p in problems[:_SHOWN_MAX]]
        raise PolicyInvalid("policy.invalid", "\n".join(lines), remedy=REMEDY)
    if len(documents) != 1:
        count = "no document" if not documents else f"{len(documents)} documents"
        raise PolicyInvalid("policy.invalid", f"{file}: {count}, a policy is one", remedy=REMEDY)
    document = documents[0]
    if not isinstance(document.value, dict):
        line = document.place.line
        raise PolicyInvalid("policy.invalid", f"{file}:{line}: no keys and values", remedy=REMEDY)
    try:
        return Policy.from_json(document.value).read_from(PolicyOrigin(file, _lines(document)))
    except ValidationError as error:
        lines = [_line(details, document) for details in error.errors()[:_SHOWN_MAX]]
        raise PolicyInvalid("policy.invalid", "\n".join(lines), remedy=REMEDY) from None


def _lines(document: Document) -> dict[str, int]:
    """Return the line of each key, by its dotted path; items of lists by their index."""
    lines: dict[str, int] = {}

    def walk(value: object, path: tuple[str | int, ...]) -> None:
        if path and isinstance(path[-1], str):
            lines[".".join(map(str, path))] = document.locate_key(path).line
        members = value.items() if isinstance(value, dict) else ()
        items = enumerate(value) if isinstance(value, list) else ()
        for key, inner in (*members, *items):
            walk(inner, (*path, key))

    walk(document.value, ())
    return lines


def _line(details: ErrorDetails, document: Document) -> str:
    path = details["loc"]
    text = details["msg"]
    context = details.get("ctx") or {}
    match details["type"]:
        case "extra_forbidden":
            place = document.locate_key(path)
            text = "no key of a policy"
        case "policy":
            # A contradiction between two keys names its own place.
            path = tuple(str(context["path"]).split("."))
            place = document.locate(path)
        case "missing":
            place = document.locate(path[:-1])
            text = "is needed"
        case _:
            place = document.locate(path)
    where = ".".join(str(part) for part in path)
    return f"{document.file}:{place.line}: {where}: {text.removeprefix('Value error, ')}"
