"""The documents of a proven commit, as the controller reads them from the exported folder."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from controller.core.compose.project import COMPOSE_FILE, DOCUMENT_FIELDS
from controller.core.compose.projects import (
    ComposeReading,
    ProjectNames,
    compose_folders,
    project_folders,
    read_one,
    read_together,
)
from controller.core.compose.translation.settings import ComposeSettings
from controller.core.encoding.yaml import MAX_BYTES, decode, too_big
from controller.core.manifests.declaration import Declaration, FolderReading, ParsedDocument
from controller.core.manifests.parse import read_text
from controller.core.proofs.proven_charts import is_read, render_releases
from controller.core.proofs.proven_files import ProvenFiles
from controller.model.desired.desired import SourceIdentity
from controller.model.desired.spec.files import ConfigSpec, SecretSpec
from controller.model.errors import Problem
from controller.model.files.delivery import FILE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class DocumentScope:
    """The source of the documents, and the policy's choices for Compose projects."""

    source: str
    #: The name of the exported folder.
    folder: str = ""
    compose: ComposeSettings = field(default_factory=ComposeSettings)


def read_documents(
    files: Mapping[str, bytes], charts: Mapping[str, bytes], scope: DocumentScope
) -> FolderReading:
    """Return the documents of the files, of the Compose projects among them, and of the Releases."""
    names = [path for path in sorted(files) if is_read(path)]
    projects = _read_projects(
        files, [path for path in names if COMPOSE_FILE.fullmatch(path)], scope
    )
    documents: list[ParsedDocument] = []
    for path in names:
        if COMPOSE_FILE.fullmatch(path):
            continue
        content, name = files[path], f"{scope.source}:{path}"
        if len(content) > MAX_BYTES:
            documents.append(ParsedDocument(None, (too_big(name),), None))
        elif DOCUMENT_FIELDS.search(content) or not projects.has_part(path):
            folder = posixpath.dirname(path)
            read = read_text(decode(content), name)
            documents += (_with_files(document, folder, files) for document in read)
    documents += (_with_files(document, "", files) for document in projects.documents)
    rendered = render_releases(documents, charts, f"{scope.source}:")
    documents += [_with_files(document, folder, beside) for document, folder, beside in rendered]
    identity = SourceIdentity("proof", present=True, documents=len(documents))
    return FolderReading(tuple(documents), identity, projects.problems)


def _read_projects(
    files: Mapping[str, bytes], names: list[str], scope: DocumentScope
) -> ComposeReading:
    if not names:
        return ComposeReading()
    port, shown = ProvenFiles(files, scope.folder), ProjectNames(scope.folder, f"{scope.source}:")
    folders = compose_folders(names)
    projects = {
        folder: read_one(folder, port, scope.compose, shown) for folder in project_folders(folders)
    }
    return read_together(projects, folders, shown)


def _with_files(
    document: ParsedDocument, folder: str, files: Mapping[str, bytes]
) -> ParsedDocument:
    """Return a Config's document with the named files."""
    declaration = document.declaration
    if declaration is None:
        return document
    if isinstance(declaration.spec, SecretSpec) and declaration.spec.sops is not None:
        return _with_sops(document, declaration, declaration.spec.sops, folder, files)
    if not isinstance(declaration.spec, ConfigSpec):
        return document
    if not declaration.spec.files:
        return document
    found: dict[str, bytes] = {}
    for name, path in declaration.spec.files.items():
        content = _content(path, folder, files)
        if content is None:
            problem = _missing(declaration, name)
            found_problems = (*document.problems, problem)
            return ParsedDocument(
                None, found_problems, declaration.key, document.release, declaration
            )
        found[name] = content
    read = replace(declaration, files=tuple(sorted(found.items())))
    return replace(document, declaration=read)


def _content(path: str, folder: str, files: Mapping[str, bytes]) -> bytes | None:
    content = files.get(posixpath.normpath(posixpath.join(folder, path)))
    is_usable = content is not None and not path.startswith("/") and len(content) <= FILE_BYTES_MAX
    return content if is_usable else None


def _with_sops(
    document: ParsedDocument,
    declaration: Declaration,
    path: str,
    folder: str,
    files: Mapping[str, bytes],
) -> ParsedDocument:
    """Return a Secret's document with its SOPS file."""
    content = _content(path, folder, files)
    if content is not None:
        read = replace(declaration, files=((posixpath.basename(path), content),))
        return replace(document, declaration=read)
    message = f"{posixpath.basename(path)} isn't in the commit"
    problem = declaration.problem(("spec", "sops"), "secret.unreadable", message, "")
    found = (*document.problems, problem)
    return ParsedDocument(None, found, declaration.key, document.release, declaration)


def _missing(declaration: Declaration, name: str) -> Problem:
    path = ("spec", "files", name)
    return declaration.problem(path, "config.unreadable", f"{name} isn't in the commit", "")
