"""Watching the files: a change wakes, and says nothing more.

A watch may miss changes and dies silently with the folder it is on, so it is never relied on: each
wakeup means "read everything", the folders are looked at again after each change and every second,
and the watch is made anew when they differ, or after a minute. So folders that are made, recreated
or swapped behind a link are followed, and a lost event costs a second.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from controller.sources import git
from controller.sources.safe_read import FolderWalk

QUIET_MS = 100  # a batch of changes ends when this long nothing more changed
BATCH_MS = 5_000  # or when it is this long
LOOK_MS = 1_000  # how often the folders are looked at without any change
LOOKS = 60  # without any change, until the watch is made anew
RETRY_S = 0.5
MAX_FOLDERS = 10_000
MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class Scope:
    """What is watched: folders with their (device, inode).

    ``trees`` are those whose every entry matters, ``anchors`` the roots and the links to them,
    ``signs`` what Git shows of its work.
    """

    folders: frozenset[tuple[str, int, int]]
    trees: frozenset[str]
    anchors: frozenset[str]
    signs: frozenset[str]

    def paths(self) -> list[str]:
        """Return the folders to watch."""
        return sorted(path for path, _, _ in self.folders)

    def concerns(self, path: str) -> bool:
        """Tell whether a change at *path* may be one of the desired state."""
        inside = os.path.dirname(path) in self.trees  # noqa: PTH120 - called for each change
        return inside or path in self.signs or self.is_shaken_by(path)

    def is_shaken_by(self, path: str) -> bool:
        """Tell whether a change at *path* may have ended a watch."""
        return path in self.anchors or path in self.trees


def watch(
    root: Path,
    wake: Callable[[], None],
    stop: threading.Event,
    *,
    also: Iterable[Path] = (),
    look_ms: int = LOOK_MS,
) -> None:
    """Call *wake* after each change below *root* (and *also*: the charts) until *stop* is set.

    Blocks the caller's thread and never raises. *root* may be a link, may be missing, and may
    become another folder. It wakes once after each start of a watch too: what changed just before.
    """
    roots = (root.absolute(), *(path.absolute() for path in also))
    while not stop.is_set():
        try:
            _watch_once(roots, wake, stop, look_ms)
        except Exception:  # noqa: BLE001 - no inotify left, a folder gone meanwhile: look again
            stop.wait(RETRY_S)
            wake()


def _watch_once(
    roots: tuple[Path, ...], wake: Callable[[], None], stop: threading.Event, look_ms: int
) -> None:
    """Watch until the folders differ from those at the start."""
    scope = scope_of(roots)
    batches = watchfiles.watch(
        *scope.paths(),
        watch_filter=None,
        debounce=BATCH_MS,
        step=QUIET_MS,
        stop_event=stop,
        rust_timeout=look_ms,
        yield_on_timeout=True,
        raise_interrupt=False,
        force_polling=False,
        recursive=False,
        ignore_permission_denied=True,
    )
    for looks, changes in enumerate(batches):
        paths = {path for _, path in changes}
        if looks == 0 or any(scope.concerns(path) for path in paths):
            wake()
        shaken = any(scope.is_shaken_by(path) for path in paths)
        if shaken or looks >= LOOKS or scope_of(roots) != scope:
            return


def scope_of(roots: Iterable[Path]) -> Scope:
    """Return what is to be watched for these roots as the folders are now. Never raises."""
    trees: set[str] = set()
    anchors: set[str] = set()
    signs: set[str] = set()
    for root in roots:
        _add_links(root, anchors)
        top = os.path.realpath(root)
        trees |= FolderWalk(top).folders()
        repository = git.git_folder(Path(top))
        if repository is not None:
            folder = os.path.realpath(repository)
            signs |= {f"{folder}/{name}" for name in (*git.SIGNS, "index", "HEAD")}
    holders = {_existing(os.path.dirname(name)) for name in anchors | signs}  # noqa: PTH120 - a text
    folders: set[tuple[str, int, int]] = set()
    for path in sorted(trees | holders)[:MAX_FOLDERS]:
        try:
            status = Path(path).stat()
        except OSError:
            continue
        folders.add((path, status.st_dev, status.st_ino))
    return Scope(frozenset(folders), frozenset(trees), frozenset(anchors), frozenset(signs))


def _add_links(root: Path, anchors: set[str]) -> None:
    """Add the name of the root, and of each link on the way to what it means."""
    path = root
    for _ in range(MAX_LINKS):
        holder = Path(os.path.realpath(path.parent))
        anchors.add(str(holder / path.name))
        try:
            path = holder / path.readlink()
        except OSError:
            return  # no link, or nothing that can be looked at


def _existing(folder: str) -> str:
    """Return the folder, or the nearest above it that is there."""
    path = Path(folder)
    while not git.is_kind(path, stat.S_ISDIR) and path != path.parent:
        path = path.parent
    return str(path)
