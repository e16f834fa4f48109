"""Clients for the broker's own routes and the controller's socket, with the standard library only.

Calls to the engine go through ``controller.engine``. Without the Docker SDK, commands such as
``status`` start fast.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.model.errors import (
    EngineFailed,
    EngineUnavailable,
    JournalUnavailable,
    Refused,
    StateError,
)

TIMEOUT_S = 15.0
#: Time for the controller to plan everything.
PLAN_S = 60.0
REPLY_MAX = 64 * 1024 * 1024


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("trimtab", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path, self.timeout or TIMEOUT_S)


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Return a connection to a Unix socket of trimtab.

    Raises:
        StateError: the user isn't allowed to connect.
        EngineUnavailable: nothing listens on the socket.
    """
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(timeout_s)
    try:
        peer.connect(str(path))
    except PermissionError as error:
        peer.close()
        raise StateError(
            "socket.denied",
            f"{path}: {error.strerror}",
            remedy="run as root, or as a member of the group trimtab",
        ) from error
    except OSError as error:
        peer.close()
        raise EngineUnavailable(
            "nothing.running", f"nothing runs behind {path}", remedy="start it with 'trimtab up'"
        ) from error
    return peer


@dataclass(frozen=True, slots=True)
class BrokerApi:
    """The broker's own routes (``/trimtab/v1/…``)."""

    path: Path
    timeout_s: float = TIMEOUT_S

    def get(self, route: str) -> Any:
        """Return the JSON of a route.

        Raises:
            EngineUnavailable: no broker answers.
            StateError: the user isn't allowed to connect.
            Refused: the gate refuses the request.
        """
        return json.loads(self.call("GET", route))

    def post(self, route: str, body: object) -> Any:
        """Send JSON to a route and return its JSON; raises as ``get``."""
        return json.loads(self.call("POST", route, json.dumps(body).encode()))

    def call(self, method: str, route: str, body: bytes | None = None) -> bytes:
        """Return the body of an answer with a status below 400; raises as ``get``."""
        return self._answer(method, route, body)[0]

    def fetch(self, route: str) -> tuple[bytes, Mapping[str, str]]:
        """Return the body and the headers of an answer; raises as ``get``."""
        return self._answer("GET", route, None)

    def lines(self, route: str) -> Iterator[bytes]:
        """Yield the lines of an answer as they arrive; raises as ``get``."""
        connection = UnixConnection(self.path, self.timeout_s)
        try:
            connection.connect()
            peer = connection.sock  # getresponse clears the attribute
            connection.request("GET", f"/trimtab/v1/{route}")
            reply = connection.getresponse()
            if reply.status >= 400:
                raise error_of(reply.status, reply.read(REPLY_MAX))
            peer.settimeout(None)  # a stream can be silent for days
            while line := reply.readline(REPLY_MAX):
                yield line
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        finally:
            connection.close()

    def _answer(
        self, method: str, route: str, body: bytes | None
    ) -> tuple[bytes, Mapping[str, str]]:
        connection = UnixConnection(self.path, self.timeout_s)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, f"/trimtab/v1/{route}", body=body, headers=headers)
            reply = connection.getresponse()
            data = reply.read(REPLY_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        finally:
            connection.close()
        if reply.status >= 400:
            raise error_of(reply.status, data)
        return data, {name.lower(): value for name, value in reply.getheaders()}

    def _lost(self, error: Exception) -> EngineUnavailable:
        return EngineUnavailable(
            "broker.lost", f"the broker at {self.path} doesn't answer: {error}"
        )


def error_of(status: int, data: bytes) -> Exception:
    """Return the error for an answer of the broker; only refusals of the gate have a rule."""
    try:
        answer = json.loads(data)
    except ValueError:
        answer = {}
    refusal = answer.get("trimtab") or {}
    message = refusal.get("reason") or answer.get("message") or f"status {status}"
    rule, remedy = refusal.get("rule", f"http.{status}"), refusal.get("remedy", "")
    if status == 503:
        return JournalUnavailable(rule, message, remedy=remedy)
    kind = Refused if refusal else EngineFailed
    return kind(rule, message, remedy=remedy, status=status)


def ask_controller(path: Path, question: dict[str, object], *, timeout_s: float = TIMEOUT_S) -> Any:
    """Send a JSON line to the controller's socket, and return the JSON of the answer.

    Raises:
        EngineUnavailable: no controller answers.
        StateError: the user isn't allowed to connect.
        EngineFailed: the controller answers with an error.
    """
    peer = connect(path, timeout_s)
    try:
        peer.sendall(json.dumps(question).encode() + b"\n")
        chunks = []
        while chunk := peer.recv(65536):
            chunks.append(chunk)
            if chunk.endswith(b"\n") or sum(map(len, chunks)) > REPLY_MAX:
                break
    except OSError as error:
        raise EngineUnavailable(
            "controller.lost", f"the controller at {path} doesn't answer: {error}"
        ) from error
    finally:
        peer.close()
    if not chunks:
        raise EngineUnavailable("controller.lost", f"the controller at {path} hung up")
    answer = json.loads(b"".join(chunks))
    if "error" in answer:
        failure = answer["error"]
        raise EngineFailed(
            failure.get("code", "controller.error"),
            failure.get("message", ""),
            remedy=failure.get("remedy", ""),
        )
    return answer
