"""Exported commits: folders of regular files that never change, and the link to the served one.

A folder appears as a whole, by a rename after its files are durable. The served commit changes by the
rename of a link.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from controller.core.git.report import commit_to_json
from controller.core.git.tree_checks import TreeFile
from controller.model.names import COMMIT_ID
from controller.model.sources import CommitInfo
from controller.system.atomic_file import fsync_folder, write_atomic

CURRENT = "current"
#: Earlier commits that stay beside the served one.
KEPT = 3
FILE_MODE, FOLDER_MODE = 0o640, 0o750
_NEW, _OLD = ".new-", ".old-"


class ExportFolder:
    """The exports of one source, in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Create the folder, and remove what an interrupted export left.

        Raises:
            OSError: the folder can't be written.
        """
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if path.name.startswith((_NEW, _OLD)):
                shutil.rmtree(path)

    def served(self) -> str | None:
        """Return the commit that ``current`` leads to; None for none."""
        try:
            name = str((self._folder / CURRENT).readlink())
        except OSError:
            return None
        is_export = COMMIT_ID.fullmatch(name) and (self._folder / name).is_dir()
        return name if is_export else None

    def path_of(self, commit: str) -> str | None:
        """Return the documents' folder of an export; None for a missing or incomplete export."""
        try:
            described = json.loads((self._folder / f"{commit}.json").read_bytes())
        except (OSError, ValueError):
            return None
        if not (self._folder / commit).is_dir() or not isinstance(described, dict):
            return None
        path = described.get("path")
        return path if isinstance(path, str) else None

    def write(
        self, info: CommitInfo, files: Iterable[tuple[TreeFile, bytes]], *, path: str
    ) -> None:
        """Export a commit. An export of the same commit and path stays as it is.

        Raises:
            OSError: the folder can't be written.
        """
        if self.path_of(info.commit) == path:
            return
        target, new = self._folder / info.commit, self._folder / f"{_NEW}{info.commit}"
        old = self._folder / f"{_OLD}{info.commit}"
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=FOLDER_MODE)
            _write_files(new, files)
            described = {"version": 1, "path": path, **commit_to_json(info)}
            (self._folder / f"{info.commit}.json").unlink(missing_ok=True)
            if target.exists():  # of another path: the link leads nowhere for an instant
                target.rename(old)
                self._proof(info.commit).unlink(missing_ok=True)
            new.rename(target)
            fsync_folder(self._folder)
            text = f"{json.dumps(described, ensure_ascii=False, indent=1)}\n"
            write_atomic(self._folder / f"{info.commit}.json", text.encode(), mode=FILE_MODE)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def has_proof(self, commit: str) -> bool:
        """Return True if the proof of a commit is exported."""
        return self._proof(commit).is_file()

    def write_proof(self, commit: str, proof: bytes) -> None:
        """Export the proof of a commit, for signed admission.

        Raises:
            OSError: the folder can't be written.
        """
        write_atomic(self._proof(commit), proof, mode=FILE_MODE)

    def _proof(self, commit: str) -> Path:
        return self._folder / f"{commit}.proof"

    def serve(self, commit: str) -> None:
        """Let ``current`` lead to an export.

        Raises:
            OSError: the folder can't be written.
        """
        link = self._folder / f"{_NEW}{CURRENT}"
        link.unlink(missing_ok=True)
        link.symlink_to(commit)
        link.rename(self._folder / CURRENT)
        fsync_folder(self._folder)

    def remove_old(self) -> None:
        """Remove all exports but the served one and the ``KEPT`` latest others."""
        served = self.served()
        exports = [path for path in self._folder.iterdir() if COMMIT_ID.fullmatch(path.name)]
        others = [path for path in exports if path.name != served]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[KEPT:]:
            self._folder.joinpath(f"{path.name}.json").unlink(missing_ok=True)
            self._proof(path.name).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def _write_files(new: Path, files: Iterable[tuple[TreeFile, bytes]]) -> None:
    folders = {new}
    for file, content in files:
        path = new / file.path
        folders |= _make_folders(path.parent, new)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, FILE_MODE), "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
    for folder in sorted(folders, reverse=True):
        fsync_folder(folder)


def _make_folders(folder: Path, root: Path) -> set[Path]:
    """Create a folder below *root* with its parents; return all of them."""
    made: set[Path] = set()
    while folder != root:
        made.add(folder)
        folder = folder.parent
    for each in sorted(made):
        each.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return made
