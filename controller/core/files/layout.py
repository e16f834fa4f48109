"""The places of delivered files on the host, below the folder of their kind.

``NAMESPACE/NAME/CONTENT/VARIANT/`` never changes. ``NAMESPACE/NAME/current-VARIANT/`` has the link
``..data`` to the content of now, and a link through ``..data`` for each first name.
"""

from __future__ import annotations

from controller.core.encoding.canonical_json import digest
from controller.model.files.delivery import FileSet, Variant

_DIGITS = 16
#: The link that moves to another content at once.
DATA_LINK = "..data"


def variant_id(variant: Variant) -> str:
    """Return the name of a variant's folder."""
    members = [variant.uid, variant.gid, variant.mode, list(variant.keys)]
    return str(digest({"variant": members}))[:_DIGITS]


def content_folder(content: str) -> str:
    """Return the name of a content's folder: the digits of its id."""
    return content.rpartition(":")[2]


def folder_of(files: FileSet, content: str, variant: Variant, *, stable: bool) -> str:
    """Return the folder of a variant, relative to the folder of the kind."""
    return recorded_source("", files, content, variant_id(variant), stable=stable)[1:]


def source_of(
    root: str,
    files: FileSet,
    content: str,
    variant: Variant,
    *,
    key: str = "",
    stable: bool = False,
) -> str:
    """Return the path of the host that is mounted."""
    return recorded_source(root, files, content, variant_id(variant), key=key, stable=stable)


def recorded_source(
    root: str, files: FileSet, content: str, variant: str, *, key: str = "", stable: bool = False
) -> str:
    """Return the path of the host that is mounted, by the id of the variant."""
    inner = f"current-{variant}" if stable else f"{content_folder(content)}/{variant}"
    folder = f"{root}/{files.namespace}/{files.name}/{inner}"
    return f"{folder}/{key}" if key else folder
