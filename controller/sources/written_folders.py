"""The folders of a directory that containers write to: nothing in them is read as desired state.

Otherwise a container could declare what runs. A folder stays closed when its mount is no longer
declared, since what a container left there stays. It is open again once it was removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from controller.model.errors import Problem, Severity
from controller.model.host_paths import is_below
from controller.sources.safe_read import OPEN_FLAGS, SUFFIXES
from controller.system.durable_files import write_atomic

if TYPE_CHECKING:
    from controller.core.manifests.declaration import ParsedDocument

#: The name of the file in the folder of a process.
WRITTEN_FOLDERS = "folders.json"
_LISTED_MAX = 1000
_BYTES_MAX = 1024 * 1024


class WrittenFolders:
    """The closed folders, relative to the directory.

    *file* has those of earlier processes; *keeps*: and gets those of this process.
    """

    def __init__(self, file: Path | None = None, *, keeps: bool = True) -> None:
        self._file = file
        self._keeps = keeps and file is not None
        self._known: frozenset[str] | None = None

    @property
    def known(self) -> frozenset[str]:
        """The folders. A file that is lost or damaged has none."""
        if self._known is None:
            self._known = frozenset(self._read())
        return self._known

    def closed(self, top: str) -> frozenset[str]:
        """Return the paths of the folders; *top* is the directory's, without links."""
        return frozenset(f"{top}/{each}" for each in self.known)

    def _read(self) -> list[str]:
        if self._file is None:
            return []
        try:
            # Root reads the folders of other users: never a link, nor a pipe.
            with os.fdopen(os.open(self._file, OPEN_FLAGS), "rb") as file:
                value = json.loads(file.read(_BYTES_MAX))
        except (OSError, ValueError):
            return []
        return [str(each) for each in value] if isinstance(value, list) else []

    def update(self, top: str, added: frozenset[str]) -> Iterator[Problem]:
        """Add folders and forget removed ones, before a container can write; yield why it isn't durable."""
        kept = {each for each in self.known if os.path.lexists(f"{top}/{each}")}
        folders = frozenset(kept | added)
        if folders == self.known:
            return
        self._known = folders
        if self._file is None or not self._keeps:
            return
        try:
            write_atomic(self._file, json.dumps(sorted(folders)).encode())
        except OSError as error:
            message = f"{self._file}: {error.strerror}"
            remedy = "free space on its disk, or make the folder writable"
            yield Problem("state.unwritable", message, remedy=remedy)


def folders_written(
    documents: Iterable[ParsedDocument], directories: Iterable[str]
) -> frozenset[str]:
    """Return the folders below a directory that documents mount writable, relative to it.

    *directories* are the names of the directory: its path here, and its path on the host of the policy.
    """
    # The parent of the fetcher reads only the file.
    from controller.model.desired.spec.mounts import BindMount

    tops = [each for each in directories if each]
    declared = (document.declaration or document.partial for document in documents)
    return frozenset(
        os.path.relpath(mount.source, top)
        for declaration in declared
        for mount in getattr(declaration and declaration.spec, "mounts", ())
        if isinstance(mount, BindMount) and not mount.read_only
        for top in tops
        if is_below(mount.source, top) and mount.source != top
    )


def declaring_files(folders: Iterable[str], files: Iterable[str]) -> dict[str, str]:
    """Return the folders with a file that declares something, each with the first such file."""
    names = sorted(files)
    found = {folder: next((n for n in names if is_below(n, folder)), "") for folder in folders}
    return {folder: name for folder, name in found.items() if name}


def problem_of_declared(folder: str, file: str) -> Problem:
    """Return the error that a folder of documents is mounted writable: nothing is pruned meanwhile."""
    return Problem(
        "source.written",
        f"{folder} is mounted writable, so {file} isn't read: a container could change what is declared",
        file,
        remedy="mount another folder, or mount it read-only; or move the file",
    )


def problems_of_closed(top: str, folders: Iterable[str]) -> Iterator[Problem]:
    """Yield a warning for each closed folder without a mount that possibly has documents."""
    for folder in sorted(folders):
        try:
            with os.scandir(f"{top}/{folder}") as entries:
                names = [entry.name for _, entry in zip(range(_LISTED_MAX), entries, strict=False)]
        except OSError:
            continue
        if found := min((name for name in names if name.endswith(SUFFIXES)), default=""):
            yield Problem(
                "source.written",
                f"{folder} isn't read: containers could write to it",
                f"{folder}/{found}",
                remedy="move documents to another folder, or remove the folder and make it anew",
                severity=Severity.WARNING,
            )
