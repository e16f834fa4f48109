"""The files named in a document: the files of a Config, and the SOPS file of a Secret."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import replace

from controller.core.manifests.declaration import Declaration, ParsedDocument
from controller.core.yaml.documents import YamlPath
from controller.model.desired.spec.files import ConfigSpec, SecretSpec
from controller.model.errors import Problem
from controller.model.files.delivery import CONTENT_BYTES_MAX

#: Returns the content of a file by its path in the document, or the problem of the file.
ReadNamedFile = Callable[[str], bytes | Problem]


def with_named_files(document: ParsedDocument, read: ReadNamedFile) -> ParsedDocument:
    """Return a document with the contents of the named files, or with the problems of the files."""
    declaration = document.declaration
    if declaration is None:
        return document
    files: dict[str, bytes] = {}
    problems: list[Problem] = []
    for name, path in named_files(declaration).items():
        content = read(path)
        if isinstance(content, bytes):
            files[name] = content
        else:
            problems.append(_at(declaration, name, content))
        if sum(map(len, files.values())) > CONTENT_BYTES_MAX:
            break  # ``core.files.content`` names the bound
    if problems:
        found = (*document.problems, *problems)
        return ParsedDocument(None, found, declaration.key, document.release, declaration)
    if not files:
        return document
    return replace(document, declaration=replace(declaration, files=tuple(sorted(files.items()))))


def named_files(declaration: Declaration | None) -> Mapping[str, str]:
    """Return the paths of the named files, by name."""
    match declaration.spec if declaration is not None else None:
        case ConfigSpec(files=files):
            return files
        case SecretSpec(sops=str(path)):
            return {posixpath.basename(path): path}
        case _:
            return {}


def _at(declaration: Declaration, name: str, problem: Problem) -> Problem:
    """Return a problem at the place of the file's name in the document."""
    place: YamlPath = ("spec", "files", name)
    code = problem.code
    if isinstance(declaration.spec, SecretSpec):
        place, code = ("spec", "sops"), code.replace("config.", "secret.")
    return declaration.problem(place, code, problem.message, problem.remedy)
