"""A policy's file: YAML text to a Policy, or what is wrong with it, at its place."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.core.encoding.yaml import Document, compose
from controller.model.errors import PolicyInvalid
from controller.model.policy.document import Policy, PolicyOrigin

REMEDY = "correct the file; configs/policies/strict.yaml shows every key"
_TOLD_MAX = 10


def load_policy(text: str, file: str) -> Policy:
    """Return the policy that a file's text says.

    Raises:
        PolicyInvalid: it isn't one; the message has a line ``FILE:LINE: where: why`` for each
            thing that is wrong with it.
    """
    documents, problems = compose(text, file)
    if problems:
        lines = [f"{p.file}:{p.line}: {p.message}" for p in problems[:_TOLD_MAX]]
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
        told = [_line(details, document) for details in error.errors()[:_TOLD_MAX]]
        raise PolicyInvalid("policy.invalid", "\n".join(told), remedy=REMEDY) from None


def _lines(document: Document) -> dict[str, int]:
    """Return the line of each key, by its dotted path; items of lists by their number."""
    found: dict[str, int] = {}

    def walk(value: object, path: tuple[str | int, ...]) -> None:
        if path and isinstance(path[-1], str):
            found[".".join(map(str, path))] = document.locate_key(path).line
        members = value.items() if isinstance(value, dict) else ()
        items = enumerate(value) if isinstance(value, list) else ()
        for key, inner in (*members, *items):
            walk(inner, (*path, key))

    walk(document.value, ())
    return found


def _line(details: ErrorDetails, document: Document) -> str:
    path = details["loc"]
    text = details["msg"]
    context = details.get("ctx") or {}
    match details["type"]:
        case "extra_forbidden":
            place = document.locate_key(path)
            text = "no key of a policy"
        case "policy":
            # What contradicts something elsewhere names its own place.
            path = tuple(str(context["path"]).split("."))
            place = document.locate(path)
        case "missing":
            place = document.locate(path[:-1])
            text = "is needed"
        case _:
            place = document.locate(path)
    where = ".".join(str(part) for part in path)
    return f"{document.file}:{place.line}: {where}: {text.removeprefix('Value error, ')}"
