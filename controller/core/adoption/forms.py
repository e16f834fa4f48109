"""Differences between a running container and its document that adoption may accept, each by a gap.

Four forms can be admitted, each as a gap: files of the project in place of a Config or Secret, ports
on every address, a tmpfs of another size, and a health check that is missing or has other times.
Decision 68 has the attack model. Pure.

Invariant: a form never has another source, another port, another target or another command than the
document names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller.core.encoding.json_values import list_of, mapping_of
from controller.core.encoding.text import quote, shorten
from controller.core.engine_api.grammar import is_clean
from controller.core.engine_api.requests import (
    CreateRequest,
    FileRequest,
    Finding,
    MountRequest,
    PortRequest,
)
from controller.core.files.content import content_id, files_of_archive
from controller.model.confinement import UNLIMITED, Confinement, Gap
from controller.model.delivery import FILE_KINDS
from controller.model.host_paths import is_below

_SHOWN_MAX = 120
#: The addresses of a port that is published without an address.
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, never bound
_CREATED = "let trimtab create the container"
_CHECK = "spec.healthcheck"
_PORTS = "spec.ports"


@dataclass(frozen=True, slots=True)
class FoundForm:
    """A field with another form in the container than in the document."""

    gap: Gap
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class DeclaredFiles:
    """The files of a project, as an operator names them."""

    #: The folder in which docker compose ran; '' if the operator names none.
    folder: str = ""
    #: The declared path of each mounted file or folder, by target. It is relative to the folder; of
    #: a Secret it is the name of the file alone.
    sources: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class FoundContent:
    """Files in a container, with the required content: of the document's Config."""

    config: str
    target: str
    files: FileRequest


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The document's create with the container's form of files."""

    create: dict[str, Any]
    forms: tuple[FoundForm, ...] = ()
    contents: tuple[FoundContent, ...] = ()
    findings: tuple[Finding, ...] = ()


def with_found_files(
    create: Mapping[str, Any],
    existing: CreateRequest,
    project: DeclaredFiles,
    wanted: CreateRequest,
) -> FoundFiles:
    """Return the create *wanted* of a document with the binds of a container in place of files.

    *create* is its body. A mount of files that the container lacks is left out: docker compose
    copies the text of a config into the container.
    """
    found = {mount.target: mount for mount in existing.mounts}
    files = {mount.target: mount for mount in wanted.mounts if mount.files is not None}
    forms, contents, findings = list[FoundForm](), list[FoundContent](), list[Finding]()
    mounts = list[object]()
    for entry in list_of(mapping_of(create.get("HostConfig")).get("Mounts")):
        mount = files.get(str(mapping_of(entry).get("Target") or ""))
        if mapping_of(entry).get("Type") not in FILE_KINDS or mount is None:
            mounts.append(entry)
            continue
        present = found.get(mount.target)
        faults = [*_file_faults(mount, present, project)]
        findings += faults
        if faults:
            continue
        forms.append(_file_form(mount, present))
        if mount.type == "config" and mount.files is not None:
            contents.append(FoundContent(mount.source, mount.target, mount.files))
        if present is not None:
            bind = {"Type": "bind", "Source": present.source, "Target": present.target}
            mounts.append({**bind, "ReadOnly": True} if present.read_only else bind)
    for variable in wanted.variables:
        reason = "the document fills it with a value of a Secret"
        findings.append(Finding("adopt.files", f"spec.env.{variable.name}", reason, _CREATED))
    if not forms and not findings:
        return FoundFiles(dict(create))
    host = {**mapping_of(create.get("HostConfig")), "Mounts": mounts}
    body = {**create, "HostConfig": host}
    return FoundFiles(body, tuple(forms), tuple(contents), tuple(findings))


def _file_form(mount: MountRequest, present: MountRequest | None) -> FoundForm:
    path = f"spec.mounts.{shorten(mount.target, _SHOWN_MAX)}"
    if present is None:
        text = f"it has a file of its own in place of the {mount.type} {quote(mount.source)}"
        return FoundForm(Gap.FILES, path, text)
    source = quote(shorten(present.source, _SHOWN_MAX))
    access = "" if present.read_only else ", writable,"
    text = f"it has {source} of the host{access} in place of the {mount.type} {quote(mount.source)}"
    return FoundForm(Gap.FILES, path, text)


def _file_faults(
    mount: MountRequest, present: MountRequest | None, project: DeclaredFiles
) -> Iterator[Finding]:
    """Yield why a mount of files can't be adopted in the container's form."""
    path = f"spec.mounts.{shorten(mount.target, _SHOWN_MAX)}"
    files = mount.files
    assert files is not None, "mounts of files alone are judged"
    if files.stable:
        reason = f"the {mount.type} {quote(mount.source)} changes without a new container"
        yield Finding("adopt.files", path, reason, f"leave onChange out, or {_CREATED}")
        return
    if files.keys:
        reason = f"the document mounts some files of the {mount.type} {quote(mount.source)}"
        yield Finding("adopt.files", path, reason, f"mount all of them, or {_CREATED}")
        return
    if present is None:
        if mount.type == "secret":
            reason = f"the container lacks the secret {quote(mount.source)}"
            yield Finding("adopt.files", path, reason, _CREATED)
        return
    if present.type != "bind":
        reason = f"it has a {present.type}, and the document the {mount.type} {quote(mount.source)}"
        yield Finding("adopt.files", path, reason, _CREATED)
        return
    if mount.type == "secret" and not present.read_only:
        reason = f"it can write to the file of the secret {quote(mount.source)}"
        yield Finding("adopt.files", path, reason, _CREATED)
    fault = _source_fault(mount, present.source, project)
    if fault:
        shown = quote(shorten(present.source, _SHOWN_MAX))
        remedy = f"name the folder in which docker compose ran with --from FOLDER, or {_CREATED}"
        yield Finding("adopt.files", path, f"it has {shown} of the host, {fault}", remedy)


def _source_fault(mount: MountRequest, source: str, project: DeclaredFiles) -> str:
    """Return the difference of a source from the declared source; '' without a difference."""
    folder, declared = project.folder, (project.sources or {}).get(mount.target)
    if not folder:
        return "and no folder of the project is named"
    if not is_clean(source) or not is_below(source, folder):
        return f"which isn't in the folder {quote(shorten(folder, _SHOWN_MAX))}"
    if declared is None:
        return f"and the {mount.type} is declared by no file"
    is_declared = (
        source.rpartition("/")[2] == declared
        if mount.type == "secret"
        else source == (f"{folder}/{declared}" if declared != "." else folder)
    )
    return "" if is_declared else f"and the declared file is {quote(shorten(declared, _SHOWN_MAX))}"


def judge_content(found: FoundContent, archive: bytes) -> Iterator[Finding]:
    """Yield a finding if the files of a container differ from the document's Config.

    *archive* is the engine's archive of the target.
    """
    path = f"spec.mounts.{shorten(found.target, _SHOWN_MAX)}"
    files = files_of_archive(archive, file=found.files.key)
    if files is None:
        reason = "it has something other than plain files there, or too many of them"
    elif content_id(files) != found.files.content:
        reason = f"its files differ from the config {quote(found.config)}"
    else:
        return
    remedy = f"bring the file in the directory to what the container has, or {_CREATED}"
    yield Finding("adopt.files", path, reason, remedy)


def found_forms(existing: CreateRequest, document: CreateRequest) -> Iterator[FoundForm]:
    """Yield the ports and sizes with a wider form in the container than in the document."""
    if existing.ports and _is_wider(existing.ports, document.ports):
        shown = ", ".join(f"{p.host_text}:{p.container}/{p.protocol}" for p in existing.ports)
        then = " and ".join(dict.fromkeys(port.host_ip for port in document.ports))
        text = (
            f"it publishes {shorten(shown, _SHOWN_MAX)} on every address of the host, and the next "
            f"container on {then}"
        )
        yield FoundForm(Gap.PORTS, _PORTS, text)
    found = {mount.target: mount for mount in existing.mounts if mount.type == "tmpfs"}
    for mount in document.mounts:
        present = found.get(mount.target)
        if mount.type == "tmpfs" and present is not None and present.size != mount.size:
            size = f"{present.size} bytes" if present.size else "no size"
            text = f"its tmpfs has {size}, and the document's {mount.size} bytes"
            path = f"spec.mounts.{mount.target}"
            yield FoundForm(Gap.TMPFS, path, text)


def _is_wider(found: Iterable[PortRequest], document: Iterable[PortRequest]) -> bool:
    """Return True if only addresses differ, and the found ports are open on every address."""
    mine, theirs = sorted(found, key=_number), sorted(document, key=_number)
    if [*map(_number, mine)] != [*map(_number, theirs)]:
        return False
    pairs = [
        (one.host_ip, other.host_ip)
        for one, other in zip(mine, theirs, strict=True)
        if not _is_same(one.host_ip, other.host_ip)
    ]
    return bool(pairs) and all(one in _EVERYWHERE for one, _ in pairs)


def _number(port: PortRequest) -> tuple[int, str, str]:
    return port.container, port.protocol, port.host_text


def _is_same(found: str, document: str) -> bool:
    return found == document or (found in _EVERYWHERE and document in _EVERYWHERE)


def take_forms(
    found: Mapping[str, object], document: Mapping[str, object], forms: Iterable[FoundForm]
) -> tuple[dict[str, object], list[FoundForm]]:
    """Return the document's fields in the container's form, and the forms, with the health check's.

    Both sides are compared fields (``core.adoption.likeness``). A tmpfs keeps all but its size.
    """
    taken, seen = dict(document), list[FoundForm]()
    for form in forms:
        now, then = found.get(form.path), document.get(form.path)
        if form.gap is Gap.PORTS or (
            form.gap is Gap.TMPFS and _without_size(now) == _without_size(then)
        ):
            taken[form.path] = now
            seen.append(form)
        elif form.gap is Gap.FILES:
            seen.append(form)
    now, then = found.get(_CHECK), document.get(_CHECK)
    if now != then and isinstance(then, tuple):
        if now is None:
            taken[_CHECK] = now
            seen.append(FoundForm(Gap.HEALTHCHECK, _CHECK, "it has no health check"))
        elif isinstance(now, tuple) and now[0] == then[0]:
            taken[_CHECK] = now
            text = "the times or retries of its health check differ from the document's"
            seen.append(FoundForm(Gap.HEALTHCHECK, _CHECK, text))
    return taken, seen


#: The place of the size in a compared mount.
_SIZE_AT = 4


def _without_size(mount: object) -> object:
    is_mount = isinstance(mount, tuple) and len(mount) > _SIZE_AT
    return (*mount[:_SIZE_AT], *mount[_SIZE_AT + 1 :]) if is_mount else mount  # type: ignore[index]


def with_found_sizes(confined: Confinement, existing: CreateRequest) -> Confinement:
    """Return a confinement with the sizes of the tmpfs that a container has."""
    found = {mount.target: mount.size for mount in existing.mounts if mount.type == "tmpfs"}
    mounts = tuple(
        replace(mount, size=found[mount.target] or UNLIMITED)
        if mount.type == "tmpfs" and mount.target in found
        else mount
        for mount in confined.mounts
    )
    return replace(confined, mounts=mounts)


def found_ports(existing: CreateRequest) -> tuple[str, ...]:
    """Return the ports of a container in the form of a create's summary."""
    return tuple(
        f"{each.host_ip or '0.0.0.0'}:{each.host_text}:{each.container}/{each.protocol}"  # noqa: S104
        for each in existing.ports
    )
