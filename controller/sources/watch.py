"""The file watch: a change wakes the controller, without further information.

A watch can miss changes, and ends silently together with its folder. So nothing relies on the
watch. Each wakeup makes the controller read all files. After each change and every second, the set
of folders is compared. If the set differs, or after a minute, a new watch starts. So the watch
follows new folders, recreated folders and folders behind a changed link, and a lost event costs
one second.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from controller.sources import directory
from controller.sources.safe_read import FolderWalk

#: A batch of changes ends after this time without a change …
QUIET_MS = 50
#: … or at this length.
BATCH_MS = 5_000
#: Time between two comparisons of the folders without a change.
COMPARE_MS = 1_000
#: Comparisons until a new watch starts.
COMPARISONS_MAX = 60
RETRY_S = 0.5
MAX_FOLDERS = 10_000
MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class Scope:
    """The folders and files of a watch."""

    #: The watched folders: path, device, inode.
    folders: frozenset[tuple[str, int, int]]
    #: The folders with desired state: every entry is relevant.
    trees: frozenset[str]
    #: The roots, and the links on the way to the roots.
    anchors: frozenset[str]
    #: The files that show a Git operation or a commit, and the marks.
    signs: frozenset[str]

    def paths(self) -> list[str]:
        """Return the folders to watch."""
        return sorted(path for path, _, _ in self.folders)

    def concerns(self, path: str) -> bool:
        """Return True if a change at *path* can change the desired state."""
        inside = os.path.dirname(path) in self.trees  # noqa: PTH120 - called for each change
        return inside or path in self.signs or self.can_end_watch(path)

    def can_end_watch(self, path: str) -> bool:
        """Return True if a change at *path* can end a watch."""
        return path in self.anchors or path in self.trees


def watch(
    root: Path,
    wake: Callable[[], None],
    stop: threading.Event,
    *,
    also: Iterable[Path] = (),
    marks: Callable[[], Iterable[Path]] = tuple,
    closed: Callable[[], frozenset[str]] = frozenset,
    compare_ms: int = COMPARE_MS,
) -> None:
    """Call *wake* after each change below *root* and *also* (the charts), until *stop* is set.

    *marks* returns files and links elsewhere, such as the pointers of Git sources, or files in hidden
    folders. Each is watched by its name alone; the folders behind a link are not. *closed* returns the
    folders of which nothing is read, which aren't watched.

    Blocks the caller's thread and never raises. *root* can be a link, can be missing, and can be
    replaced. Each start of a watch also calls *wake*, because of changes just before the start.
    """
    roots = (root.absolute(), *(path.absolute() for path in also))
    while not stop.is_set():
        try:
            _watch_once(lambda: scope_of(roots, marks(), closed()), wake, stop, compare_ms)
        except Exception:  # noqa: BLE001 - for example no inotify instances left, or a removed folder
            stop.wait(RETRY_S)
            wake()


def _watch_once(
    present_scope: Callable[[], Scope],
    wake: Callable[[], None],
    stop: threading.Event,
    compare_ms: int,
) -> None:
    """Watch until the folders differ from those at the start."""
    scope = present_scope()
    batches = watchfiles.watch(
        *scope.paths(),
        watch_filter=None,
        debounce=BATCH_MS,
        step=QUIET_MS,
        stop_event=stop,
        rust_timeout=compare_ms,
        yield_on_timeout=True,
        raise_interrupt=False,
        force_polling=False,
        recursive=False,
        ignore_permission_denied=True,
    )
    for count, changes in enumerate(batches):
        paths = {path for _, path in changes}
        if count == 0 or any(scope.concerns(path) for path in paths):
            wake()
        is_doubtful = any(scope.can_end_watch(path) for path in paths)
        if is_doubtful or count >= COMPARISONS_MAX or present_scope() != scope:
            return


def scope_of(
    roots: Iterable[Path],
    marks: Iterable[Path] = (),
    closed: frozenset[str] = frozenset(),
) -> Scope:
    """Return the scope of a watch, by the present folders. Never raises."""
    trees: set[str] = set()
    anchors: set[str] = set()
    marked = [*marks]
    holder_of = {parent: os.path.realpath(parent) for parent in {mark.parent for mark in marked}}
    signs = {f"{holder_of[mark.parent]}/{mark.name}" for mark in marked}
    for root in roots:
        _add_links(root, anchors)
        top = os.path.realpath(root)
        trees |= FolderWalk(top, closed).folders()
        repository = directory.git_folder(Path(top))
        if repository is not None:
            folder = os.path.realpath(repository)
            signs |= {f"{folder}/{name}" for name in (*directory.SIGNS, "index", "HEAD")}
    holders = {_existing_parent(os.path.dirname(name)) for name in anchors | signs}  # noqa: PTH120 - a text
    folders: set[tuple[str, int, int]] = set()
    for path in sorted(trees | holders)[:MAX_FOLDERS]:
        try:
            status = Path(path).stat()
        except OSError:
            continue
        folders.add((path, status.st_dev, status.st_ino))
    return Scope(frozenset(folders), frozenset(trees), frozenset(anchors), frozenset(signs))


def _add_links(root: Path, anchors: set[str]) -> None:
    """Add the name of the root, and each link on the way to its target."""
    path = root
    for _ in range(MAX_LINKS):
        holder = Path(os.path.realpath(path.parent))
        anchors.add(str(holder / path.name))
        try:
            path = holder / path.readlink()
        except OSError:
            return  # no link, or no access


def _existing_parent(folder: str) -> str:
    """Return the folder, or its nearest existing parent."""
    path = Path(folder)
    while not directory.is_kind(path, stat.S_ISDIR) and path != path.parent:
        path = path.parent
    return str(path)
