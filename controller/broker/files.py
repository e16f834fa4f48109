"""The broker's delivered files on disk: stored contents, and the folders that containers mount.

The folders that containers mount: made whole under another name, then renamed.

A folder of a variant never changes. A stable folder has a link ``..data`` to the folder of the
content of now; the link moves by one rename, so that a container sees one content or the other.
Every name of the first level is a link through ``..data``, as in Kubernetes' volumes.

The store of delivered files: contents by their id, and the folders made of them.

``CONTENTS/KIND/NAMESPACE/NAME/CONTENT`` is a content, ``…/NAME/variants/VARIANT`` lists the folders
that exist of a variant, and ``…/NAME/current`` is the id of the content delivered last. Each file is
replaced as a whole, so that a crash leaves one state or the other. Making a folder again, or
storing a content again, changes nothing.

The upkeep of delivered files: folders that are missing come back, unneeded contents go.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from controller.broker.gate.commands import (
    NOT_STORED,
    UNUSABLE,
    OpenSecret,
    SecretNotOpened,
    SecretOpened,
    SecretValue,
)
from controller.broker.gate.state import GateState
from controller.core.files import content as blob
from controller.core.files.content import (
    DATA_LINK,
    DamagedContent,
    UnopenedContent,
    config_root,
    content_folder,
    content_id,
    content_of,
    folder_of,
    used_contents,
    variant_id,
)
from controller.model.crashpoints import Reach, pass_by
from controller.model.delivery import FileSet, Variant
from controller.model.inventory import Inventory
from controller.system.durable_files import fsync_folder, write_atomic
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


#: The kind of files with folders in memory.
IN_MEMORY = "secret"
#: The prefix of the crash points of a file in the store.
_POINTS = "files.content"
_REMAPPED = re.compile(r".*/([0-9]{1,10})\.[0-9]{1,10}/volumes", re.ASCII)

#: Returns the files of a stored content. Raises DamagedContent and UnopenedContent.
OpenContent = Callable[[FileSet, str, bytes], Mapping[str, bytes]]

OpenSecretFunction = Callable[[OpenSecret], SecretOpened | SecretNotOpened]


def refuse_secrets(_command: OpenSecret) -> SecretNotOpened:
    """Return the answer of a broker without memory to deliver Secrets in."""
    reason = "there is no tmpfs at /run or /dev/shm to deliver Secrets in"
    return SecretNotOpened("secret.no-memory", reason, "mount one, and start the broker again")


def first_id(volumes_root: str) -> int:
    """Return the host's id of the containers' root: an engine with a user namespace keeps its data
    in a folder named by the first uid and gid.
    """
    match = _REMAPPED.fullmatch(volumes_root)
    return int(match[1]) if match else 0


def open_config(_files: FileSet, content: str, stored: bytes) -> Mapping[str, bytes]:
    """Return the files of a Config, whose bytes have the id *content*.

    Raises:
        DamagedContent: the stored bytes are others.
    """
    files = blob.decode_blob(stored)
    if content_id(files) != content:
        raise DamagedContent("its bytes have changed")
    return files


@dataclass(frozen=True, slots=True)
class _Made:
    """The folders that exist of a variant."""

    variant: Variant
    contents: tuple[str, ...] = ()
    #: True if the stable folder exists.
    stable: bool = False
    #: The first id of the user namespace in which the folders were made.
    first_id: int = 0


@dataclass(slots=True)
class FileStore:
    """The delivered files of an instance. Thread-safe; one change at a time."""

    #: The folder of the contents.
    contents: Path
    #: The folder of the mounted folders, by kind.
    roots: Mapping[str, Path]
    openers: Mapping[str, OpenContent] = field(default_factory=lambda: {"config": open_config})
    open_secret: OpenSecretFunction = refuse_secrets
    forget_secret: Callable[[FileSet], bool] = lambda _files: False
    first_id: Callable[[], int] = lambda: 0
    reach: Reach = pass_by
    _lock: threading.Lock = field(default_factory=threading.Lock)
    #: The contents stored, and the folders made, since the last collection: their records can be on
    #: the way.
    _fresh: set[tuple[FileSet, str]] = field(default_factory=set)

    def put(self, files: FileSet, content: str, stored: bytes | None) -> str:
        """Store a content and let the stable folders of its name show it.

        Return why it isn't stored, '' for success. Without bytes nothing is stored: '' if the
        content is stored already, and is the current one.
        """

        def change() -> None:
            place = self._place(files)
            if stored is None:
                if (place / "current").read_text() != content:
                    raise FileNotFoundError
                self._open(files, content)
                return
            if not self._variants(files):
                self._recognise(files)
            (place / "variants").mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fresh.add((files, content))
            self._write(place / content_folder(content), stored)
            self._write(place / "current", content.encode())
            for made in self._variants(files):
                if made.stable:
                    self._point(files, content, made)

        return self._guarded(change)

    def make(
        self, files: FileSet, content: str, variant: Variant | str, *, stable: bool = False
    ) -> str:
        """Make the folder of a variant, unless it exists. A text is the id of a known variant.

        Return why the folder isn't there, '' for success.
        """

        def change() -> None:
            made = self._made(files, variant)
            if files.kind == IN_MEMORY:
                self._fresh.add((files, content))
            if stable:
                current = (self._place(files) / "current").read_text()
                self._remember(files, replace(made, stable=True))
                self._point(files, current, made)
                return
            folder = self._folder(files, content, made.variant)
            opened = None if folder.is_dir() else self._open(files, content)
            if content not in made.contents:  # also if the record of a folder is lost
                self._remember(files, replace(made, contents=(*made.contents, content)))
            if opened is not None:
                self._writer(made).make(folder, opened, made.variant)

        return self._guarded(change)

    def read(self, files: FileSet, content: str, key: str) -> SecretValue | str:
        """Return one file of a stored content, or why the file can't be read."""
        found: list[bytes] = []
        reason = self._guarded(lambda: found.append(self._open(files, content)[key]))
        return reason or SecretValue(found[0])

    def forget(self, files: FileSet) -> bool | str:
        """Forget the generated values of a Secret. Return whether there were any, or why they stay."""
        try:
            return self.forget_secret(files)
        except OSError as error:
            return str(error.strerror)

    def restore(self, *, missing_only: bool = False) -> Iterator[tuple[FileSet, str]]:
        """Make the former folders again. Yield each folder that can't be made, with the reason.

        With *missing_only*, stable folders that exist stay as they are: their content can be later than
        what a restored state folder knows.
        """
        for files in self._all():
            for made in self._variants(files):
                wanted = [(content, False) for content in made.contents]
                is_stable = made.stable and not (
                    missing_only and self._folder(files, "", made.variant, stable=True).is_dir()
                )
                for content, stable in [*wanted, *([("", True)] if is_stable else [])]:
                    reason = self.make(files, content, variant_id(made.variant), stable=stable)
                    if reason:
                        yield files, reason

    def collect(self, kept: Mapping[str, frozenset[str]]) -> None:
        """Remove the contents that the inventory doesn't have, with their folders.

        *kept* has the ids of contents by ``str(FileSet)``. A content that was stored since the last
        collection stays: the inventory can be older.
        """
        with self._lock:
            fresh, self._fresh = self._fresh, set()
            for files in self._all():
                new = frozenset(content for each, content in fresh if each == files)
                known = kept.get(str(files), frozenset()) | new
                place = self._place(files)
                folders = {content_folder(content) for content in known}
                for path in place.iterdir():
                    if path.is_file() and path.name != "current" and path.name not in folders:
                        path.unlink()
                for made in self._variants(files):
                    left = tuple(each for each in made.contents if each in known)
                    if left != made.contents:
                        self._remember(files, replace(made, contents=left))
                top = self.roots[files.kind] / files.namespace / files.name
                for path in top.iterdir() if top.is_dir() else ():
                    if path.name not in folders and not path.name.startswith("current-"):
                        shutil.rmtree(path, ignore_errors=True)
                if not known:
                    shutil.rmtree(place, ignore_errors=True)
                    shutil.rmtree(top, ignore_errors=True)

    def clear_memory(
        self, mounted: Mapping[str, frozenset[str]], *, everything: bool = False
    ) -> None:
        """Remove the folders of Secrets that no container mounts: plain text goes with its use.

        A folder is made again before the next create or start. *mounted* has the ids of contents by
        ``str(FileSet)``. Folders made since the last collection stay, unless *everything* goes:
        their containers may be on the way.
        """
        with self._lock:
            for files in self._all():
                if files.kind != IN_MEMORY:
                    continue
                used = mounted.get(str(files), frozenset())
                fresh = frozenset(content for each, content in self._fresh if each == files)
                self._clear(files, used if everything else used | fresh)

    def _clear(self, files: FileSet, used: frozenset[str]) -> None:
        root = self.roots[files.kind]
        top = root / files.namespace / files.name
        for made in self._variants(files):
            left = tuple(each for each in made.contents if each in used)
            stable = made.stable and bool(used)
            if (left, stable) != (made.contents, made.stable):
                self._remember(files, replace(made, contents=left, stable=stable))
        folders = {content_folder(content) for content in used}
        for path in top.iterdir() if top.is_dir() else ():
            is_stable = path.name.startswith("current-")
            if not used if is_stable else path.name not in folders:
                shutil.rmtree(path, ignore_errors=True)
        for folder in (top, top.parent, root):
            with suppress(OSError):  # another Secret is there, or nothing
                folder.rmdir()

    # Parts

    def _writer(self, made: _Made) -> FolderWriter:
        return FolderWriter(made.first_id, self.reach)

    def _guarded(self, change: Callable[[], None]) -> str:
        with self._lock:
            try:
                change()
            except DamagedContent as error:
                return f"{UNUSABLE}: {error}"
            except UnopenedContent as error:
                return f"the content can't be opened now: {error}"
            except FileNotFoundError:
                return NOT_STORED
            except PermissionError as error:
                return f"{error.strerror}: files of another user need a broker that runs as root"
            except KeyError as error:
                return f"the content has no file {error}"
            except OSError as error:
                return f"the files can't be written: {error.strerror}"
        return ""

    def _place(self, files: FileSet) -> Path:
        return self.contents / files.kind / files.namespace / files.name

    def _folder(
        self, files: FileSet, content: str, variant: Variant, *, stable: bool = False
    ) -> Path:
        return self.roots[files.kind] / folder_of(files, content, variant, stable=stable)

    def _open(self, files: FileSet, content: str) -> Mapping[str, bytes]:
        stored = (self._place(files) / content_folder(content)).read_bytes()
        return self.openers[files.kind](files, content, stored)

    def _point(self, files: FileSet, content: str, made: _Made) -> None:
        folder = self._folder(files, content, made.variant, stable=True)
        opened = self._open(files, content)
        self._writer(made).point(folder, content_folder(content), opened, made.variant)

    def _write(self, path: Path, data: bytes) -> None:
        write_atomic(path, data, reach=self.reach, points=_POINTS)

    def _made(self, files: FileSet, variant: Variant | str) -> _Made:
        """Return the folders of a variant.

        Raises:
            FileNotFoundError: no folder of a variant with that id was ever made.
        """
        name = variant if isinstance(variant, str) else variant_id(variant)
        path = self._place(files) / "variants" / name
        if isinstance(variant, Variant) and not path.is_file():
            return _Made(variant, first_id=self.first_id())
        if not path.is_file():
            self._recognise(files)
        return _read_made(path)

    def _recognise(self, files: FileSet) -> None:
        """Remember the folders of a name whose record is lost.

        The id of a variant shows whether a folder's files have its owner and its mode.
        """
        first = self.first_id()
        top = self.roots[files.kind] / files.namespace / files.name
        for path in sorted(top.iterdir()) if top.is_dir() else ():
            is_stable = path.name.startswith("current-")
            for folder in [path / DATA_LINK] if is_stable else sorted(path.iterdir()):
                name = path.name.removeprefix("current-") if is_stable else folder.name
                variant = find_variant(folder, name, first)
                if variant is None:
                    continue
                known = self._place(files) / "variants" / name
                made = _read_made(known) if known.is_file() else _Made(variant, first_id=first)
                found = {*made.contents} | (
                    set() if is_stable else {content_of(files.kind, path.name)}
                )
                stable = made.stable or is_stable
                self._remember(files, replace(made, contents=tuple(sorted(found)), stable=stable))

    def _variants(self, files: FileSet) -> list[_Made]:
        folder = self._place(files) / "variants"
        names = (
            sorted(p for p in folder.iterdir() if not p.name.startswith("."))
            if folder.is_dir()
            else []
        )
        return [_read_made(path) for path in names]

    def _remember(self, files: FileSet, made: _Made) -> None:
        path = self._place(files) / "variants" / variant_id(made.variant)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write(path, json.dumps(asdict(made)).encode())

    def _all(self) -> Iterator[FileSet]:
        for kind in self.roots:
            top = self.contents / kind
            for namespace in sorted(top.iterdir()) if top.is_dir() else ():
                for name in sorted(namespace.iterdir()):
                    if name.is_dir():
                        yield FileSet(kind, namespace.name, name.name)


def _read_made(path: Path) -> _Made:
    members = json.loads(path.read_text())
    variant = members["variant"]
    return _Made(
        Variant(**{**variant, "keys": tuple(variant["keys"])}),
        tuple(members["contents"]),
        stable=members["stable"],
        first_id=members["first_id"],
    )


LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SecretDelivery:
    """How Secrets are delivered: into a folder in memory, opened from ciphertext."""

    root: Path
    open: OpenContent
    answer: OpenSecretFunction
    forget: Callable[[FileSet], bool]


def restore(state_folder: Path, secrets: SecretDelivery | None) -> list[tuple[str, str]]:
    """Make every folder again that containers mount. Return those that can't be made, with the reason.

    No broker serves the state folder meanwhile.
    """
    roots, openers = _kinds(state_folder, secrets)
    store = FileStore(state_folder / "broker" / "files", roots, openers)
    return [(str(files), reason) for files, reason in store.restore()]


def _kinds(
    state_folder: Path, secrets: SecretDelivery | None
) -> tuple[dict[str, Path], dict[str, OpenContent]]:
    """Return the folders that containers mount files from, and how contents are opened, by kind."""
    roots = {"config": Path(config_root(str(state_folder)))}
    openers: dict[str, OpenContent] = {"config": open_config}
    if secrets is not None:
        roots["secret"], openers["secret"] = secrets.root, secrets.open
    return roots, openers


def open_store(
    state_folder: Path, state: GateState, reach: Reach, secrets: SecretDelivery | None = None
) -> FileStore:
    """Return the store in a state folder, and let *state* name its folders."""
    roots, openers = _kinds(state_folder, secrets)
    state.file_roots = {kind: str(root) for kind, root in roots.items()}
    contents = state_folder / "broker" / "files"
    return FileStore(
        contents,
        roots,
        openers,
        open_secret=secrets.answer if secrets is not None else refuse_secrets,
        forget_secret=secrets.forget if secrets is not None else lambda _files: False,
        first_id=lambda: first_id(state.volumes_root),
        reach=reach,
    )


async def run_upkeep(files: FileStore, state: GateState, *, every_s: float) -> None:
    """Make missing folders again, once; then remove unneeded contents, again and again.

    A fault of the disk ends neither. At the end, no folder in memory stays that is not mounted. While
    containers of this instance are unknown, nothing is removed: they may mount what the inventory lacks.
    """
    try:
        await _keep_up(files, state, every_s)
    finally:
        with suppress(OSError, ValueError):
            if state.split_brain.is_alone and not state.inventory.restored:
                files.clear_memory(_mounted(state.inventory), everything=True)


async def _keep_up(files: FileStore, state: GateState, every_s: float) -> None:
    try:
        missing_only = bool(state.inventory.restored)
        made = await asyncio.to_thread(lambda: list(files.restore(missing_only=missing_only)))
        for failed, reason in made:
            LOG.error("files.unrestored files=%s error=%s", failed, reason)
    except (OSError, ValueError):
        LOG.exception("files.unrestored by a fault")
    while True:
        await asyncio.sleep(every_s)
        if not state.split_brain.is_alone or state.inventory.restored:
            continue
        try:
            await asyncio.to_thread(files.clear_memory, _mounted(state.inventory))
            await asyncio.to_thread(files.collect, kept_contents(state.inventory))
        except (OSError, ValueError):
            LOG.exception("files.uncollected by a fault")


def _mounted(inventory: Inventory) -> Mapping[str, frozenset[str]]:
    """Return the contents that containers mount, by ``str(FileSet)``."""
    mounted: dict[str, set[str]] = {}
    for files, content in used_contents(inventory):
        mounted.setdefault(str(files), set()).add(content)
    return {key: frozenset(contents) for key, contents in mounted.items()}


def kept_contents(inventory: Inventory) -> Mapping[str, frozenset[str]]:
    """Return the contents that stay, by ``str(FileSet)``: those of the inventory, and of containers.

    A content that was lost left the inventory, and its folder can be mounted still.
    """
    kept = dict(_mounted(inventory))
    for key, each in inventory.files.items():
        kept[key] = kept.get(key, frozenset()) | {c.content for c in each.contents}
    return kept
