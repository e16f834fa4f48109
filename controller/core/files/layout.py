"""The places of delivered files on the host, below the folder of their kind.

``NAMESPACE/NAME/CONTENT/VARIANT/`` never changes. ``NAMESPACE/NAME/current-VARIANT/`` has the link
``..data`` to the content of now, and a link through ``..data`` for each first name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from controller.core.encoding.canonical_json import digest
from controller.model.files.delivery import FileSet, Variant, is_key
from controller.model.host_paths import is_below
from controller.model.names import NAMESPACE_MAX, SERVICE_NAME_MAX, is_dns_label

_DIGITS = 16
#: Below the folder of a name: a content's folder or a stable one, with the variant and one file.
_INNER = re.compile(r"(?:(current-)|([0-9a-f]{64})/)([0-9a-f]{16})(?:/(.+))?", re.ASCII)
#: How the ids of contents begin, by kind.
_ALGORITHMS = {"config": "sha256", "secret": "hmac"}
#: The content of a stable folder, whose path doesn't name it.
UNKNOWN_CONTENT = f"sha256:{'0' * 64}"
#: The link that moves to another content at once.
DATA_LINK = "..data"


def config_root(state_folder: str) -> str:
    """Return the folder of the mounted files of Configs in a state folder."""
    return f"{state_folder}/files/config"


def variant_id(variant: Variant) -> str:
    """Return the name of a variant's folder."""
    members = [variant.uid, variant.gid, variant.mode, list(variant.keys)]
    return str(digest({"variant": members}))[:_DIGITS]


def content_folder(content: str) -> str:
    """Return the name of a content's folder: the digits of its id."""
    return content.rpartition(":")[2]


def content_of(kind: str, folder: str) -> str:
    """Return the content's id of a folder's name."""
    return f"{_ALGORITHMS[kind]}:{folder}"


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


@dataclass(frozen=True, slots=True)
class MountedPlace:
    """A mount of delivered files, as its path on the host says."""

    files: FileSet
    content: str  # ``UNKNOWN_CONTENT`` of a stable folder
    variant: str
    key: str = ""
    stable: bool = False


def mounted_place(roots: Mapping[str, str], source: str) -> MountedPlace | None:
    """Return the delivered files that lie at a path of the host; None for any other path.

    *roots* are the folders of the kinds. A path comes from a container that the inventory lacks.
    """
    for kind, root in roots.items():
        if not is_below(source, root):
            continue
        namespace, _, rest = source.removeprefix(f"{root}/").partition("/")
        name, _, inner = rest.partition("/")
        match = _INNER.fullmatch(inner)
        named = is_dns_label(namespace, length=NAMESPACE_MAX)
        if match is None or not named or not is_dns_label(name, length=SERVICE_NAME_MAX):
            return None
        stable, digits, variant, key = match.groups(default="")
        if key and not is_key(key):
            return None
        content = content_of(kind, digits) if digits else UNKNOWN_CONTENT
        return MountedPlace(FileSet(kind, namespace, name), content, variant, key, stable != "")
    return None
