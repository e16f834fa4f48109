"""The Engine API through the broker's socket, with the standard library only.

Supports the calls of ``logs`` and ``exec``: JSON, streamed answers and hijacked connections. The
broker judges each request, and journals reads of output.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

from controller.cli.clients.socket_client import (
    ERROR,
    REPLY_MAX,
    BrokerApi,
    ReceivedBytes,
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
class EngineApi(BrokerApi):
    """Requests to the engine, as the user of the command."""

    prefix: str = f"/{VERSION}"

    def take_over(self, path: str, body: object) -> TakenOver:
        """Send a request that hijacks the connection: a stream in both directions."""
        data = json.dumps(body).encode()
        peer = connect(self.path, self.timeout_s)
        try:
            with translated_errors(self.path):
                target = self.target(path, None)
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
