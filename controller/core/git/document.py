"""The document of kind Source that ``trimtab up --git URL`` writes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from pydantic import ValidationError

from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import UsageError

NAME_MAX = 27
#: The owner of the document itself; the resources have owners of their own.
OWNER = "operator"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options of ``up`` about its Source."""

    url: str
    branch: str = "main"
    path: str = "."
    namespaces: tuple[str, ...] = ("default",)
    credentials: str | None = None
    #: The folder of the keys that must have signed the newest commit.
    keys: str | None = None


def name_of(url: str) -> str:
    """Return a name for the source of a repository: the last part of the URL."""
    last = re.split(r"[/:]", url.rstrip("/"))[-1].lower().removesuffix(".git")
    return re.sub(r"[^a-z0-9]+", "-", last)[:NAME_MAX].strip("-") or "source"


def render_source(options: SourceOptions) -> str:
    """Return the document.

    Raises:
        UsageError: an option can't be used.
    """
    git: dict[str, object] = {"url": options.url, "ref": {"branch": options.branch}}
    git |= {"path": options.path}
    if options.credentials is not None:
        git["credentials"] = options.credentials
    spec: dict[str, object] = {"git": git, "namespaces": list(options.namespaces)}
    if options.keys is not None:
        spec["verify"] = {"mode": "head", "keys": options.keys}
    try:
        SourceSpec.model_validate_json(json.dumps(spec))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            "source.options",
            f"spec.{field}: {first['msg']}",
            remedy="see 'trimtab up --help', or write the document yourself (docs/git.md)",
        ) from error
    metadata = {"name": name_of(options.url), "owner": OWNER}
    return (
        "# Written by 'trimtab up --git': the next start with --git writes it again.\n"
        f"apiVersion: trimtab/v1\nkind: Source\nmetadata: {json.dumps(metadata)}\n"
        f"spec: {json.dumps(spec)}\n"
    )
