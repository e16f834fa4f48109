"""The statuses of the running controller: a question stays open until the status changes."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from controller.cli.clients.socket_client import read_answer, send_question
from controller.model.errors import EngineUnavailable

#: How long the controller keeps a question without a changed status.
WAIT_S: Final = 30.0
#: How long the controller takes for an answer, besides the wait for a change.
ANSWER_S: Final = 5.0
#: How long an answer takes to arrive, once it has begun.
_READ_S: Final = 1.0


class StatusFeed:
    """Asks the controller at *path* for each changed status.

    *output*: the status has the last lines of failed containers.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float], *, output: bool) -> None:
        self._path = path
        self._monotonic = monotonic
        self._output = output
        #: The version of the last status, '' without one.
        self._version = ""
        #: The connection with the open question.
        self._peer: socket.socket | None = None
        self._deadline = 0.0

    @property
    def descriptor(self) -> int | None:
        """The descriptor of the open question, readable once answered; None without a question."""
        return None if self._peer is None else self._peer.fileno()

    def take(self) -> dict[str, Any] | None:
        """Return a changed status; None while there is none. Asks if no question is open.

        After an error, the next call asks again, for the whole status.

        Raises:
            EngineUnavailable: no controller answers.
            StateError: the user isn't allowed to connect.
            EngineFailed: the controller answers with an error.
        """
        peer, self._peer = self._peer, None
        version, self._version = self._version, ""
        if peer is None:
            self._peer = self._ask(version)
        elif select.select([peer], [], [], 0)[0]:
            answer = read_answer(peer, self._path)
            if not answer.get("unchanged"):
                self._version = answer.pop("version", "")
                return dict(answer)
        elif self._monotonic() > self._deadline:
            peer.close()
            message = f"the controller at {self._path} doesn't answer in time"
            raise EngineUnavailable("controller.lost", message)
        else:
            self._peer = peer
        self._version = version
        return None

    def close(self) -> None:
        """Give up the open question."""
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def _ask(self, version: str) -> socket.socket:
        question: dict[str, object] = {
            "do": "status",
            "output": self._output,
            "unless": version,
            "wait_s": WAIT_S,
        }
        self._deadline = self._monotonic() + ANSWER_S + (WAIT_S if version else 0.0)
        return send_question(self._path, question, timeout_s=_READ_S)
