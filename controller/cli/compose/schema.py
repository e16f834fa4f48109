"""``schema``: the JSON Schema of documents, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.cli.options import command, print_json
from controller.model.errors import UsageError


@command("""\b
Examples:
  trimtab schema > trimtab.schema.json      all kinds, for editors
  trimtab schema Service | jq '.properties.spec'
""")
@click.argument("kind", required=False)
def schema(kind: str | None, state: Path | None, as_json: bool) -> None:  # noqa: ARG001 - of every command
    """Print the JSON Schema of documents: of one KIND, or of all kinds.

    An editor with a YAML language server completes and checks documents by the schema. See
    docs/editors.md.
    """
    print_json(schema_of(kind))


def schema_of(kind: str | None) -> dict[str, Any]:
    """Return the JSON Schema of a kind, or of all kinds.

    Raises:
        UsageError: there is no such kind.
    """
    from controller.core.manifests.editors.json_schema import schema_of_all, schema_of_kind
    from controller.core.manifests.parse import KINDS, manifest_of

    if kind is None:
        return schema_of_all()
    model = manifest_of(kind)
    if model is None:
        known = ", ".join(KINDS)
        raise UsageError("kind.unknown", f"there is no kind {kind}", remedy=f"name one of {known}")
    return schema_of_kind(kind, model)
