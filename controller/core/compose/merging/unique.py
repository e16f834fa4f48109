"""Lists of unique entries: a later entry with the same key replaces the earlier entry in its place.

The key of an entry depends on the attribute: the name of a variable, the target of a mount. The
reference is ``override/uncity.go`` of compose-go.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from controller.core.compose.forms.mounts import parse_volume
from controller.core.compose.text.nodes import ComposeNode, NodePath, PathTable, fail
from controller.core.encoding.quoting import kind_of

EntryKey = Callable[[ComposeNode, NodePath], Hashable]


def remove_repeated(root: ComposeNode) -> ComposeNode:
    """Return the tree without repeated entries.

    Raises:
        Fault: an entry of a kind that cannot have a key.
    """
    return _node(root, _KEYS, ())


def _node(node: ComposeNode, table: PathTable[EntryKey] | None, path: NodePath) -> ComposeNode:
    if table is None:
        return node
    if isinstance(node.value, dict):
        for name, member in node.value.items():
            _node(member, table.below(name), (*path, name))
    elif isinstance(node.value, list) and table.rule is not None:
        key_of = table.rule
        found: dict[Hashable, ComposeNode] = {}
        for number, item in enumerate(node.value):
            found[key_of(item, (*path, number))] = item
        node.value = list(found.values())
    return node


def _name(node: ComposeNode, path: NodePath) -> Hashable:
    if node.text is None:
        message = f"must be a string, not {kind_of(node.value)}"
        fail(node, "compose.type", message, "quote the value", path)
    return node.text.partition("=")[0]


def _volume(node: ComposeNode, path: NodePath) -> Hashable:
    if node.text is not None:
        return parse_volume(node, node.text, path).get("target", "")
    return _target(node, path) if isinstance(node.value, dict) else ""


def _target(node: ComposeNode, path: NodePath) -> Hashable:
    target = node.get("target")
    if target is None or target.text is None:
        fail(node, "compose.missing", "the mount has no target", "add target", path)
    return target.text


def _device(node: ComposeNode, path: NodePath) -> Hashable:
    if node.text is not None:
        parts = node.text.split(":")
        return parts[min(1, len(parts) - 1)]
    return _target(node, path) if isinstance(node.value, dict) else ""


def _exposed(node: ComposeNode, path: NodePath) -> Hashable:
    if isinstance(node.value, bool) or not isinstance(node.value, str | int):
        message = f"must be a port, not {kind_of(node.value)}"
        fail(node, "compose.type", message, 'write a port, such as "8080"', path)
    return str(node.value)


def _file_mount(default: str) -> EntryKey:
    def key(node: ComposeNode, path: NodePath) -> Hashable:
        if node.text is not None:
            return f"{default}/{node.text}"
        if not isinstance(node.value, dict):
            fail(node, "compose.type", "must be a string or a mapping", "name a source", path)
        target, source = node.get("target"), node.get("source")
        if target is not None:
            return str(target.value)
        return f"{default}/{source.value if source is not None else ''}"

    return key


def _port(node: ComposeNode, path: NodePath) -> Hashable:
    if not isinstance(node.value, dict):
        return str(node.value) if isinstance(node.value, str | int) else ""
    target = node.get("target")
    if target is None:
        fail(node, "compose.missing", "the port has no target", "add target", path)
    published, host = node.get("published"), node.get("host_ip")
    protocol = node.get("protocol")
    return (
        "0.0.0.0" if host is None else str(host.value),  # noqa: S104 - the meaning of no address
        None if published is None else (type(published.value), str(published.value)),
        str(target.value),
        "tcp" if protocol is None else str(protocol.value),
    )


def _env_file(node: ComposeNode, path: NodePath) -> Hashable:
    if node.text is not None:
        return node.text
    file = node.get("path")
    if isinstance(node.value, dict) and (file is None or file.text is None):
        fail(node, "compose.missing", "the env file has no path", "add path", path)
    return file.text if file is not None else ""


_NAMES = (
    "annotations build.args build.additional_contexts build.platform build.tags build.labels "
    "cap_add cap_drop deploy.labels dns dns_opt dns_search environment labels links "
    "networks.*.aliases networks.*.link_local_ips profiles sysctls tmpfs"
)
_KEYS: PathTable[EntryKey] = PathTable(
    {
        **{f"services.*.{name}": _name for name in _NAMES.split()},
        "networks.*.labels": _name,
        "networks.*.ipam.options": _name,
        "services.*.configs": _file_mount(""),
        "services.*.devices": _device,
        "services.*.env_file": _env_file,
        "services.*.expose": _exposed,
        "services.*.ports": _port,
        "services.*.secrets": _file_mount("/run/secrets"),
        "services.*.volumes": _volume,
    }
)
