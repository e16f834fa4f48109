"""Opening the journal's files: by the process that may, for one that may not.

The journal belongs to the broker's user and is closed to everybody else. ``trimtab ship`` as root
keeps one small process that opens these files, read only, and hands their descriptors to the
unprivileged one; that one parses, and talks to the network. Names are checked, links aren't
followed, and nothing else can be asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import threading
from pathlib import Path
from typing import Final, Protocol

from controller.journal.store.pruned_base import BASE_NAME
from controller.journal.store.segments import MARK_NAME, list_segments
from controller.model.errors import StateError

_NAME = re.compile(r"[0-9]{20}\.jsonl(?:\.gz)?|\.head|\.pruned")
_LIST: Final = b"list"
_PACKET_BYTES: Final = 64 * 1024
#: Names told at once; more are older ones that nobody can be behind so far.
_NAMES_MAX: Final = 1500
assert _NAME.fullmatch(MARK_NAME) and _NAME.fullmatch(BASE_NAME)


class JournalFiles(Protocol):
    """The journal's files, as a shipper reads them."""

    def names(self) -> tuple[str, ...]:
        """Return the segments in order.

        Raises:
            OSError: they can't be listed.
        """
        ...

    def open(self, name: str) -> int:
        """Return a descriptor of a file, read only; the caller closes it.

        Raises:
            OSError: it isn't there, or can't be opened.
        """
        ...


class LocalFiles:
    """The files of a folder that this process may read."""

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
    """The files as another process hands them over. Safe to use from several threads."""

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
    """Answer until the other side is gone."""
    with contextlib.suppress(OSError):
        while question := peer.recv(_PACKET_BYTES):
            _answer(peer, question, files)


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
    """Return the two ends: one to serve, one to hand on."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _gone() -> StateError:
    return StateError(
        "ship.opener-gone",
        "the process that opens the journal's files is gone",
        remedy="start 'trimtab ship' again",
    )
