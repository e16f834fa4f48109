"""Checks of names and labels of a document."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Protocol

from controller.core.manifests.validation_errors import problem_at
from controller.core.yaml.documents import Document, YamlPath
from controller.model.errors import Problem
from controller.model.names import NAMESPACE_MAX, PREFIX, SERVICE_NAME_MAX, is_dns_label, qualified

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


def check_metadata(document: Document, metadata: HasNames) -> Iterator[Problem]:
    """Yield the problems of names and labels."""
    for field, text, length in (
        ("name", metadata.name, SERVICE_NAME_MAX),
        ("namespace", metadata.namespace, NAMESPACE_MAX),
        ("owner", metadata.owner, OWNER_MAX),
    ):
        if not is_dns_label(text, length=length):
            yield problem_at(
                document,
                ("metadata", field),
                f"{field}.invalid",
                f"metadata.{field} {json.dumps(text[:80])} is not a valid name"
                + (f": it has {len(text)} characters" if len(text) > length else ""),
                expected=f"lower-case letters, digits and '-' inside, at most {length} characters",
                remedy=valid_name(text, length),
            )
    yield from check_labels(document, ("metadata", "labels"), metadata.labels)


def check_volume(document: Document, metadata: HasNames) -> Iterator[Problem]:
    """Yield the problems of a Volume's name.

    The engine has a stricter rule for names of volumes than for other names.
    """
    name = qualified(metadata.namespace, metadata.name)
    if len(name) == 1:
        yield problem_at(
            document,
            ("metadata", "name"),
            "volume.name",
            f"metadata.name {json.dumps(name)} is too short for a volume of the engine",
            expected="two characters or more",
            remedy="choose a longer name",
        )


def is_reserved(label: str) -> bool:
    """Return True if a label's key has trimtab's prefix, in any case or Unicode spelling."""
    return unicodedata.normalize("NFKC", label).casefold().strip().startswith(PREFIX)


def check_labels(
    document: Document, path: YamlPath, labels: Mapping[str, str]
) -> Iterator[Problem]:
    """Yield the problems of the keys of labels."""
    for key in labels:
        if is_reserved(key):
            yield problem_at(
                document,
                (*path, key),
                "label.reserved",
                f"label {json.dumps(key[:80])} begins with {PREFIX}, which is reserved for trimtab",
                remedy="choose another prefix",
                at_key=True,
            )
        elif len(key) > LABEL_KEY_MAX or not key.isprintable() or not key.isascii():
            yield problem_at(
                document,
                (*path, key),
                "label.invalid",
                f"{json.dumps(key[:80])} is not a valid label key",
                expected=f"printable ASCII, at most {LABEL_KEY_MAX} characters",
                remedy="rename the label",
                at_key=True,
            )
