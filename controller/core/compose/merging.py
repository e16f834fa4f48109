"""Merging of a file over another, by the rules of Compose for each attribute.

Several Compose files as one tree: merging, extends, include, and the limits of a project.

Merging of an override into a base, with the rules of Compose for each attribute.

Mappings merge by key and lists are appended, except at the paths of ``_RULES``. Extensions are
replaced, but for ``x-trimtab``. The reference is ``override/merge.go`` of compose-go.

Lists of unique entries: a later entry with the same key replaces the earlier entry in its place.

The key of an entry depends on the attribute: the name of a variable, the target of a mount. The
reference is ``override/uncity.go`` of compose-go.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NoReturn

from controller.core.compose.long_forms import parse_volume
from controller.core.compose.nodes import ComposeNode, NodePath, PathTable, fail, same, scalar_text
from controller.core.compose.project import EXTENSION
from controller.core.encoding.text import kind_of

Merger = Callable[[ComposeNode, ComposeNode, NodePath], ComposeNode]
Table = PathTable[Merger] | None
#: The pairs of address pools that one override compares.
MAX_POOLS = 10_000


def merge(base: ComposeNode, override: ComposeNode) -> ComposeNode:
    """Return the base with the override applied; both are used up.

    Raises:
        Fault: two values of different kinds, such as a list over a mapping.
    """
    return _merge(base, override, (), _RULES)


def extend_service(base: ComposeNode, service: ComposeNode, name: str) -> ComposeNode:
    """Return a service that extends a base; both are used up.

    Raises:
        Fault: as ``merge``.
    """
    services = _RULES.below("services")
    table = services.below(name) if services is not None else None
    return _merge(base, service, ("services", name), table)


def _merge(base: ComposeNode, over: ComposeNode, path: NodePath, table: Table) -> ComposeNode:
    if table is not None and table.rule is not None:
        return table.rule(base, over, path)
    if over.value is None:
        return base
    if isinstance(base.value, dict):
        if not isinstance(over.value, dict):
            _clash(base, over, path)
        return _merge_members(base, over, path, table)
    if isinstance(base.value, list):
        if not isinstance(over.value, list):
            _clash(base, over, path)
        return base.at([*base.value, *over.value])
    return over


def _clash(base: ComposeNode, over: ComposeNode, path: NodePath) -> NoReturn:
    message = (
        f"{kind_of(over.value)} can't override {kind_of(base.value)}"
        f" ({base.file}, line {base.line})"
    )
    fail(over, "compose.merge", message, "write the same form, or tag the value !override", path)


def _merge_members(
    base: ComposeNode, over: ComposeNode, path: NodePath, table: Table
) -> ComposeNode:
    members = base.members
    for name, value in over.members.items():
        is_choice = name == EXTENSION and not path
        if name not in members or (name.startswith("x-") and not is_choice):
            members[name] = value
        else:
            below = table.below(name) if table is not None else None
            members[name] = _merge(members[name], value, (*path, name), below)
    return base


def _override(_base: ComposeNode, over: ComposeNode, _path: NodePath) -> ComposeNode:
    return over


def as_sequence(node: ComposeNode) -> list[ComposeNode]:
    """Return a list, or a mapping or string as a list of strings ``KEY=VALUE``."""
    value = node.value
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [node]
    found: list[tuple[str, ComposeNode]] = []
    for name, member in node.members.items():
        if member.value is None:
            found.append((name, member))
        elif isinstance(member.value, list):
            found += [(f"{name}={scalar_text(item.value)}", item) for item in member.value]
        else:
            found.append((f"{name}={scalar_text(member.value)}", member))
    return [member.at(text) for text, member in sorted(found, key=lambda pair: pair[0])]


def _to_sequence(base: ComposeNode, over: ComposeNode, _path: NodePath) -> ComposeNode:
    return base.at([*as_sequence(base), *as_sequence(over)])


def _extra_hosts(base: ComposeNode, over: ComposeNode, _path: NodePath) -> ComposeNode:
    hosts = as_sequence(base)
    known = {host.text for host in hosts}
    added = [host for host in as_sequence(over) if host.text is None or host.text not in known]
    return base.at([*hosts, *added])


def _as_mapping(
    node: ComposeNode, default: dict[str, str | bool] | None, path: NodePath
) -> ComposeNode:
    """Return a mapping, or a list of names as a mapping to the default."""
    if isinstance(node.value, dict):
        return node
    members: dict[str, ComposeNode] = {}
    for item in node.items:
        if item.text is None:
            fail(item, "compose.type", "must be a string", "write a name", path)
        if default is None:
            members[item.text] = item.at(None)
        else:
            fields = {key: item.at(value) for key, value in default.items()}
            members[item.text] = item.at(fields)
    return node.at(members)


def _depends_on(base: ComposeNode, over: ComposeNode, path: NodePath) -> ComposeNode:
    default: dict[str, str | bool] = {"condition": "service_started", "required": True}
    table = _table_of(path)
    return _merge_members(
        _as_mapping(base, default, path), _as_mapping(over, default, path), path, table
    )


def _named(base: ComposeNode, over: ComposeNode, path: NodePath) -> ComposeNode:
    table = _table_of(path)
    return _merge_members(_as_mapping(base, None, path), _as_mapping(over, None, path), path, table)


def _build(base: ComposeNode, over: ComposeNode, path: NodePath) -> ComposeNode:
    def mapping(node: ComposeNode) -> ComposeNode:
        if isinstance(node.value, str):
            return node.at({"context": node})
        return node if isinstance(node.value, dict) else node.at({})

    return _merge_members(mapping(base), mapping(over), path, _table_of(path))


def _logging(base: ComposeNode, over: ComposeNode, path: NodePath) -> ComposeNode:
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        _clash(base, over, path)
    new, old = over.get("driver"), base.get("driver")
    if new is None or old is None or same(new, old):
        return _merge_members(base, over, path, _table_of(path))
    return over


def _ipam_config(base: ComposeNode, over: ComposeNode, path: NodePath) -> ComposeNode:
    pools: list[ComposeNode] = []
    if len(base.items) * len(over.items) > MAX_POOLS:
        fail(over, "compose.limit", "too many address pools", "write fewer pools", path)

    def index(subnet: ComposeNode | None) -> int | None:
        return next((n for n, pool in enumerate(pools) if _equal(pool.get("subnet"), subnet)), None)

    for old in base.items:
        pool = _as_mapping(old, None, path)
        for item in over.items:
            new = _as_mapping(item, None, path)
            is_other = not _equal(new.get("subnet"), pool.get("subnet"))
            if is_other and index(new.get("subnet")) is None:
                pools.append(new)
                continue
            pool = _merge_members(pool, new, path, None)
            known = index(pool.get("subnet"))
            if known is None:
                pools.append(pool)
            else:
                pools[known] = pool
    return base.at(list(pools))


def _equal(one: ComposeNode | None, other: ComposeNode | None) -> bool:
    if one is None or other is None:
        return one is other
    return same(one, other)


def _table_of(path: NodePath) -> Table:
    table: Table = _RULES
    for part in path:
        table = table.below(str(part)) if table is not None else None
    return table


_SEQUENCES = (
    "annotations build.args build.additional_contexts build.labels deploy.labels dns dns_opt "
    "dns_search env_file label_file environment labels sysctls tmpfs"
)
_RULES: PathTable[Merger] = PathTable(
    {
        **{f"services.*.{name}": _to_sequence for name in _SEQUENCES.split()},
        "networks.*.labels": _to_sequence,
        "volumes.*.labels": _to_sequence,
        "networks.*.ipam.config": _ipam_config,
        "services.*.build": _build,
        "services.*.build.extra_hosts": _extra_hosts,
        "services.*.extra_hosts": _extra_hosts,
        "services.*.command": _override,
        "services.*.entrypoint": _override,
        "services.*.healthcheck.test": _override,
        "services.*.ulimits.*": _override,
        "services.*.depends_on": _depends_on,
        "services.*.models": _named,
        "services.*.networks": _named,
        "services.*.logging": _logging,
    }
)


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
