"""A socket that takes an ordinary client's create, and writes down what it sent.

There is no engine behind it: it says of every image that it is here, and of everything else what
the docker command needs to hear before it sends the next request.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from tests.gate.wire import dechunked

_HEAD = "HTTP/1.1 {status} Told\r\nApi-Version: 1.45\r\nOstype: linux\r\nConnection: close\r\n"


class Recorder:
    """Serves *path* in a thread until ``close``; ``requests`` has method, target and body."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[tuple[str, str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def docker(self, *words: str, cwd: Path, environ: dict[str, str]) -> list[tuple[str, str, Any]]:
        """Run the docker command and return what it sent beside its greeting."""
        self.requests.clear()
        host = {"DOCKER_HOST": f"unix://{self.path}", "HOME": str(cwd)}
        subprocess.run(
            ["docker", *words],
            cwd=cwd,
            env={**environ, **host},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=20,
        )
        return [request for request in self.requests if request[1] not in {"/_ping", "/info"}]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        method, target, _ = stream.readline().decode().split(" ")
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", "0")))
        if headers.get("transfer-encoding") == "chunked":
            chunks = b""
            while not chunks.endswith(b"0\r\n\r\n"):
                chunks += stream.readline()
            body = dechunked(chunks)
        path = target.removeprefix("/v1.45")
        self.requests.append((method, path, json.loads(body) if body else None))
        answer = {"Id": "0" * 64, "Name": "x", "Warnings": []}
        told = b"" if method == "HEAD" else json.dumps(answer).encode()
        head = _HEAD.format(status=201 if method == "POST" else 200)
        connection.sendall(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(told)}\r\n\r\n".encode()
            + told
        )
