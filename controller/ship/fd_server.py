"""Open the journal's files in a privileged process, for the unprivileged shipper.

The journal is private to the broker's user. ``trimtab ship`` as root keeps one small process that
opens the journal's files read-only, and passes their descriptors to the unprivileged process. The
unprivileged process parses the files and talks to the network. As a unit of its own, the shipper
starts without root, and the broker opens the files, for the shipper's user alone. File names are checked, links aren't
followed, and there is no other request.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final, Protocol

from controller.journal.store.chain import BASE_NAME
from controller.journal.store.segments import MARK_NAME, list_segments
from controller.model.errors import StateError
from controller.system.conversation import peer_uid_of

_NAME = re.compile(r"[0-9]{20}\.jsonl(?:\.gz)?|\.head|\.pruned")
_LIST: Final = b"list"
_PACKET_BYTES: Final = 64 * 1024
#: The pause after an accept that failed for want of resources.
PAUSE_S: Final = 1.0
#: Names in one answer, the newest ones: no shipper lags behind by more segments.
_NAMES_MAX: Final = 1500
assert _NAME.fullmatch(MARK_NAME) and _NAME.fullmatch(BASE_NAME)


class JournalFiles(Protocol):
    """Read access to the journal's files."""

    def names(self) -> tuple[str, ...]:
        """Return the segments in order.

        Raises:
            OSError: the folder can't be listed.
        """
        ...

    def open(self, name: str) -> int:
        """Return a read-only descriptor of a file; the caller closes the descriptor.

        Raises:
            OSError: the file is missing, or can't be opened.
        """
        ...


class LocalFiles:
    """The files of a folder readable by this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> tuple[str, ...]:
        """Return the segments in order."""
        return tuple(path.name for path in list_segments(self._folder))

    def open(self, name: str) -> int:
        """Return a descriptor of a file."""
        if not _NAME.fullmatch(name):
            raise FileNotFoundError(2, "no file of a journal", name)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        handle = os.open(self._folder / name, flags)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise FileNotFoundError(2, "no ordinary file", name)
        return handle


class RemoteFiles:
    """The files of a folder, opened by another process (``serve``). Thread-safe."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._lock = threading.Lock()

    def names(self) -> tuple[str, ...]:
        """Return the segments in order."""
        answer, _ = self._ask(_LIST)
        return tuple(answer.decode().split())

    def open(self, name: str) -> int:
        """Return a descriptor of a file."""
        _, (handle, *_) = self._ask(name.encode())
        return handle

    def close(self) -> None:
        """End the connection."""
        self._peer.close()

    def _ask(self, question: bytes) -> tuple[bytes, list[int]]:
        with self._lock:
            try:
                self._peer.sendall(question)
                answer, handles, _, _ = socket.recv_fds(self._peer, _PACKET_BYTES, 1)
            except OSError as error:
                raise _gone() from error
        if not answer:
            raise _gone()
        if answer.startswith(b"-"):
            number = int(answer[1:])
            raise OSError(number, os.strerror(number), question.decode())
        return answer.removeprefix(b"+"), handles


def serve(peer: socket.socket, files: JournalFiles) -> None:
    """Answer requests until the peer closes its end."""
    with contextlib.suppress(OSError):
        while question := peer.recv(_PACKET_BYTES):
            _answer(peer, question, files)


def serve_connections(
    listener: socket.socket, files: JournalFiles, *, uids: Collection[int]
) -> None:
    """Serve the connections of users, one after the other, until the listener is shut down."""
    listener.setblocking(True)
    while True:
        try:
            peer, _ = listener.accept()
        except OSError as error:
            if error.errno in {errno.EBADF, errno.EINVAL}:
                return
            time.sleep(PAUSE_S)  # the host has no descriptor left
            continue
        with peer:
            if peer_uid_of(peer) in uids:
                serve(peer, files)


def connect(path: Path) -> RemoteFiles | None:
    """Return the files that the broker opens for this user; None if it serves none at *path*."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        peer.connect(str(path))
    except OSError:
        peer.close()
        return None
    return RemoteFiles(peer)


def _answer(peer: socket.socket, question: bytes, files: JournalFiles) -> None:
    try:
        if question == _LIST:
            peer.sendall(b"+" + " ".join(files.names()[-_NAMES_MAX:]).encode())
            return
        handle = files.open(question.decode("utf-8", "replace"))
    except OSError as error:
        peer.sendall(b"-%d" % (error.errno or 1))
        return
    try:
        socket.send_fds(peer, [b"+"], [handle])
    finally:
        os.close(handle)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets: for ``serve``, and for ``RemoteFiles``."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _gone() -> StateError:
    return StateError(
        "ship.opener-gone",
        "the process that opens the journal's files is gone",
        remedy="start 'trimtab ship' again",
    )
