"""The walk over all attributes of a project: each has a row in the table, and refused ones are problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controller.core.compose.forms.attributes import ATTRIBUTES, Attribute
from controller.core.compose.project import TreePath
from controller.core.compose.text.nodes import PathTable
from controller.core.compose.translation.names import dns_name
from controller.core.compose.translation.scope import TranslationScope, mapping
from controller.core.encoding.quoting import path_text
from controller.model.names import Key

_KINDS = {"networks": "Network", "volumes": "Volume", "configs": "Config", "secrets": "Secret"}
#: Texts that stand for no value of a refused attribute.
_UNSET = frozenset({"", "0", "false", "no", "off", "n"})


def check_attributes(scope: TranslationScope) -> None:
    """Add the problem of each attribute that is refused, unknown, or announced by a warning."""
    for path, row in _rows(ATTRIBUTES, (), scope.project.tree):
        if not _is_as_in_compose(scope, path):
            _judge(scope, path, row)


def _is_as_in_compose(scope: TranslationScope, path: TreePath) -> bool:
    """Return True for the name that Compose gives without a ``name``, and for kept names and subnets."""
    kept = {"networks": scope.extension.keeps_networks, "volumes": scope.extension.keeps_volumes}
    if len(path) > 2 and kept.get(str(path[0])) and path[2] in ("name", "ipam"):
        return True
    if len(path) != 3 or path[2] != "name" or path[0] not in _KINDS:
        return False
    element = mapping(mapping(scope.project.tree.get(str(path[0]))).get(str(path[1])))
    own = f"{scope.project.name}_{path[1]}"
    return element.get("name") == own or bool(element.get("external"))


def _rows(
    table: PathTable[Attribute], path: TreePath, value: object
) -> Iterator[tuple[TreePath, Attribute | None]]:
    """Yield each attribute with something to say, with its row; None for an unknown attribute."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, Mapping):
                yield from _rows(table, (*path, index), item)
    if not isinstance(value, Mapping) or table.is_leaf:
        return
    for name, member in value.items():
        below, inner = table.below(name), (*path, str(name))
        if below is None:
            if not name.startswith("x-"):
                yield inner, None
            continue
        row = below.rule
        if row is not None and (row.refusal or row.warning) and _is_set(member):
            yield inner, row
        if row is None or not (row.whole or row.refusal):
            yield from _rows(below, inner, member)


def _is_set(value: object) -> bool:
    return value.lower() not in _UNSET if isinstance(value, str) else bool(value)


def _judge(scope: TranslationScope, path: TreePath, row: Attribute | None) -> None:
    name = path_text(path[2:] if path[0] == "services" and len(path) > 2 else path)
    if row is None:
        message = f"{name} is no attribute of the Compose Specification that trimtab knows"
        remedy = "correct the name, or begin it with x- for data of your own"
        scope.error(path, "compose.unknown", message, remedy, _key_at(scope, path))
    elif row.refusal:
        message = f"{name} is not supported: {row.refusal}"
        scope.error(path, "compose.refused", message, row.remedy, _key_at(scope, path))
    else:
        message, remedy = f"{name}: {row.warning}", "see docs/compose.md"
        scope.warn(path, "compose.by-policy", message, remedy, _key_at(scope, path))


def _key_at(scope: TranslationScope, path: TreePath) -> Key | None:
    """Return the resource of an element of the project."""
    if len(path) < 2:
        return None
    name = str(path[1])
    if path[0] == "services":
        return scope.key_of(name)
    kind = _KINDS.get(str(path[0]))
    return None if kind is None else Key(kind, scope.namespace, dns_name(name))
