"""Facts of the host for the rules: CDI files, routes, users of a uid, and accounts of an image.

Reads the files with CDI specifications of the host, within bounds.

The routes of the engine's network namespace, in which its networks are.

Who has a uid on this host: accounts, ranges of other namespaces, and processes.

Reads ``/etc/passwd`` and ``/etc/group`` of an image, in the folders of its layers (overlay2).

An image author wrote the folders. So nothing there is followed, and only regular files are read, within
bounds. What is read chooses no right: the numbers are judged, and then written into the request.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from controller.broker.host.path_inspector import open_in_root
from controller.core.effective import FILE_MAX, Accounts
from controller.core.engine_api.cdi import FOLDERS, CdiFile
from controller.core.rules.host_routes import (
    EVERYWHERE,
    EVERYWHERE_IPV6,
    parse_ipv6_routes,
    parse_routes,
)
from controller.system.systemd import OWN_ROOT, differing_folder, root_of, server_of

FILES_MAX = 64
FILE_BYTES_MAX = 1024 * 1024
_SUFFIXES = (".json", ".yaml", ".yml")


def read_files(folders: tuple[str, ...] = FOLDERS) -> tuple[CdiFile, ...]:
    """Return the specifications of the folders; a missing folder has none.

    A file that can't be read as a whole, or that a user other than root could have written, comes
    without a content: the engine can read it, and it can define any device.
    """
    found: list[CdiFile] = []
    for path in (path for folder in folders for path in _paths(folder)):
        if len(found) == FILES_MAX:
            return (*found, CdiFile(path, None))
        found.append(CdiFile(path, _read(path)))
    return tuple(found)


def _paths(folder: str) -> Iterator[str]:
    try:
        paths = sorted(Path(folder).iterdir())
    except OSError:
        return
    for path in paths:
        if path.suffix in _SUFFIXES and (path.is_symlink() or not path.is_dir()):
            yield str(path)  # the engine reads no folder below


def _read(path: str) -> bytes | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status, folder = os.fstat(handle), Path(path).parent.stat()
        others = (status.st_mode | folder.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(status.st_mode) or others or {status.st_uid, folder.st_uid} != {0}:
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(FILE_BYTES_MAX + 1)
    finally:
        os.close(handle)
    return content if len(content) <= FILE_BYTES_MAX else None


def engine_routes(engine_socket: str) -> tuple[str, ...]:
    """Return the networks to which the host of an engine has routes.

    If these can't be read, the broker's own routes: most engines share its network namespace.
    """
    try:
        return _routes(Path(f"/proc/{server_of(engine_socket)}/net"))
    except (OSError, ValueError):
        return host_routes()


def other_view(engine_socket: str) -> str:
    """Return the first folder that the engine's process sees otherwise; '' if none, or unknown.

    Unknown is the view of an engine that is away, of another pid namespace, or of another user.
    """
    try:
        pid = server_of(engine_socket)
        return differing_folder(OWN_ROOT, root_of(pid)) if pid else ""
    except OSError:
        return ""


def host_routes(folder: Path = Path("/proc/self/net")) -> tuple[str, ...]:
    """Return the networks in the host's routing tables, everything if a table can't be read."""
    try:
        return _routes(folder)
    except (OSError, ValueError):
        return (EVERYWHERE, EVERYWHERE_IPV6)


def _routes(folder: Path) -> tuple[str, ...]:
    found = parse_routes((folder / "route").read_text("ascii"))
    try:
        return (*found, *parse_ipv6_routes((folder / "ipv6_route").read_text("ascii")))
    except FileNotFoundError:
        return (*found, EVERYWHERE_IPV6)  # a kernel without IPv6: no network there has any


ETC, PROC = Path("/etc"), Path("/proc")


def find_user(uid: int, own: tuple[str, ...], *, etc: Path = ETC, proc: Path = PROC) -> str:
    """Return who has a uid or the gid of the same number; '' for nobody.

    *own* are the ids of containers whose processes don't count. What can't be read counts as taken.
    """
    try:
        found = (*_accounts(uid, etc), *_processes(uid, own, proc))
    except (OSError, ValueError) as error:
        return f"somebody, perhaps ({error})"
    return next(iter(found), "")


def _accounts(uid: int, etc: Path) -> Iterator[str]:
    for name, columns in (("passwd", (2, 3)), ("group", (2,))):
        for line in _lines(etc / name):
            if str(uid) in {line[column] for column in columns if column < len(line)}:
                yield f"the account {line[0]} in {etc / name}"
    for name in ("subuid", "subgid"):
        for line in _lines(etc / name):
            if len(line) == 3 and int(line[1]) <= uid < int(line[1]) + int(line[2]):
                yield f"the range of {line[0]} in {etc / name}"


def _lines(file: Path) -> list[list[str]]:
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line.split(":") for line in text.splitlines() if ":" in line]


def _processes(uid: int, own: tuple[str, ...], proc: Path) -> Iterator[str]:
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            status = (folder / "status").read_text("utf-8", "replace").splitlines()
            ids = {word for line in status if line[:4] in ("Uid:", "Gid:") for word in line.split()}
            if str(uid) in ids and not _is_own(folder, own):
                yield f"the process {folder.name}"
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile


def _is_own(folder: Path, own: tuple[str, ...]) -> bool:
    cgroup = (folder / "cgroup").read_text("utf-8", "replace")
    return any(each in cgroup for each in own)


LAYERS_MAX = 128


def read_accounts(layers: tuple[str, ...]) -> Accounts | None:
    """Return the files in the topmost of *layers* that has each; None if they can't be told.

    *layers* are absolute paths, the topmost first. Blocks as long as the file system does.
    """
    if not 0 < len(layers) <= LAYERS_MAX:
        return None
    try:
        return Accounts(_read_accounts(layers, "passwd"), _read_accounts(layers, "group"))
    except (OSError, ValueError):
        return None


def _read_accounts(layers: tuple[str, ...], name: str) -> str:
    """Return the text of ``/etc/NAME``, '' if no layer has it.

    Raises:
        OSError: a layer can't be read, or has a link in the file's place.
        ValueError: the file is too long.
    """
    for layer in layers:
        root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if (text := _in_layer(root, name)) is not None:
                return text
        finally:
            os.close(root)
    return ""


def _in_layer(root: int, name: str) -> str | None:
    """Return the file's text, '' if the layer removes it, None if the layer says nothing about it."""
    for path in ("etc", f"etc/{name}"):
        try:
            found = open_in_root(path, root=root, links=False)
        except FileNotFoundError:
            return None
        try:
            mode, device = os.fstat(found).st_mode, os.fstat(found).st_rdev
            if stat.S_ISCHR(mode) and device == 0:  # a whiteout
                return ""
            if path == f"etc/{name}" and not stat.S_ISREG(mode):
                raise OSError(f"{path} isn't a regular file")
            if path != "etc":
                return _text(found)
        finally:
            os.close(found)
    return None


def _text(found: int) -> str:
    handle = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        content = file.read(FILE_MAX + 1)
    if len(content) > FILE_MAX:
        raise ValueError("the file is too long")
    return content.decode("utf-8", "replace")
