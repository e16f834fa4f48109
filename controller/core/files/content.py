"""The content of a Config: its files, bounded, and its id.

The id is ``sha256:`` and the SHA-256 of the names and digests of all files, in canonical JSON. So
equal files have an equal id, in whatever order and from whatever documents they come.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from controller.core.encoding.canonical_json import digest
from controller.core.yaml.documents import YamlPath
from controller.model.errors import Problem
from controller.model.files.delivery import CONTENT_BYTES_MAX, FILE_BYTES_MAX, FILES_MAX, is_key
from controller.model.quantities import format_bytes

if TYPE_CHECKING:
    # The broker checks contents too, and loads no document.
    from controller.model.desired.spec.files import ConfigSpec

_ID = re.compile(r"(?:sha256|hmac):[0-9a-f]{64}", re.ASCII)


def content_id(files: Mapping[str, bytes]) -> str:
    """Return the id of the content of a Config."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return f"sha256:{digest(digests)}"


def is_content_id(text: str) -> bool:
    """Return True if *text* has the form of a content's id."""
    return _ID.fullmatch(text) is not None


class DeclaredConfig(Protocol):
    """A declared Config, with the places of its fields."""

    @property
    def files(self) -> tuple[tuple[str, bytes], ...] | None: ...
    def problem(self, path: YamlPath, code: str, message: str, remedy: str) -> Problem: ...


def files_of(config: DeclaredConfig, spec: ConfigSpec) -> dict[str, bytes]:
    """Return the files of a Config: the texts of the document, and the files that were read."""
    return {**{name: text.encode() for name, text in spec.data.items()}, **dict(config.files or ())}


def check_config(config: DeclaredConfig, spec: ConfigSpec) -> Iterator[Problem]:
    """Yield what is wrong with the files of a Config. Each problem blinds the Config."""
    if not spec.data and not spec.files:
        message = "spec has neither data nor files"
        yield config.problem(("spec",), "config.empty", message, "add data: {name: text}")
    for name in sorted(spec.data.keys() & spec.files.keys()):
        message = f"{name} is in data and in files"
        yield config.problem(("spec", "files", name), "config.twice", message, "remove one of them")
    if spec.files and config.files is None:
        message = "the files can't be read here: the document lies in no source folder"
        remedy = "give the folder, or write the files as data"
        yield config.problem(("spec", "files"), "config.unread", message, remedy)
    for name, reason in faults(files_of(config, spec)):
        path: YamlPath = ("spec", "files" if name in spec.files else "data", name)
        whole: YamlPath = ("spec",)
        remedy = "mount a volume for large data, or split the Config"
        message = f"{name}: {reason}" if name else reason
        yield config.problem(path if name else whole, "config.too-large", message, remedy)


def faults(files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """Yield the file ('' for all) and the reason of each exceeded bound."""
    if len(files) > FILES_MAX:
        yield "", f"{len(files)} files: at most {FILES_MAX}"
    for name, data in files.items():
        if not is_key(name):
            yield name, "not a relative path of at most 8 names"
        if len(data) > FILE_BYTES_MAX:
            reason = f"{format_bytes(len(data))} is more than {format_bytes(FILE_BYTES_MAX)}"
            yield name, reason
    if (total := sum(map(len, files.values()))) > CONTENT_BYTES_MAX:
        reason = f"{format_bytes(total)} in all is more than {format_bytes(CONTENT_BYTES_MAX)}"
        yield "", reason
    if clash := _clash(files):
        yield clash, f"{clash} is a file and a folder at once"


def _clash(files: Mapping[str, bytes]) -> str:
    """Return a name that is also the folder of another name, '' for none."""
    for name in files:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) in files:
                return folder
    return ""
