"""The files named in a document: the files of a Config, and the SOPS file of a Secret.

A YAML file that a document names, or that lies in the folder of a Compose project, is data, unless the
file says that it is of trimtab.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Final

from controller.core.manifests.declaration import Declaration, ParsedDocument
from controller.core.manifests.parse import KINDS
from controller.core.yaml.documents import YamlPath
from controller.model.desired.spec.files import ConfigSpec, SecretSpec
from controller.model.errors import Problem
from controller.model.files.delivery import CONTENT_BYTES_MAX
from controller.model.names import API_VERSION

_GROUP: Final = API_VERSION.partition("/")[0]
_VERSIONS: Final = re.compile(rb"""apiVersion["']?\s*:[ \t]*["']?([\w.-]*)""")
_KINDS: Final = re.compile(rb"""\bkind["']?\s*:[ \t]*["']?(\w+)""")
_METADATA: Final = re.compile(rb"""\bmetadata["']?\s*:""")
#: How similar a word is to the word that is meant, at least, from 0 to 1.
_SIMILARITY: Final = 0.7
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


def files_named_by(documents: Iterable[ParsedDocument], folder: str) -> Iterator[str]:
    """Yield the normalized paths of the files that the documents of a folder name."""
    for document in documents:
        for path in named_files(document.declaration or document.partial).values():
            yield posixpath.normpath(posixpath.join(folder, path))


def is_of_trimtab(content: bytes) -> bool:
    """Return True if a file says that it has documents of trimtab, also misspelt or broken.

    Without any apiVersion, a kind of trimtab with metadata says so.
    """
    groups = [group.decode().lower() for group in _VERSIONS.findall(content) if group]
    if groups:
        return any(is_similar(group, _GROUP) for group in groups)
    kinds = {kind.decode() for kind in _KINDS.findall(content)}
    return _METADATA.search(content) is not None and not kinds.isdisjoint(KINDS)


def is_similar(word: str, meant: str) -> bool:
    """Return True if a word can be the misspelt word that is meant."""
    return SequenceMatcher(None, word, meant).ratio() >= _SIMILARITY
