"""The walk over all attributes of a project: each has a row in the table, and refused ones are problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controller.core.compose.attributes.table import (
    ATTRIBUTES,
    Attribute,
    Treatment,
    attribute_at,
)
from controller.core.compose.project import TreePath
from controller.core.compose.translation.names import dns_name
from controller.core.compose.translation.scope import TranslationScope, mapping
from controller.core.encoding.quoting import path_text
from controller.model.names import Key

_KINDS = {"networks": "Network", "volumes": "Volume", "configs": "Config", "secrets": "Secret"}
_PARENTS = frozenset(path.rpartition(".")[0] for path in ATTRIBUTES)
_NAMED = frozenset(path.removesuffix(".*") for path in _PARENTS if path.endswith(".*"))


def check_attributes(scope: TranslationScope) -> None:
    """Add the problem of each attribute that is refused, unknown, or announced by a warning."""
    for name, value in scope.project.tree.items():
        for path, row in _rows((name,), name, value):
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
    path: TreePath, pattern: str, value: object
) -> Iterator[tuple[TreePath, Attribute | None]]:
    """Yield each attribute that has a value, with its row; None for an unknown attribute."""
    if isinstance(path[-1], str) and path[-1].startswith("x-") and pattern != "x-trimtab":
        return
    if not pattern.endswith(".*"):
        row = attribute_at(pattern)
        is_refused = row is not None and row.treatment is Treatment.REFUSED
        if row is None or (value and (is_refused or row.warns)):
            yield path, row
        if row is None or row.whole or is_refused:
            return
    yield from _below(path, pattern, value)


def _below(
    path: TreePath, pattern: str, value: object
) -> Iterator[tuple[TreePath, Attribute | None]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, Mapping):
                yield from _below((*path, index), pattern, item)
    elif isinstance(value, Mapping) and (pattern in _PARENTS or pattern in _NAMED):
        for name, member in value.items():
            inner = f"{pattern}.*" if pattern in _NAMED else f"{pattern}.{name}"
            yield from _rows((*path, str(name)), inner, member)


def _judge(scope: TranslationScope, path: TreePath, row: Attribute | None) -> None:
    name = path_text(path[2:] if path[0] == "services" and len(path) > 2 else path)
    if row is None:
        message = f"{name} is no attribute of the Compose Specification that trimtab knows"
        remedy = "correct the name, or begin it with x- for data of your own"
        scope.error(path, "compose.unknown", message, remedy, _key_at(scope, path))
    elif row.treatment is Treatment.REFUSED:
        message = f"{name} is not supported: {row.text}"
        scope.error(path, "compose.refused", message, row.instead, _key_at(scope, path))
    else:
        remedy = "see docs/compose.md"
        scope.warn(path, "compose.by-policy", f"{name}: {row.text}", remedy, _key_at(scope, path))


def _key_at(scope: TranslationScope, path: TreePath) -> Key | None:
    """Return the resource of an element of the project."""
    if len(path) < 2:
        return None
    name = str(path[1])
    if path[0] == "services":
        return scope.key_of(name)
    kind = _KINDS.get(str(path[0]))
    return None if kind is None else Key(kind, scope.namespace, dns_name(name))
