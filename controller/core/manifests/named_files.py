"""The files that documents name: those of Configs, and the sources of Secrets.

The files named in a document: the files of a Config, and the SOPS file of a Secret.

A YAML file that a document names, or that lies in the folder of a Compose project, is data, unless the
file says that it is of trimtab.

The source of a declared Secret, and its faults that need no key to be seen.

The files of a SOPS document have the names of its keys, which aren't encrypted.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Final, Protocol

from controller.core.manifests.declaration import Declaration, ParsedDocument
from controller.core.manifests.parse import KINDS
from controller.core.secrets import declared, formats
from controller.core.secrets.declared import AgeSource, SopsSource, check_armored, check_names
from controller.core.yaml.documents import YamlPath
from controller.model.delivery import CONTENT_BYTES_MAX
from controller.model.desired.desired import Secret, SourceLocation
from controller.model.desired.spec.mounts import ConfigSpec, SecretSpec
from controller.model.errors import Problem, SecretError
from controller.model.names import API_VERSION, Key

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


class DeclaredSecret(Protocol):
    """A declared Secret, with the places of its fields."""

    @property
    def key(self) -> Key: ...
    @property
    def owner(self) -> str: ...
    @property
    def source(self) -> SourceLocation: ...
    @property
    def files(self) -> tuple[tuple[str, bytes], ...] | None: ...
    def problem(self, path: YamlPath, code: str, message: str, remedy: str) -> Problem: ...


def check_secret(secret: DeclaredSecret, spec: SecretSpec) -> Iterator[Problem]:
    """Yield what is wrong with a Secret's source. Each problem blinds the Secret."""
    member = next(name for name in ("sops", "age", "file", "generate") if getattr(spec, name))
    if spec.sops is not None and secret.files is None:
        message = "the file can't be read here: the document lies in no source folder"
        yield secret.problem(("spec", "sops"), "secret.unread", message, "give the folder")
        return
    try:
        names_of(source_of(secret, spec))
        for key, text in (spec.age or {}).items():
            check_armored(text, key)
    except SecretError as error:
        yield secret.problem(("spec", member), error.code, error.message, error.remedy)


def source_of(secret: DeclaredSecret, spec: SecretSpec) -> declared.SecretSource:
    """Return the source of a Secret, whose SOPS file was read.

    Raises:
        SecretError: a format that trimtab doesn't read.
    """
    if spec.sops is not None:
        ((name, text),) = secret.files or (("", b""),)
        return SopsSource(text, formats.form_of(name), name)
    if spec.age is not None:
        return AgeSource(dict(spec.age))
    if spec.file is not None:
        return declared.HostFileSource(dict(spec.file))
    assert spec.generate is not None, "a Secret has one source"
    return declared.GeneratedSource({key: value.length for key, value in spec.generate.items()})


def names_of(source: declared.SecretSource) -> frozenset[str]:
    """Return the names of the files that a source has.

    Raises:
        SecretError: a SOPS document that can't be read, or a key that can't name a file.
    """
    match source:
        case SopsSource(text=text, form=form, name=name):
            return _sops_names(text, form, name)
        case AgeSource(files=files) | declared.HostFileSource(files=files):
            return check_names(files)
        case declared.GeneratedSource(lengths=lengths):
            return check_names(lengths)


def _sops_names(text: bytes, form: formats.SopsForm, name: str) -> frozenset[str]:
    from controller.core.secrets.sops_metadata import read_metadata  # loads ciphers

    tree, metadata = formats.split_metadata(formats.read_tree(text, form), form)
    if metadata is None:
        raise formats.invalid("the file isn't encrypted: it has no sops metadata")
    read_metadata(metadata)
    if form is formats.SopsForm.BINARY:
        return check_names([name])
    return check_names("/".join(leaf.path) for leaf in formats.leaves(tree))


def declared_secret(secret: DeclaredSecret, spec: SecretSpec) -> Secret:
    """Return a sound Secret, with a content that isn't known yet."""
    source = source_of(secret, spec)
    return Secret(
        key=secret.key,
        owner=secret.owner,
        spec=spec,
        source=secret.source,
        declared=declared.declared_to_json(source),
        digest=declared.source_digest(source, secret.owner),
    )
