"""A gate that refuses everything: safe, and useless. The cases must say so."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path

BODY = json.dumps(
    {"message": "no: nothing is served", "trimtab": {"rule": "no", "reason": "nothing is served"}}
).encode()
REPLY = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


class Refuser:
    """Serves *path* until ``close``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=_refuse, args=(connection,), daemon=True).start()


def _refuse(connection: socket.socket) -> None:
    """Answer at once; closing before all was read would cut the answer off."""
    with connection, contextlib.suppress(OSError):
        connection.sendall(REPLY)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(64 * 1024):
            pass
