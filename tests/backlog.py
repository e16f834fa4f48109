"""A Unix socket that is too busy: its backlog is full, and nothing is accepted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def filled(listener: socket.socket, path: Path) -> Iterator[None]:
    """Fill the backlog of a listener on *path* with clients, and close the clients afterwards."""
    listener.listen(1)
    with ExitStack() as clients:
        while True:
            client = clients.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        yield
