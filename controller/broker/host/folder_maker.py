"""Folders of the host that the broker makes for the mounts of documents."""

from __future__ import annotations

import os

from controller.broker.host.path_inspector import open_without_links

_MODE = 0o755


def make_folder(path: str, uid: int) -> str:
    """Make a missing folder with the missing ones above it, for the user and the group *uid*.

    No link is followed. Return why it failed, '' for success, also if the folder is there.
    """
    try:
        handle = open_without_links("/")
        try:
            for name in path.split("/")[1:]:
                below = _open_or_make(name, handle, uid)
                os.close(handle)
                handle = below
        finally:
            os.close(handle)
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _open_or_make(name: str, folder: int, uid: int) -> int:
    try:
        return open_without_links(name, folder=folder)
    except FileNotFoundError:
        os.mkdir(name, _MODE, dir_fd=folder)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(name, flags, dir_fd=folder)
    try:
        # The user of the folder above can put another one there: a folder of root's has contents.
        if os.fstat(made).st_uid != os.geteuid() or os.listdir(made):  # noqa: PTH208
            raise PermissionError(0, "somebody else put another folder there")
        os.fchmod(made, _MODE)
        if uid != os.geteuid():
            os.fchown(made, uid, uid)
    except OSError:
        os.close(made)
        raise
    return made
