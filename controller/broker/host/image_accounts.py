"""Reads ``/etc/passwd`` and ``/etc/group`` of an image, in the folders of its layers (overlay2).

An image author wrote the folders. So nothing there is followed, and only regular files are read, within
bounds. What is read chooses no right: the numbers are judged, and then written into the request.
"""

from __future__ import annotations

import os
import stat

from controller.broker.host.path_inspector import open_in_root
from controller.core.effective.accounts import FILE_MAX, Accounts

LAYERS_MAX = 128


def read_accounts(layers: tuple[str, ...]) -> Accounts | None:
    """Return the files in the topmost of *layers* that has each; None if they can't be told.

    *layers* are absolute paths, the topmost first. Blocks as long as the file system does.
    """
    if not 0 < len(layers) <= LAYERS_MAX:
        return None
    try:
        return Accounts(_read(layers, "passwd"), _read(layers, "group"))
    except (OSError, ValueError):
        return None


def _read(layers: tuple[str, ...], name: str) -> str:
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
