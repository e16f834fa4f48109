"""A project as documents: trees as a person would write them, each value with its place.

The documents pass through the parser and the checks of all documents. A problem names the line of the
Compose file.

The walk over all attributes of a project: each has a row in the table, and refused ones are problems.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.core.compose.attributes import ATTRIBUTES, Attribute
from controller.core.compose.nodes import PathTable
from controller.core.compose.project import EXTENSION, ComposeProject, TreePath
from controller.core.compose.translation import container
from controller.core.compose.translation.mounts import MountPlan, file_of, put_mounts
from controller.core.compose.translation.networking import networks_of, put_networking
from controller.core.compose.translation.rollout import put_rollout, put_steps
from controller.core.compose.translation.scope import (
    SECRET_COPY,
    ComposeSettings,
    Draft,
    LookUp,
    ReadContext,
    TranslationScope,
    Tree,
    dns_name,
    items,
    mapping,
    mistakes_of,
    no_context,
)
from controller.core.encoding.text import path_text
from controller.core.engine_api.requests import MACVLAN, read_remote
from controller.core.manifests.declaration import ParsedDocument
from controller.core.manifests.parse import parse_document
from controller.core.yaml.documents import Document, YamlPath
from controller.model.errors import Problem, Severity, SourcePosition, ValuePlaces
from controller.model.names import API_VERSION, Key
from controller.model.quantities import KIB, format_bytes, parse_size

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


#: The broker's folder of plain secrets on the host.
_ON_HOST: Final = "/etc/trimtab/secrets"
#: The depths of the fields in ``TRACED``, with ``spec``.
_TRACED_DEPTHS: Final = (2, 3)


@dataclass(frozen=True, slots=True)
class Translation:
    """The documents of a project, and the problems of the project."""

    namespace: str
    documents: tuple[Document, ...]
    #: Problems of single resources, by their keys, and of the project.
    problems: tuple[Problem, ...]


def translate(
    project: ComposeProject,
    settings: ComposeSettings,
    look: LookUp,
    read_context: ReadContext = no_context,
) -> Translation:
    """Return the documents of a project. Never raises.

    A project with errors in its files, or in ``x-trimtab``, has no documents: nothing follows from the
    absence of a service.
    """
    scope = TranslationScope(project, settings, look, read_context)
    if not project.valid:
        return Translation(scope.namespace, (), project.problems)
    _check_extension(scope)
    if scope.problems:
        return Translation(scope.namespace, (), (*project.problems, *scope.problems))
    check_attributes(scope)
    joined = _joined(scope)
    for name in mapping(project.tree.get("networks")):
        _network(scope, name, joined.get(name, []))
    for name in mapping(project.tree.get("volumes")):
        _volume(scope, name)
    for name in mapping(project.tree.get("configs")):
        _config(scope, name)
    for name in mapping(project.tree.get("secrets")):
        _secret(scope, name)
    _check_secret_files(scope)
    plan = MountPlan(scope)
    for name in scope.services:
        work = container.Workload(scope, name)
        for part in (container.put_container, put_rollout, put_networking):
            part(work)
        if container.is_built(work):
            container.put_build(work)
        put_mounts(work, plan)
        scope.drafts.append(work.draft)
        put_steps(work)
    _check_names(scope)
    documents = tuple(_document(scope, draft) for draft in scope.drafts)
    scope.count_left_out()
    return Translation(scope.namespace, documents, (*project.problems, *scope.problems))


def parsed_documents(
    translation: Translation,
) -> tuple[tuple[ParsedDocument, ...], tuple[Problem, ...]]:
    """Return the parsed documents of a project, and the problems outside of the documents.

    A resource with an error is left unchanged. An error without a resource blinds the source.
    """
    by_key: dict[Key | None, list[Problem]] = {}
    for problem in translation.problems:
        by_key.setdefault(problem.key, []).append(problem)
    documents = []
    for document in translation.documents:
        parsed = parse_document(document)
        key = parsed.declaration.key if parsed.declaration is not None else parsed.key
        own = by_key.pop(key, []) if key is not None else []
        documents.append(_with_problems(parsed, own))
    others = []
    for key, problems in by_key.items():
        if any(problem.severity is Severity.ERROR for problem in problems):
            documents.append(ParsedDocument(None, tuple(problems), key))
        else:
            others += problems
    return tuple(documents), tuple(others)


def _with_problems(parsed: ParsedDocument, problems: list[Problem]) -> ParsedDocument:
    if not problems:
        return parsed
    is_broken = any(problem.severity is Severity.ERROR for problem in problems)
    # A refused attribute has no field, so the problem of the missing field says nothing new.
    others = (p for p in parsed.problems if not (is_broken and p.code == "field.missing"))
    found = (*problems, *others)
    if is_broken and parsed.declaration:
        key = parsed.declaration.key
        return ParsedDocument(None, found, key, partial=parsed.declaration)
    return replace(parsed, problems=found)


def _check_extension(scope: TranslationScope) -> None:
    for mistake in mistakes_of(scope.project):
        path = (EXTENSION,) if mistake.member is None else (EXTENSION, mistake.member)
        scope.error(path, "compose.value", mistake.message, mistake.remedy, None)


def _joined(scope: TranslationScope) -> Mapping[str, list[Tree]]:
    """Return, for each network, the terms of the services in the network."""
    found: dict[str, list[Tree]] = {}
    for tree in map(mapping, scope.services.values()):
        if not tree.get("network_mode"):
            for name, terms in networks_of(tree).items():
                found.setdefault(name, []).append(terms)
    return found


def _network(scope: TranslationScope, name: str, joined: Sequence[Tree]) -> None:
    declared = mapping(mapping(scope.project.tree["networks"])[name])
    key = Key("Network", scope.namespace, dns_name(name))
    driver = declared.get("driver")
    if driver not in (None, "", "bridge", "default", MACVLAN):
        message = f"network driver {driver} is not supported: networks are bridges of this host"
        scope.error(("networks", name, "driver"), "compose.refused", message, "remove it", key)
    for option in mapping(declared.get("driver_opts")):
        if driver != MACVLAN or option != "parent":
            message = "options of the driver can open ways around the gate"
            place = ("networks", name, "driver_opts", option)
            scope.error(place, "compose.refused", message, "remove it", key)
    is_kept = scope.extension.keeps_networks and not declared.get("external")
    # Docker Compose makes no network that no service joins.
    if not scope.is_declared(name) or (is_kept and not joined):
        return
    draft = Draft("Network", key.name, ("networks", name))
    if declared.get("external"):
        draft.put("spec.engineName", engine_name(name, declared), "external")
    elif is_kept:
        draft.put("spec.engineName", scope.name_by_compose(name, declared), "name")
    draft.put("spec.internal", bool(declared.get("internal")), "internal")
    _put_subnets(draft, declared, joined)
    _put_labels(draft, declared.get("labels"))
    scope.drafts.append(draft)


def _put_subnets(draft: Draft, declared: Tree, joined: Sequence[Tree]) -> None:
    """Put the subnets that matter: for a chosen address, and for IPv6. Else the engine chooses."""
    pools = [mapping(each) for each in items(mapping(declared.get("ipam")).get("config"))]
    chosen = [str(address) for terms in joined if (address := terms.get("ipv4_address"))]
    parent = mapping(declared.get("driver_opts")).get("parent")
    if declared.get("driver") == MACVLAN:
        draft.put("spec.macvlan", parent, ("driver_opts", "parent"))
    for index, pool in enumerate(pools):
        subnet, origin = str(pool.get("subnet") or ""), ("ipam", "config", index, "subnet")
        if ":" in subnet and declared.get("enable_ipv6"):
            draft.put("spec.ipv6Subnet", subnet, origin)
        elif subnet and ":" not in subnet and (chosen or parent):
            draft.put("spec.subnet", subnet, origin)
        if parent and ":" not in subnet:
            # A single address is the whole range.
            alone = f"{chosen[0]}/32" if len(chosen) == 1 else None
            for field, value in (
                ("ipRange", pool.get("ip_range") or alone),
                ("gateway", pool.get("gateway")),
            ):
                if value:
                    draft.put(f"spec.{field}", value, origin)


def engine_name(name: str, declared: Tree) -> str:
    """Return the name on the engine of an external volume or network."""
    return str(mapping(declared.get("external")).get("name") or declared.get("name") or name)


def _volume(scope: TranslationScope, name: str) -> None:
    declared = mapping(mapping(scope.project.tree["volumes"])[name])
    key = Key("Volume", scope.namespace, dns_name(name))
    driver = declared.get("driver")
    if driver not in (None, "", "local"):
        message = f"volume driver {driver} is not supported: volumes are folders of this host"
        scope.error(("volumes", name, "driver"), "compose.refused", message, "remove it", key)
    draft = Draft("Volume", key.name, ("volumes", name))
    if declared.get("external"):
        draft.put("spec.engineName", engine_name(name, declared), "external")
    elif scope.extension.keeps_volumes:
        draft.put("spec.engineName", scope.name_by_compose(name, declared), "name")
    _put_size(scope, draft, key, mapping(declared.get("driver_opts")))
    _put_labels(draft, declared.get("labels"))
    scope.drafts.append(draft)


def _put_size(scope: TranslationScope, draft: Draft, key: Key, options: Tree) -> None:
    """Put the size of a volume, or its folder of another machine, and refuse other options."""
    if options.get("type") in ("nfs", "nfs4", "cifs"):
        _put_remote(scope, draft, key, options)
        return
    for option, value in options.items():
        place = (*draft.origin, "driver_opts", option)
        if option != "size":
            message = (
                f"option {option} of a volume is not supported: it can mount any folder of the host"
            )
            remedy = "remove it, and mount the folder as a bind that the policy allows"
            scope.error(place, "compose.refused", message, remedy, key)
        elif (size := parse_size(str(value).strip())) is None or size % KIB:
            message = "the size of a volume must be a multiple of 1024 bytes, such as 512m or 10g"
            scope.error(place, "compose.value", message, "write a size such as 10g", key)
        elif size:  # the engine takes 0 for no limit
            draft.put("spec.size", format_bytes(size), ("driver_opts", option))


def _put_remote(scope: TranslationScope, draft: Draft, key: Key, options: Tree) -> None:
    found = read_remote({name: str(value) for name, value in options.items()})
    if isinstance(found, str):
        place = (*draft.origin, "driver_opts")
        scope.error(place, "compose.refused", found, "see docs/volumes.md", key)
        return
    draft.put(
        "spec.remote",
        {
            "type": found.type,
            "server": found.server,
            "path": found.path,
            **({"options": list(found.options)} if found.options else {}),
        },
        "driver_opts",
    )


def _config(scope: TranslationScope, name: str) -> None:
    declared = mapping(mapping(scope.project.tree["configs"])[name])
    if declared.get("external"):
        return
    draft = Draft("Config", dns_name(name), ("configs", name))
    _, key = file_of(name, declared)
    if variable := declared.get("environment"):
        value = scope.project.config_values.get(str(variable))
        if value is None:
            message = f"the variable {variable} is not set: trimtab's own environment never counts"
            at = Key("Config", scope.namespace, draft.name)
            remedy = f"set {variable} in .env"
            scope.error(("configs", name, "environment"), "compose.no-value", message, remedy, at)
            return
        draft.put("spec.data", {key: value}, "environment")
    elif declared.get("content") is not None:
        draft.put("spec.data", {key: str(declared["content"])}, "content")
    else:
        draft.put("spec.files", {key: posixpath.normpath(str(declared.get("file") or ""))}, "file")
    _put_labels(draft, declared.get("labels"))
    scope.drafts.append(draft)


def _secret(scope: TranslationScope, name: str) -> None:
    declared = mapping(mapping(scope.project.tree["secrets"])[name])
    if declared.get("external") or declared.get("environment"):
        return
    draft = Draft("Secret", dns_name(name), ("secrets", name))
    path = str(declared.get("file") or name)
    file = posixpath.basename(path)
    draft.put("spec.file", {name: file}, "file")
    on_host = f"{_ON_HOST}/{scope.namespace}/{file}"
    if path != on_host:
        message = (
            f"the secret {name} is read from {on_host} by the broker: {path} itself isn't read"
        )
        remedy = (
            f"copy it there: sudo install -m 600 -D {shlex.quote(path)} {shlex.quote(on_host)}; or keep an "
            f"encrypted one in the repository (`trimtab secret encrypt`): a document of kind Secret with the name "
            f"{draft.name}, and external: true here"
        )
        key = Key("Secret", scope.namespace, draft.name)
        scope.warn(("secrets", name, "file"), SECRET_COPY, message, remedy, key)
    _put_labels(draft, declared.get("labels"))
    scope.drafts.append(draft)


def _check_secret_files(scope: TranslationScope) -> None:
    """Add the error of each secret that the broker would read from the file of another secret."""
    taken: dict[str, tuple[str, str]] = {}
    for name, value in mapping(scope.project.tree.get("secrets")).items():
        path = str(mapping(value).get("file") or "")
        file = posixpath.basename(path)
        other, of_other = taken.setdefault(file, (name, path))
        if path and path != of_other:
            message = f"{path} and {of_other} of {other} are one file, {file}, for the broker"
            key = Key("Secret", scope.namespace, dns_name(name))
            remedy = "rename one of the files"
            scope.error(("secrets", name, "file"), "compose.name-clash", message, remedy, key)


def _put_labels(draft: Draft, labels: object) -> None:
    if written := {name: str(value) for name, value in mapping(labels).items()}:
        draft.labels.update(written)
        draft.origins["metadata", "labels"] = (*draft.origin, "labels")


def _check_names(scope: TranslationScope) -> None:
    """Add the error of each element whose name can't be told from another's."""
    taken: dict[tuple[str, str], Draft] = {}
    for draft in scope.drafts:
        kind = "Service" if draft.kind == "Job" else draft.kind
        other = taken.setdefault((kind, draft.name), draft)
        if other is draft or other.origin == draft.origin:
            continue
        for one, two in ((draft, other), (other, draft)):
            message = (
                f"{_shown(one)} and {_shown(two)} have one name, {draft.name}: names are lower case, "
                "with '-' for '_' and '.'"
            )
            key = Key(one.kind, scope.namespace, one.name)
            scope.error(one.origin, "compose.name-clash", message, "rename one of them", key)


def _shown(draft: Draft) -> str:
    """Return the element of a draft as people call it."""
    _, name, *step = draft.origin
    return f"{path_text(tuple(step))} of {name}" if step else str(name)


def _document(scope: TranslationScope, draft: Draft) -> Document:
    """Return a draft as a document. Its places are those of the values in the project's files."""
    metadata: dict[str, object] = {
        "name": draft.name,
        "namespace": scope.namespace,
        "owner": scope.owner,
    }
    if draft.labels:
        metadata["labels"] = draft.labels
    value: dict[str, object] = {
        "apiVersion": API_VERSION,
        "kind": draft.kind,
        "metadata": metadata,
        **({"spec": draft.spec} if draft.spec else {}),
    }
    origins: dict[YamlPath, TreePath] = {
        (): draft.origin,
        ("metadata", "owner"): (EXTENSION, "owner"),
        **draft.origins,
    }
    places = ((path, scope.place(origin)) for path, origin in origins.items())
    entries = tuple((path, SourcePosition(at.line, at.column, at.file)) for path, at in places)
    own = entries[0][1]
    lines = {
        path: place.line
        for path, place in entries
        if len(path) in _TRACED_DEPTHS and place.file == own.file
    }
    return Document(
        own.file, "", own.line, value, place=own, lines=lines, places=ValuePlaces(entries)
    )
