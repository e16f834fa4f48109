"""The source of a declared Secret, and its faults that need no key to be seen.

The files of a SOPS document have the names of its keys, which aren't encrypted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from controller.core.secrets import declared
from controller.core.secrets.age_form import check_armored
from controller.core.secrets.contents import check_names
from controller.core.secrets.formats import SopsForm, form_of, read_tree, split_metadata
from controller.core.secrets.sources import AgeSource, SopsSource
from controller.core.secrets.tree import invalid, leaves
from controller.core.yaml.documents import YamlPath
from controller.model.desired.desired import Secret, SourceLocation
from controller.model.desired.spec.files import SecretSpec
from controller.model.errors import Problem, SecretError
from controller.model.names import Key


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
        return SopsSource(text, form_of(name), name)
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


def _sops_names(text: bytes, form: SopsForm, name: str) -> frozenset[str]:
    from controller.core.secrets.metadata import read_metadata  # loads ciphers

    tree, metadata = split_metadata(read_tree(text, form), form)
    if metadata is None:
        raise invalid("the file isn't encrypted: it has no sops metadata")
    read_metadata(metadata)
    if form is SopsForm.BINARY:
        return check_names([name])
    return check_names("/".join(leaf.path) for leaf in leaves(tree))


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
