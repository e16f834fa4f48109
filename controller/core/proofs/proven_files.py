"""The files of a proven commit, as the exported folder shows them to the reader of Compose projects."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from controller.core.compose.project import FileAbsent, FileOutside, FileTooBig, FileUnreadable
from controller.core.compose.projects import FolderEntry, file_found, folder_found
from controller.core.compose.translation.scope import ContextRequest, FoundContext, FoundPath
from controller.core.yaml.file_limit import MAX_BYTES, too_big

_GIT = ".git"
_NAME_MAX = 255


class ProvenFiles:
    """A ``ProjectFiles`` of the files below the documents' folder, by their paths in the folder.

    A proof has no links, no empty folders and no ``.git``. An exported file isn't executable.

    Args:
        files: the contents by path.
        top: the name of the documents' folder: ``../NAME/file`` leads back into the folder.
    """

    def __init__(self, files: Mapping[str, bytes], top: str) -> None:
        self._files = files
        self._top = f"/{top or 'source'}"
        #: By folder: the names of its folders, and of its files.
        self._folders: dict[str, tuple[set[str], list[str]]] = {".": (set(), [])}
        for path in files:
            folder, name = posixpath.split(path)
            self._folder(folder or ".")[1].append(name)

    def _folder(self, path: str) -> tuple[set[str], list[str]]:
        known = self._folders.get(path)
        if known is None:
            known = self._folders[path] = (set(), [])
            parent, name = posixpath.split(path)
            self._folder(parent or ".")[0].add(name)
        return known

    def read(self, path: str) -> bytes:
        """Return the content of a file (``ReadFile``)."""
        name = None if path.startswith("/") else self._inside(path)
        if name is None or _GIT in path.split("/"):
            raise FileOutside("the path leads out of the source")
        content = self._files.get(name)
        if content is None:
            if name in self._folders:
                raise FileUnreadable("is no regular file and wasn't opened")
            if self._is_impossible(name):
                raise FileUnreadable("the path leads through a file, or is too long")
            raise FileAbsent("the file does not exist")
        if len(content) > MAX_BYTES:
            raise FileTooBig(too_big(name).message)
        return content

    def look(self, path: str, *, listed: bool = True) -> FoundPath:
        """Return the file or folder at a path (``LookUp``)."""
        name = self._inside(path)
        if name is None or _GIT in path.split("/"):
            return FoundPath("outside")
        if name in self._files:
            return file_found(len(self._files[name]))
        if name not in self._folders:
            return FoundPath("absent")
        return folder_found(self._entries(name)) if listed else FoundPath("folder")

    def context(self, _request: ContextRequest) -> FoundContext:
        """Return why nothing is built: a proof has the documents of a commit, and no contexts."""
        reason = "no build is admitted where signed commits are required: a proof has no context"
        return FoundContext(fault=(reason, "build in CI, and name the image"))

    def _inside(self, path: str) -> str | None:
        """Return a path relative to the documents' folder; None for a path that leads out."""
        whole = posixpath.normpath(f"{self._top}/{path}")
        if whole != self._top and not whole.startswith(f"{self._top}/"):
            return None
        return whole.removeprefix(self._top).lstrip("/") or "."

    def _is_impossible(self, name: str) -> bool:
        """Return True if a file system reads another mistake than absence from a path."""
        parts = name.split("/")
        ahead = ("/".join(parts[:count]) for count in range(1, len(parts)))
        is_long = any(len(part.encode("utf-8", "surrogatepass")) > _NAME_MAX for part in parts)
        return "\0" in name or is_long or any(each in self._files for each in ahead)

    def _entries(self, top: str) -> Iterator[FolderEntry]:
        """Yield the folders below a folder, from the top down and in the order of their names."""
        waiting = ["."]
        while waiting:
            inside = waiting.pop()
            place = posixpath.normpath(f"{top}/{inside}")
            folders, files = self._folders[place]
            sizes = [
                (name, len(self._files[posixpath.normpath(f"{place}/{name}")]))
                for name in sorted(files)
            ]
            yield inside, len(folders), sizes
            below = [name if inside == "." else f"{inside}/{name}" for name in folders]
            waiting += sorted(below, reverse=True)
