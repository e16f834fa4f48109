"""Callers by uid: small processes that drop to a uid, connect, and hand the socket back.

The broker asks the kernel who connected, so another identity takes another process; the
connection itself can then be used from here. Run as a script this file is such a process.
It needs only the standard library, and none of its folder is on its path.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

#: Uids that no user has: the gate asks for no names.
ALICE, BOB, CONTROLLER = 61001, 61002, 61003
#: Viewers: one of alice, with the output of her containers, and one of every owner, without.
VIEWER, VIEWER_OF_ALL = 61021, 61022


class Peer:
    """One caller, for any thread. Its process lives until ``close``: the broker looks at it on each connect."""

    def __init__(self, uid: int, groups: Iterable[int]) -> None:
        self._connecting = threading.Lock()
        self._door, theirs = socket.socketpair()
        member = ",".join(map(str, groups))
        argv = [sys.executable, "-I", str(Path(__file__).resolve())]
        with theirs:
            self._process = subprocess.Popen(
                [*argv, str(theirs.fileno()), str(uid), member],
                pass_fds=[theirs.fileno()],
                cwd="/",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._door.close()
        self._process.wait(timeout=60)

    def connect(self, path: Path) -> socket.socket:
        """Return a connection that was made by this caller."""
        with self._connecting:
            self._door.sendall(os.fsencode(path) + b"\n")
            told, handed, _, _ = socket.recv_fds(self._door, 256, 1)
        if not handed:
            raise ConnectionError(told.decode(errors="replace") or "the caller's process ended")
        return socket.socket(fileno=handed[0])


def main(door_number: int, uid: int, groups: list[int]) -> None:
    """Become *uid*, then connect to whatever path comes in, until the door closes."""
    os.setgroups(groups)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    door = socket.socket(fileno=door_number)
    while path := door.recv(4096):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
            try:
                made.connect(path.rstrip(b"\n"))
            except OSError as error:
                door.sendall(str(error).encode())
                continue
            socket.send_fds(door, [b"connected"], [made.fileno()])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [int(part) for part in sys.argv[3].split(",") if part])
