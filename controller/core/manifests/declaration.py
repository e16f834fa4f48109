"""A parsed document: kind and names, and the declaration or the problems.

Checks of names and labels of a document.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Final, Literal, Protocol, TypeAlias

from pydantic import Field

from controller.core.manifests.validation_errors import FieldProblem
from controller.core.yaml.documents import Document, YamlPath
from controller.model import names
from controller.model.desired.desired import SourceIdentity, SourceLocation
from controller.model.desired.spec.fields import Model
from controller.model.desired.spec.mounts import ConfigSpec, SecretSpec, VolumeSpec
from controller.model.desired.spec.network import NetworkSpec
from controller.model.desired.spec.notification import NotificationSpec
from controller.model.desired.spec.service import ReleaseSpec, ServiceSpec
from controller.model.errors import Problem, Severity

if TYPE_CHECKING:
    from controller.model.desired.source_spec import SourceSpec


ResourceSpec = (
    ServiceSpec
    | NetworkSpec
    | VolumeSpec
    | ConfigSpec
    | SecretSpec
    | ReleaseSpec
    | NotificationSpec
)
AnySpec: TypeAlias = "ResourceSpec | SourceSpec"


#: Earlier names of one resource.
MOVED_MAX: Final = 8


class Moved(Model):
    """An earlier name of a resource."""

    #: ``[NAMESPACE/]NAME``; without a namespace, the resource's own.
    source: Annotated[str, Field(alias="from", max_length=64)]


class Metadata(Model):
    """The names and the owner of a resource."""

    #: A DNS label, at most 27 characters; of a Job 20.
    name: str
    #: A DNS label, at most 20 characters.
    namespace: str = names.DEFAULT_NAMESPACE
    #: The owner, whom the policy can list.
    owner: str
    #: Labels for selection.
    labels: dict[str, str] = Field(default_factory=dict, max_length=100)
    moved: Annotated[tuple[Moved, ...], Field(max_length=MOVED_MAX)] = ()


class Manifest(Model):
    """The members of every document; each kind adds its spec."""

    api_version: Literal["trimtab/v1"]
    kind: str
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Declaration:
    """A document that is valid by itself."""

    key: names.Key
    owner: str
    labels: tuple[tuple[str, str], ...]
    spec: AnySpec
    revision: str  # '' for other kinds than Service and Job
    source: SourceLocation
    document: Document
    #: The files beside the document that a Config names, by their names in the Config, and the SOPS
    #: file of a Secret by its name. None: not
    #: read, such as in a text without a folder.
    files: tuple[tuple[str, bytes], ...] | None = field(default=None, repr=False)
    #: The earlier keys of the resource.
    moved: tuple[names.Key, ...] = ()

    @property
    def place(self) -> str:
        """``FILE:LINE`` of the document."""
        return f"{self.source.file}:{self.source.line}"

    def problem(
        self,
        path: YamlPath,
        code: str,
        message: str,
        remedy: str,
        *,
        severity: Severity = Severity.ERROR,
    ) -> Problem:
        """Return a problem at a place of the document. An error blinds the document's key."""
        problem = FieldProblem(path, code, message, remedy=remedy, severity=severity).at(
            self.document
        )
        return replace(problem, key=self.key)


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The result of one document: a declaration, or problems with at least one error."""

    declaration: Declaration | None
    problems: tuple[Problem, ...]
    #: Without a declaration: the resource that the document possibly declares; None for any resource.
    key: names.Key | None
    #: The Release that rendered the document, if any.
    release: names.Key | None = None
    #: The readable part of a document with errors. For further checks only, never to act on.
    partial: Declaration | None = None
    #: The earlier keys of the resource, also of a document with errors.
    moved: tuple[names.Key, ...] = ()
    #: Without a declaration and a key: the only namespace of what is possibly declared, of a Compose
    #: project that can't be read. '' for any namespace.
    namespace: str = ""
    #: The number of values in the document, each alias counted as often as it is used.
    nodes: int = 0

    @property
    def blind(self) -> bool:
        """Return True if the document possibly declares any resource."""
        return self.declaration is None and self.key is None and not self.namespace

    @property
    def blind_namespace(self) -> str:
        """The namespace of which the document possibly declares any resource; '' for none or all."""
        return self.namespace if self.declaration is None and self.key is None else ""


@dataclass(frozen=True, slots=True)
class FolderReading:
    """One reading of a folder: DIR, or the exported files of a Git source."""

    documents: tuple[ParsedDocument, ...]
    identity: SourceIdentity
    problems: tuple[Problem, ...] = ()
    #: The folder couldn't be read.
    absent: bool = False
    #: A Git operation is under way in the folder: the documents are those before it.
    busy: Problem | None = None

    @property
    def blind(self) -> bool:
        """Return True if an unread part possibly declares any resource."""
        return (
            self.absent
            or self.busy is not None
            or any(document.blind for document in self.documents)
            or any(p.severity is Severity.ERROR and p.key is None for p in self.problems)
        )


OWNER_MAX = 63
LABEL_KEY_MAX = 128


class HasNames(Protocol):
    """The metadata of a document."""

    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def labels(self) -> dict[str, str]: ...


def valid_name(text: str, length: int) -> str:
    """Return a remedy with the nearest valid name, '' if there is none."""
    plain = re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:length].strip("-")
    return f"write {plain}" if plain and plain[0].isalpha() else ""


def check_metadata(metadata: HasNames) -> Iterator[FieldProblem]:
    """Yield the problems of names and labels."""
    for member, text, length in (
        ("name", metadata.name, names.SERVICE_NAME_MAX),
        ("namespace", metadata.namespace, names.NAMESPACE_MAX),
        ("owner", metadata.owner, OWNER_MAX),
    ):
        if not names.is_dns_label(text, length=length):
            yield FieldProblem(
                ("metadata", member),
                f"{member}.invalid",
                f"metadata.{member} {json.dumps(text[:80])} is not a valid name"
                + (f": it has {len(text)} characters" if len(text) > length else ""),
                expected=f"lower-case letters, digits and '-' inside, at most {length} characters",
                remedy=valid_name(text, length),
            )
    yield from check_labels(("metadata", "labels"), metadata.labels)


def check_volume(metadata: HasNames) -> Iterator[FieldProblem]:
    """Yield the problems of a Volume's name.

    The engine has a stricter rule for names of volumes than for other names.
    """
    name = names.qualified(metadata.namespace, metadata.name)
    if len(name) == 1:
        yield FieldProblem(
            ("metadata", "name"),
            "volume.name",
            f"metadata.name {json.dumps(name)} is too short for a volume of the engine",
            expected="two characters or more",
            remedy="choose a longer name",
        )


def is_reserved(label: str) -> bool:
    """Return True if a label's key has trimtab's prefix, in any case or Unicode spelling."""
    return unicodedata.normalize("NFKC", label).casefold().strip().startswith(names.PREFIX)


def check_labels(path: YamlPath, labels: Mapping[str, str]) -> Iterator[FieldProblem]:
    """Yield the problems of the keys of labels."""
    for key in labels:
        if is_reserved(key):
            yield FieldProblem(
                (*path, key),
                "label.reserved",
                f"label {json.dumps(key[:80])} begins with {names.PREFIX}, which is reserved for trimtab",
                remedy="choose another prefix",
                at_key=True,
            )
        elif len(key) > LABEL_KEY_MAX or not key.isprintable() or not key.isascii():
            yield FieldProblem(
                (*path, key),
                "label.invalid",
                f"{json.dumps(key[:80])} is not a valid label key",
                expected=f"printable ASCII, at most {LABEL_KEY_MAX} characters",
                remedy="rename the label",
                at_key=True,
            )
