"""Mutually exclusive attributes, and groups with at least one required attribute.

The reference is the package ``validation`` of compose-go.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.core.compose.text.nodes import (
    ComposeNode,
    NodePath,
    PathTable,
    ReadingReport,
    fail,
)

Check = Callable[[ComposeNode, NodePath], None]


def check_choices(root: ComposeNode, report: ReadingReport) -> None:
    """Report mutually exclusive attributes."""
    _CHECKS.walk(root, report, lambda check, node, path: check(node, path))


def _external_volume(node: ComposeNode, path: NodePath) -> None:
    external = node.get("external")
    if external is None or external.value is not True:
        return
    for name, member in node.members.items():
        if name not in {"name", "external"} and not name.startswith("x-"):
            message = f"an external volume can't have {name}"
            fail(member, "compose.conflict", message, f"remove {name}, or external", path)


def _sources(*names: str) -> Check:
    def check(node: ComposeNode, path: NodePath) -> None:
        present = [name for name in names if name in node.members]
        if len(present) > 1:
            message = f"{' and '.join(present)} exclude one another"
            fail(node, "compose.conflict", message, "keep one of them", path)
        if not present and not {"driver", "external"} & node.members.keys():
            choices = ", ".join(names)
            fail(node, "compose.missing", f"one of {choices} is missing", "add one", path)

    return check


def _device_request(node: ComposeNode, path: NodePath) -> None:
    if {"count", "device_ids"} <= node.members.keys():
        message = "count and device_ids exclude one another"
        fail(node, "compose.conflict", message, "keep one of them", path)


_CHECKS: PathTable[Check] = PathTable(
    {
        "volumes.*": _external_volume,
        "configs.*": _sources("file", "environment", "content"),
        "secrets.*": _sources("file", "environment"),
        "services.*.deploy.resources.reservations.devices.*": _device_request,
        "services.*.gpus.*": _device_request,
    }
)
