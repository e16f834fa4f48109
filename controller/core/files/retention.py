"""Which contents the broker keeps: those that containers name, and the latest of each name.

Pure, and a function of the inventory alone, so that the journal can rebuild the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from controller.model.files.delivery import (
    CONTENTS_KEPT,
    NAMES_MAX,
    NAMESPACE_BYTES_MAX,
    TOTAL_BYTES_MAX,
    FileSet,
    StoredContent,
    StoredFiles,
)
from controller.model.quantities import format_bytes

Stored = Mapping[str, StoredFiles]
#: A content by its name and its id.
NamedContent = tuple[FileSet, str]


def with_delivered(
    stored: Stored, files: FileSet, content: StoredContent, used: Iterable[NamedContent]
) -> dict[str, StoredFiles]:
    """Return the stored contents after a delivery, without those that nobody needs.

    *used* are the contents that containers name.
    """
    named = frozenset(used)
    before = stored.get(str(files), StoredFiles(files))
    others = tuple(each for each in before.contents if each.content != content.content)
    after = _trimmed(replace(before, contents=(*others, content)), named)
    kept = dict(stored)
    kept.pop(str(files), None)
    if (surplus := len(kept) + 1 - NAMES_MAX) > 0:
        unused = [key for key, each in kept.items() if not _is_used(each, named)]
        for key in unused[:surplus]:
            del kept[key]
    kept[str(files)] = after
    return kept


def _trimmed(files: StoredFiles, named: frozenset[NamedContent]) -> StoredFiles:
    latest = files.contents[-CONTENTS_KEPT:]
    kept = tuple(
        each for each in files.contents if each in latest or (files.files, each.content) in named
    )
    return replace(files, contents=kept)


def _is_used(files: StoredFiles, named: frozenset[NamedContent]) -> bool:
    return any((files.files, each.content) in named for each in files.contents)


def why_full(after: Stored, files: FileSet) -> str:
    """Return which bound the stored contents exceed, '' for none."""
    sizes = {key: sum(each.size for each in files.contents) for key, files in after.items()}
    own = sum(size for key, size in sizes.items() if after[key].files.namespace == files.namespace)
    if own > NAMESPACE_BYTES_MAX:
        most = format_bytes(NAMESPACE_BYTES_MAX)
        return f"the contents of namespace {files.namespace} would pass {most}"
    if sum(sizes.values()) > TOTAL_BYTES_MAX:
        return f"all contents would pass {format_bytes(TOTAL_BYTES_MAX)}"
    return "" if len(after) <= NAMES_MAX else f"there would be more than {NAMES_MAX} names"
