"""Changes in folders, by inotify(7): no processor time while nothing changes.

A lost event is possible (a full queue, a folder that is missing at the start), so that callers also
compare from time to time.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Iterable
from typing import Final, Self

_libc = ctypes.CDLL(None, use_errno=True)

IN_MODIFY: Final = 0x0002
IN_ATTRIB: Final = 0x0004
IN_CLOSE_WRITE: Final = 0x0008
IN_MOVED_FROM: Final = 0x0040
IN_MOVED_TO: Final = 0x0080
IN_CREATE: Final = 0x0100
IN_DELETE: Final = 0x0200
IN_DELETE_SELF: Final = 0x0400
IN_MOVE_SELF: Final = 0x0800
IN_ONLYDIR: Final = 0x0100_0000

WATCHED: Final = (
    IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO
    | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
)  # fmt: skip
#: struct inotify_event without its name: watch, mask, cookie, length of the name.
_EVENT: Final = struct.Struct("iIII")
READ_BYTES: Final = 64 * 1024


class FolderChanges:
    """The changes in some folders, not in folders below these. Closed at the end of a ``with``.

    A folder that is missing, or that this user can't read, is left out.

    Raises:
        OSError: the host has no inotify instance, or no more watches, for this user.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _failure("inotify_init1")
        self._folders: dict[int, str] = {}
        try:
            for folder in folders:
                self._add(folder)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._fd)

    def _add(self, folder: str) -> None:
        watch = _libc.inotify_add_watch(self._fd, os.fsencode(folder), WATCHED)
        if watch >= 0:
            self._folders[watch] = folder
            return
        error = _failure("inotify_add_watch")
        if not isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            raise error

    def read(self, *, within_s: float) -> set[str]:
        """Return the changed paths; wait at most *within_s* seconds for the first one.

        A folder itself stands for its end, and each folder for a full queue.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(within_s * 1000):
            return set()
        data, at, paths = os.read(self._fd, READ_BYTES), 0, set[str]()
        while at < len(data):
            watch, _mask, _cookie, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            folder = self._folders.get(watch)
            if folder is None:
                paths.update(self._folders.values())
            else:
                paths.add(f"{folder}/{name}" if name else folder)
        return paths


def _failure(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
