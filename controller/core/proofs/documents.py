"""The documents of a proven commit, as the controller reads them from the exported folder."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

from controller.core.charts.chart import RenderLimit
from controller.core.compose.project import COMPOSE_FILE
from controller.core.compose.projects import (
    ComposeReading,
    ProjectNames,
    compose_folders,
    project_folders,
    read_one,
    read_together,
    read_within,
)
from controller.core.compose.translation.settings import ComposeSettings
from controller.core.manifests.declaration import FolderReading, ParsedDocument
from controller.core.manifests.named_files import files_named_by, is_of_trimtab, with_named_files
from controller.core.manifests.parse import read_text
from controller.core.proofs.proven_charts import is_read, render_releases
from controller.core.proofs.proven_files import ProvenFiles
from controller.core.yaml.documents import decode
from controller.core.yaml.file_limit import MAX_BYTES, too_big
from controller.model.desired.desired import SourceIdentity
from controller.model.errors import Problem
from controller.model.files.delivery import FILE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class DocumentScope:
    """The source of the documents, and the policy's choices for Compose projects."""

    source: str
    #: The name of the exported folder.
    folder: str = ""
    compose: ComposeSettings = field(default_factory=ComposeSettings)
    #: Bounds the rendering of one Release.
    limit: RenderLimit = nullcontext


def read_documents(
    files: Mapping[str, bytes], charts: Mapping[str, bytes], scope: DocumentScope
) -> FolderReading:
    """Return the documents of the files, of the Compose projects among them, and of the Releases."""
    names = [path for path in sorted(files) if is_read(path)]
    projects = _read_projects(
        files, [path for path in names if COMPOSE_FILE.fullmatch(path)], scope
    )
    documents: list[ParsedDocument] = []
    read: dict[str, tuple[ParsedDocument, ...]] = {}
    for path in names:
        if COMPOSE_FILE.fullmatch(path):
            continue
        content, name = files[path], f"{scope.source}:{path}"
        if len(content) > MAX_BYTES:
            documents.append(ParsedDocument(None, (too_big(name),), None))
        else:
            read[path] = read_text(decode(content), name)
    named = {
        name
        for path, parsed in read.items()
        for name in files_named_by(parsed, posixpath.dirname(path))
    }
    for path, parsed in read.items():
        if is_of_trimtab(files[path]) or not (path in named or projects.has_part(path)):
            folder = posixpath.dirname(path)
            documents += (_with_files(document, folder, files) for document in parsed)
    documents += (_with_files(document, "", files) for document in projects.documents)
    rendered = render_releases(documents, charts, f"{scope.source}:", scope.limit)
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
    projects = read_within(
        project_folders(folders), lambda folder: read_one(folder, port, scope.compose, shown), shown
    )
    return read_together(projects, folders, shown)


def _with_files(
    document: ParsedDocument, folder: str, files: Mapping[str, bytes]
) -> ParsedDocument:
    """Return a document with its named files, from the commit."""

    def read(path: str) -> bytes | Problem:
        content = files.get(posixpath.normpath(posixpath.join(folder, path)))
        if content is None or path.startswith("/") or len(content) > FILE_BYTES_MAX:
            return Problem("config.unreadable", f"{path} isn't in the commit")
        return content

    return with_named_files(document, read)
