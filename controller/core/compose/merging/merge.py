"""Merging of an override into a base, with the rules of Compose for each attribute.

Mappings merge by key and lists are appended, except at the paths of ``_RULES``. Extensions are
replaced, but for ``x-trimtab``. The reference is ``override/merge.go`` of compose-go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from controller.core.compose.project import EXTENSION
from controller.core.compose.text.nodes import (
    ComposeNode,
    NodePath,
    PathTable,
    fail,
    same,
    scalar_text,
)
from controller.core.encoding.quoting import kind_of

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
