"""Files that the broker delivers to containers: contents, variants and mounts.

A *content* is the set of all files of a Config, identified by its bytes. A *variant* is a choice of
its files with an owner and a mode. A *delivery* is a mount of a variant in a container.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FileKind = Literal["config", "secret"]
FILE_KINDS: tuple[FileKind, ...] = ("config", "secret")

#: Limits of one content.
FILE_BYTES_MAX = 1024 * 1024
FILES_MAX = 1_000
CONTENT_BYTES_MAX = 16 * 1024 * 1024
#: Limits of all stored contents.
NAMESPACE_BYTES_MAX = 256 * 1024 * 1024
TOTAL_BYTES_MAX = 1024 * 1024 * 1024
#: Stored contents of one name that no container needs to name.
CONTENTS_KEPT = 10
#: Names with stored contents.
NAMES_MAX = 2_000
ID_MAX = 2**32 - 2
#: Limits of the path of a file in a content.
KEY_MAX = 255
KEY_DEPTH_MAX = 8

#: ``Delivery.on_change`` of a content that is part of the service's revision.
RESTART = "Restart"
#: ``Delivery.on_change`` without any reaction; every other value is the name of a signal.
NO_REACTION = "None"

_DIGITS = 12


def is_key(text: str) -> bool:
    """Return True if *text* names a file of a Config: a relative path of at most 8 names."""
    parts = text.split("/")
    clean = not {"", ".", ".."} & set(parts) and not any(part.startswith("..") for part in parts)
    return clean and len(parts) <= KEY_DEPTH_MAX and len(text) <= KEY_MAX and text.isprintable()


def short_content(content: str) -> str:
    """Return the first digits of a content's id, for people."""
    return content.rpartition(":")[2][:_DIGITS]


@dataclass(frozen=True, slots=True)
class FileSet:
    """The name of delivered files, printed as ``config/NAMESPACE/NAME``."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Variant:
    """How the files of a content appear in a container."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o444
    #: The chosen files; () for all.
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """Files for a mount of a service, or a file for a variable of its environment."""

    kind: str
    name: str
    #: The id of the content.
    content: str
    target: str  # '' for a variable
    variant: Variant = field(default_factory=Variant)
    #: The file that the target is; '' for a folder with all files of the variant.
    key: str = ""
    on_change: str = RESTART
    #: The name of the variable with the value of the file; '' for a mount.
    variable: str = ""

    @property
    def is_stable(self) -> bool:
        """True if the mounted folder stays when the content changes."""
        return self.on_change != RESTART

    @property
    def is_unopened(self) -> bool:
        """True if the content id is that of a Secret's source: nobody has opened the source.

        So in plans of other files. The broker's ids of a Secret's content are keyed.
        """
        return self.kind == "secret" and not self.content.startswith("hmac:")

    @property
    def signal(self) -> str:
        """The signal after a change; '' for none."""
        return "" if self.on_change in (RESTART, NO_REACTION) else self.on_change


@dataclass(frozen=True, slots=True)
class MountedFiles:
    """Files that a container has, by the broker's record."""

    kind: str
    name: str
    #: For a folder that stays: the content of the container's start, or of its last signal.
    content: str
    target: str
    is_stable: bool = False
    #: The content that the folder shows now.
    shown: str = ""


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A content that the broker has stored."""

    content: str
    owner: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """The contents of one name that the broker has stored, the latest delivery last."""

    files: FileSet
    contents: tuple[StoredContent, ...] = ()

    def find(self, content: str) -> StoredContent | None:
        """Return a stored content by its id."""
        return next((each for each in self.contents if each.content == content), None)

    @property
    def current(self) -> str:
        """The id of the content that was delivered last; '' for none."""
        return self.contents[-1].content if self.contents else ""


def contents_of(stored: Mapping[str, StoredFiles], files: FileSet) -> frozenset[str]:
    """Return the ids of the stored contents of a name."""
    known = stored.get(str(files))
    return frozenset() if known is None else frozenset(each.content for each in known.contents)
