"""Mounts of files in services: their faults, and the deliveries for mounts."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.core.yaml.documents import YamlPath
from controller.model.delivery import Delivery, Variant
from controller.model.desired.desired import BoundName
from controller.model.desired.spec.mounts import FileMount, SecretVariable
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem
from controller.model.names import SERVICE_NAME_MAX, Key, is_dns_label

#: The kind of the document for each supported type of mount.
KINDS = {"config": "Config", "secret": "Secret"}
_NUMERIC = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?", re.ASCII)
_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class KnownContent:
    """The content of a declared Config, as far as mounts depend on it."""

    owner: str
    content: str
    keys: frozenset[str]


class DeclaredService(Protocol):
    """A declared service, with the places of its fields."""

    @property
    def key(self) -> Key: ...
    @property
    def owner(self) -> str: ...
    def problem(self, path: YamlPath, code: str, message: str, remedy: str) -> Problem: ...


def file_mounts(spec: ServiceSpec) -> Iterator[tuple[int, FileMount]]:
    """Yield the mounts of files, with their places in the list of mounts."""
    for index, mount in enumerate(spec.mounts):
        if isinstance(mount, FileMount) and mount.type in KINDS:
            yield index, mount


def mount_of(variable: SecretVariable) -> FileMount:
    """Return the mount that would need the same content as a variable."""
    return FileMount(type="secret", source=variable.secret, target="/env", key=variable.key)


def source_key(mount: FileMount, namespace: str) -> Key:
    """Return the key of the Config or Secret of a mount."""
    return Key(KINDS[mount.type], namespace, mount.source)


def check_mounts(
    services: Iterable[tuple[DeclaredService, ServiceSpec]],
    known: Mapping[Key, KnownContent],
    broken: Collection[Key],
) -> Iterator[Problem]:
    """Yield the mounts without a usable content. Each such problem blinds its service."""
    for service, spec in services:
        for index, mount in file_mounts(spec):
            fault = _fault(service, mount, known, broken)
            if fault is not None:
                member, code, message, remedy = fault
                yield service.problem(("spec", "mounts", index, member), code, message, remedy)
        for name, variable in spec.secrets_of_env.items():
            fault = _fault(service, mount_of(variable), known, broken)
            if fault is not None:
                member, code, message, remedy = fault
                path = ("spec", "env", name, "key" if member == "key" else "secret")
                yield service.problem(path, code, message, remedy)


def _fault(
    service: DeclaredService,
    mount: FileMount,
    known: Mapping[Key, KnownContent],
    broken: Collection[Key],
) -> tuple[str, str, str, str] | None:
    """Return the member, code, message and remedy of a mount's fault; None if it has none."""
    key = source_key(mount, service.key.namespace)
    code = mount.type
    if not is_dns_label(mount.source, length=SERVICE_NAME_MAX):
        message = f"{json.dumps(mount.source[:80])} is not a valid name of a {key.kind}"
        return "source", f"{code}.name", message, f"name a {key.kind} of this namespace"
    if key in broken:
        message = f"the document of {key} has errors"
        return "source", f"{code}.broken", message, "correct that document"
    content = known.get(key)
    if content is None:
        others = sorted(k.name for k in known if (k.kind, k.namespace) == (key.kind, key.namespace))
        remedy = f"declare a document of kind {key.kind} called {mount.source}"
        remedy += f", or use {', '.join(others[:_NAMED_MAX])}" if others else ""
        return "source", f"{code}.undeclared", f"{key} is not declared", remedy
    if content.owner != service.owner:
        message = f"{key} belongs to {content.owner}, and this service to {service.owner}"
        return "source", f"{code}.owner", message, "give both one owner, or declare a copy"
    chosen = (mount.key,) if mount.key is not None else mount.keys or ()
    missing = next((name for name in chosen if name not in content.keys), None)
    if missing is not None:
        message = f"{key} has no file {json.dumps(missing)}"
        names = ", ".join(sorted(content.keys)[:_NAMED_MAX])
        member = "key" if mount.key is not None else "keys"
        return member, f"{code}.key", message, f"name one of {names}" if names else "add the file"
    return None


def deliveries_of(
    spec: ServiceSpec, namespace: str, known: Mapping[Key, KnownContent]
) -> tuple[Delivery, ...]:
    """Return the deliveries of a service's mounts and variables. Each has a content."""
    mounted = tuple(
        Delivery(
            kind=mount.type,
            name=mount.source,
            content=known[source_key(mount, namespace)].content,
            target=mount.target,
            variant=variant_of(mount, spec.user),
            key=mount.key or "",
            on_change=mount.reaction,
        )
        for _, mount in file_mounts(spec)
    )
    variables = tuple(
        Delivery(
            kind="secret",
            name=variable.secret,
            content=known[Key("Secret", namespace, variable.secret)].content,
            target="",
            key=variable.key,
            variable=name,
        )
        for name, variable in spec.secrets_of_env.items()
    )
    return mounted + variables


def has_files(spec: ServiceSpec) -> bool:
    """Return True if a service mounts files, or has variables with values of Secrets."""
    return bool(spec.secrets_of_env) or any(True for _ in file_mounts(spec))


def variant_of(mount: FileMount, user: str | None) -> Variant:
    """Return the variant that a mount asks for.

    By default the files belong to the service's numeric user, who alone reads them, else to root,
    readable for all.
    """
    match = _NUMERIC.fullmatch(user or "")
    uid = int(match[1]) if match else 0
    gid = int(match[2] or 0) if match else 0
    uid = mount.uid if mount.uid is not None else uid
    gid = mount.gid if mount.gid is not None else gid
    mode = int(mount.mode, 8) if mount.mode is not None else 0o400 if uid else 0o444
    return Variant(uid, gid, mode, tuple(sorted(mount.keys or ())))


def revision_contents(
    deliveries: Iterable[Delivery], bound_names: Iterable[BoundName] = ()
) -> tuple[tuple[str, str, str], ...]:
    """Return the references that are part of a service's revision: kind, name and referent.

    The referent is a content of files, or the engine's name of an adopted volume or network.
    """
    parts = {(d.kind, d.name, d.content) for d in deliveries if not d.is_stable}
    parts |= {(bound.kind, bound.name, bound.engine_name) for bound in bound_names}
    return tuple(sorted(parts))
