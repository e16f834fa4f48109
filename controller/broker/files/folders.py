"""The folders that containers mount: made whole under another name, then renamed.

A folder of a variant never changes. A stable folder has a link ``..data`` to the folder of the
content of now; the link moves by one rename, so that a container sees one content or the other.
Every name of the first level is a link through ``..data``, as in Kubernetes' volumes.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.core.files.layout import DATA_LINK, variant_id
from controller.model.crashpoints import Reach, pass_by
from controller.model.files.delivery import Variant
from controller.system.atomic_file import fsync_folder
from controller.system.syscalls import sync_filesystem

FOLDER_MODE = 0o755
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
#: Up to so many files are flushed one by one; more are flushed with their filesystem.
FLUSHED_ALONE_MAX = 16


@dataclass(frozen=True, slots=True)
class FolderWriter:
    """Writes folders of files."""

    #: The first id of the engine's user namespace, 0 without one.
    first_id: int = 0
    reach: Reach = pass_by

    def make(self, folder: Path, files: Mapping[str, bytes], variant: Variant) -> None:
        """Make a folder with the chosen files, unless it exists.

        Raises:
            OSError: the folder isn't made. PermissionError: the files can't belong to that user.
        """
        if folder.is_dir():
            return
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        self._fill(temporary, files, variant)
        self.reach("files.rename.before")
        temporary.rename(folder)
        fsync_folder(folder.parent)
        self.reach("files.rename.after")

    def _fill(self, folder: Path, files: Mapping[str, bytes], variant: Variant) -> None:
        chosen = {name: files[name] for name in variant.keys or files}
        self.reach("files.write.before")
        folder.mkdir(mode=0o700)
        folder.chmod(FOLDER_MODE)
        made = {""}
        alone = len(chosen) <= FLUSHED_ALONE_MAX
        root = os.fspath(folder)
        for name, data in chosen.items():
            steps = name.split("/")[:-1]
            for count in range(1, len(steps) + 1):
                above = "/".join(steps[:count])
                if above not in made:
                    place = folder / above
                    place.mkdir(mode=0o700)
                    place.chmod(FOLDER_MODE)
                    made.add(above)
            self._write(f"{root}/{name}", data, variant, flush=alone)
        if alone:
            for each in sorted(made):
                fsync_folder(folder / each)
        else:
            sync_filesystem(folder)
        self.reach("files.write.after")

    def _write(self, path: str, data: bytes, variant: Variant, *, flush: bool) -> None:
        handle = os.open(path, _NEW, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fchmod(handle, variant.mode)
            first = self.first_id
            wanted = (first + variant.uid, first + variant.gid)
            if wanted != (os.geteuid(), os.getegid()) and not _may_keep(variant, first):
                os.fchown(handle, *wanted)
            if flush:
                os.fsync(handle)
        finally:
            os.close(handle)

    def point(
        self, folder: Path, content: str, files: Mapping[str, bytes], variant: Variant
    ) -> None:
        """Let a stable folder show a content; make the folder if it is missing.

        Raises:
            OSError: the folder shows the content before, or none.
        """
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(mode=0o700)
            folder.chmod(FOLDER_MODE)
        target, link = f"..{content}", folder / DATA_LINK
        self.make(folder / target, files, variant)
        before = str(link.readlink()) if link.is_symlink() else ""
        if before != target:
            temporary = folder / f"{DATA_LINK}.new"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target)
            self.reach("files.rename.before")
            temporary.rename(link)
            fsync_folder(folder)
            self.reach("files.rename.after")
        self._link_names(folder, target)
        for old in folder.glob("..*"):
            if old.name not in {target, DATA_LINK}:
                shutil.rmtree(old, ignore_errors=True)

    @staticmethod
    def _link_names(folder: Path, target: str) -> None:
        """Give every name of the content its link, and take the links of other names away."""
        wanted = {each.name for each in (folder / target).iterdir()}
        for each in folder.iterdir():
            if not each.name.startswith("..") and each.name not in wanted:
                each.unlink()
        for name in wanted:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"{DATA_LINK}/{name}")


def find_variant(folder: Path, identifier: str, first_id: int) -> Variant | None:
    """Return the variant of a folder by its files; None if it isn't the one with the identifier."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        return None
    status = paths[0].stat()
    owners = {(status.st_uid - first_id, status.st_gid - first_id), (0, 0)}
    names = tuple(str(path.relative_to(folder)) for path in paths)
    found = [
        Variant(uid, gid, stat.S_IMODE(status.st_mode), keys)
        for uid, gid in sorted(owners)
        for keys in ((), names)
    ]
    return next((each for each in found if variant_id(each) == identifier), None)


def _may_keep(variant: Variant, first: int) -> bool:
    """Return True if a broker without root can leave the files as its own: anybody may read them."""
    return os.geteuid() != 0 and not first and variant.uid == 0 and variant.mode & 0o004 != 0
