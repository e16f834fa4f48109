"""The tags ``!reset`` and ``!override``: values of earlier files that a later file removes."""

from __future__ import annotations

from collections.abc import Iterable

from controller.core.compose.text.nodes import ComposeNode

ResetPath = tuple[str, ...]


def apply_resets(tree: ComposeNode, resets: Iterable[ResetPath]) -> None:
    """Remove the members at the paths, in place. Paths into lists remove nothing, as in Compose."""
    for path in resets:
        node: ComposeNode | None = tree
        for part in path[:-1]:
            node = node.get(part) if node is not None else None
        if node is not None and path:
            node.members.pop(path[-1], None)
