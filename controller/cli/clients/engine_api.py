"""The Engine API through the broker's socket, with the standard library only.

Supports the calls of ``logs`` and ``exec``: JSON, streamed answers and hijacked connections. The
broker judges each request, and journals reads of output.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from controller.cli.clients.socket_client import (
    ERROR,
    REPLY_MAX,
    TIMEOUT_S,
    BrokerApi,
    ReceivedBytes,
    Streamed,
    connect,
    error_of,
    read_body,
    read_head,
    send,
    translated_errors,
)
from controller.model.errors import EngineFailed

#: The oldest version that the gate supports.
VERSION = "v1.44"
#: The status of a hijacked connection.
SWITCHED = 101


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A hijacked connection; the caller closes it."""

    connection: socket.socket
    content_type: str
    early: bytes  # received together with the head of the answer


@dataclass(frozen=True, slots=True)
class EngineApi:
    """Requests to the engine, as the user of the command; raises the errors of ``BrokerApi``."""

    path: Path
    timeout_s: float = TIMEOUT_S

    @property
    def _broker(self) -> BrokerApi:
        return BrokerApi(self.path, self.timeout_s, prefix=f"/{VERSION}")

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of a GET."""
        return self._broker.get(_target(path, query))

    def post(
        self, path: str, body: object | None = None, query: Mapping[str, str] | None = None
    ) -> Any:
        """Send a body; return the JSON of the answer, None for an empty answer."""
        return self._broker.post(_target(path, query), body)

    def stream(self, path: str, query: Mapping[str, str]) -> AbstractContextManager[Streamed]:
        """Send a GET and yield its body as it arrives, without a timeout."""
        return self._broker.stream(_target(path, query))

    def take_over(self, path: str, body: object) -> TakenOver:
        """Send a request that hijacks the connection: a stream in both directions."""
        data = json.dumps(body).encode()
        target = f"/{VERSION}{_target(path)}"
        peer = connect(self.path, self.timeout_s)
        try:
            with translated_errors(self.path):
                return _taken_over(peer, send(peer, "POST", target, data, upgrades=True))
        except BaseException:
            peer.close()
            raise


def _taken_over(peer: socket.socket, received: ReceivedBytes) -> TakenOver:
    status, headers = read_head(received)
    if status >= ERROR:
        raise error_of(status, read_body(received, headers, longest=REPLY_MAX))
    if status != SWITCHED:
        raise EngineFailed("exec.not-upgraded", f"the connection wasn't taken over: {status}")
    peer.settimeout(None)
    return TakenOver(peer, headers.get("content-type", ""), received.rest())


def _target(path: str, query: Mapping[str, str] | None = None) -> str:
    return f"{quote(path)}?{urlencode(query)}" if query else quote(path)
