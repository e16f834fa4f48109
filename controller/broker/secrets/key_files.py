"""Private keys and secret files of the host: opened without links, and only if they are safe.

The folders belong to root (or to the broker's user). A key that others can read is no secret, and
a key that others can write chooses who can write secrets. Both are refused.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.core.secrets.declared import CONTENT_MAX, is_file_name
from controller.model.errors import SecretError

KEYS: Final = Path("/etc/trimtab/keys")
FILES: Final = Path("/etc/trimtab/secrets")
_KEY_BYTES_MAX = 64 * 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The text of a key file, and its path."""

    text: str = field(repr=False)
    place: str


def key_path(namespace: str, folder: Path = KEYS) -> Path:
    """Return the path of a namespace's key."""
    return folder / f"{namespace}.age"


def read_key(namespace: str, folder: Path = KEYS) -> KeyFile:
    """Return a namespace's private key.

    Raises:
        SecretError: there is none, or the file is open to others.
    """
    path = key_path(namespace, folder)
    try:
        data = _read(folder, path.name, size_max=_KEY_BYTES_MAX, closed=True)
    except FileNotFoundError:
        raise SecretError(
            "secret.key-missing",
            f"there is no private key for the namespace {namespace}: {path}",
            remedy=f"sudo trimtab secret keygen {namespace}",
        ) from None
    try:
        return KeyFile(data.decode("ascii"), str(path))
    except UnicodeDecodeError:
        raise SecretError(
            "secret.key-invalid",
            f"{path} isn't a text",
            remedy=f"make a key with `trimtab secret keygen {namespace}`",
        ) from None


def read_host_file(namespace: str, name: str, folder: Path = FILES) -> bytes:
    """Return a secret file of the host, below the namespace's folder.

    Raises:
        SecretError: no such file, a link on the way, not a regular file, or open to others.
    """
    if not is_file_name(name):
        raise SecretError(
            "secret.file",
            f"{name[:100]!r} names no file below {folder / namespace}",
            remedy="write a relative path without . and ..",
        )
    try:
        return _read(folder, f"{namespace}/{name}", size_max=CONTENT_MAX, closed=True)
    except FileNotFoundError:
        raise SecretError(
            "secret.file-missing",
            f"there is no file {folder / namespace / name}",
            remedy=f"create it: install -m 600 -D FILE {folder / namespace / name}; trimtab looks again within a "
            "minute, and `trimtab apply` at once",
        ) from None


def _read(folder: Path, name: str, *, size_max: int, closed: bool) -> bytes:
    """Read a file below a folder, step by step. Raises FileNotFoundError and SecretError."""
    try:
        handle = os.open(folder, _FLAGS | os.O_DIRECTORY)
    except FileNotFoundError:
        raise
    except OSError as error:
        what = f"can't be opened by the broker, or is a link ({error.strerror})"
        raise _unsafe(folder, what, "make it a folder of root") from None
    path = folder
    try:
        _check(os.fstat(handle), path, forbidden=_OTHERS_WRITE)
        *steps, last = name.split("/")
        for step in steps:
            path /= step
            handle = _step(handle, step, path, os.O_DIRECTORY)
            _check(os.fstat(handle), path, forbidden=_OTHERS_WRITE)
        path /= last
        handle = _step(handle, last, path, 0)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _unsafe(path, "isn't a regular file", "write a regular file there")
        _check(status, path, forbidden=_OTHERS if closed else _OTHERS_WRITE)
        data = os.read(handle, size_max + 1)
        if len(data) > size_max:
            raise _unsafe(path, f"has more than {size_max} bytes", "shorten the file")
        return data
    finally:
        os.close(handle)


def _step(handle: int, name: str, path: Path, flags: int) -> int:
    """Open the next step of a path, and close the one before."""
    try:
        found = os.open(name, _FLAGS | flags, dir_fd=handle)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise _unsafe(
                path, "is a link, or no folder", "replace it by the file itself"
            ) from None
        if error.errno in {errno.EACCES, errno.EPERM, errno.ENXIO}:
            raise _unsafe(path, "can't be opened by the broker", "give the file to root") from None
        raise
    os.close(handle)
    return found


def _check(status: os.stat_result, path: Path, *, forbidden: int) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise _unsafe(path, f"belongs to uid {status.st_uid}", f"chown root {path}")
    open_to = stat.S_IMODE(status.st_mode) & forbidden
    if open_to:
        use = "read or changed" if open_to & ~_OTHERS_WRITE else "changed"
        mode = stat.S_IMODE(status.st_mode)
        raise _unsafe(path, f"can be {use} by others (mode {mode:04o})", f"chmod go= {path}")


def _unsafe(path: Path, what: str, remedy: str) -> SecretError:
    return SecretError("secret.file-open", f"{path} {what}", remedy=remedy)
