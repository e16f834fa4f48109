"""Checks of ``metadata.moved``: the earlier names of a service.

A wrong claim must cost nothing. So the containers of a claimed name stay as they are while the
document that claims the name has errors.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator

from controller.core.manifests.declaration import Declaration, Metadata, ParsedDocument
from controller.core.manifests.validation_errors import problem_at
from controller.core.yaml.documents import Document, YamlPath
from controller.model.errors import Problem
from controller.model.names import (
    DEFAULT_NAMESPACE,
    NAMESPACE_MAX,
    SERVICE_NAME_MAX,
    WORKLOADS,
    Key,
    is_dns_label,
)

MOVABLE = "Service"
_FORM = "NAME or NAMESPACE/NAME"


def check_moved(document: Document, kind: str, metadata: Metadata) -> Iterator[Problem]:
    """Yield the problems of the earlier names of one document."""
    if metadata.moved and kind != MOVABLE:
        yield problem_at(
            document,
            ("metadata", "moved"),
            "moved.kind",
            f"a {kind} can't be moved; metadata.moved is for kind {MOVABLE}",
            remedy="remove it",
            at_key=True,
        )
        return
    for index, moved in enumerate(metadata.moved):
        source = _key_of(moved.source, kind, metadata.namespace)
        if source is None:
            yield problem_at(
                document,
                _path(index),
                "moved.form",
                f"{json.dumps(moved.source[:80])} is no earlier name of a service",
                expected=_FORM,
                remedy="write the name that the document had before",
            )
        elif source.namespace != metadata.namespace:
            yield problem_at(
                document,
                _path(index),
                "moved.namespace",
                f"a service can't leave its namespace {source.namespace}",
                remedy="remove this earlier name; take the data along with trimtab volume dump and restore",
            )


def moved_of(document: Document, key: Key | None) -> tuple[Key, ...]:
    """Return the valid earlier keys in a document, also in one with errors."""
    match document.value:
        case {"metadata": {"moved": list(entries)}} if key is not None and key.kind == MOVABLE:
            texts = [e.get("from") for e in entries if isinstance(e, dict)]
        case _:
            return ()
    namespace = key.namespace
    keys = (_key_of(text, MOVABLE, namespace) for text in texts if isinstance(text, str))
    return tuple(dict.fromkeys(each for each in keys if each is not None))


def _key_of(text: str, kind: str, namespace: str) -> Key | None:
    head, slash, name = text.rpartition("/")
    place = head if slash else namespace or DEFAULT_NAMESPACE
    if not is_dns_label(name, length=SERVICE_NAME_MAX):
        return None
    return Key(kind, place, name) if is_dns_label(place, length=NAMESPACE_MAX) else None


def _path(index: int) -> YamlPath:
    return ("metadata", "moved", index, "from")


def check_moves(declarations: Iterable[Declaration]) -> Iterator[Problem]:
    """Yield a problem for each impossible earlier name."""
    declarations = tuple(declarations)
    by_key = {declaration.key: declaration for declaration in declarations}
    claims: dict[Key, list[Declaration]] = {}
    for declaration in declarations:
        for source in declaration.moved:
            claims.setdefault(source, []).append(declaration)
    for declaration in declarations:
        for index, source in enumerate(declaration.moved):
            fault = _fault(declaration, source, by_key, claims[source])
            if fault is not None:
                yield declaration.problem(_path(index), *fault)


def _fault(
    declaration: Declaration,
    source: Key,
    by_key: dict[Key, Declaration],
    claimants: list[Declaration],
) -> tuple[str, str, str] | None:
    """Return code, message and remedy of a wrong claim."""
    key = declaration.key
    if source == key:
        return "moved.self", f"{key} is its own earlier name", "write the name that it had before"
    there = by_key.get(source)
    if there is not None and key in _origins(there, by_key):
        message = f"{key} was {source}, and {source} ({there.place}) was {key}: a circle"
        return "moved.cycle", message, "keep the claim of the service that is new"
    if there is not None:
        message = f"{source} is still declared in {there.place}"
        return "moved.declared", message, "remove that document, or this earlier name"
    others = [by_key[k] for kind in WORKLOADS if (k := source._replace(kind=kind)) in by_key]
    if others:
        message = f"{others[0].key} ({others[0].place}) has this name, and a move keeps the kind"
        return "moved.kind", message, "remove this earlier name"
    rivals = [other.place for other in claimants if other is not declaration]
    if rivals:
        message = f"{source} is also claimed in {', '.join(rivals[:5])}"
        return "moved.claimed", message, "keep the claim of the service that goes on"
    return None


def _origins(declaration: Declaration, by_key: dict[Key, Declaration]) -> set[Key]:
    """Return all earlier keys of a declaration, and of the declarations that have these keys."""
    found: set[Key] = set()
    frontier = [declaration]
    while frontier:
        for key in frontier.pop().moved:
            if key not in found:
                found.add(key)
                frontier += [by_key[key]] if key in by_key else []
    return found


def unmoved(readings: Iterable[ParsedDocument], blind_keys: Collection[Key]) -> set[Key]:
    """Return the earlier keys of services whose documents have errors.

    Their containers stay as they are, unless another document declares the key.
    """
    readings = tuple(readings)
    declared = {r.declaration.key for r in readings if r.declaration is not None}
    claimed = {
        key
        for reading in readings
        for key in reading.moved
        if reading.declaration is None or reading.declaration.key in blind_keys
    }
    return claimed - declared
