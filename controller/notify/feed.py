"""Follows the view at the controller's socket (docs/view.md), in a thread of its own."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from controller.core.view.view import merged
from controller.system.sockets import connect_in_turn

log = logging.getLogger("trimtab.notify")

#: How long the controller keeps the question while nothing changes: the time between two steps.
WAIT_S: Final = 5.0
#: How long the controller takes for an answer, besides.
ANSWER_S: Final = 10.0
#: The time until the next question, if the controller answers at once.
PAUSE_S: Final = 2.0
VIEW_MAX: Final = 64 * 1024 * 1024


class NoticeFeed:
    """Passes on each answer as the whole view, and None for each question without an answer."""

    def __init__(self, path: Path, take: Callable[[Mapping[str, Any] | None], None]) -> None:
        self._path = path
        self._take = take
        self._view: dict[str, Any] | None = None
        self._ended = threading.Event()
        self._is_lost = False

    def start(self) -> None:
        """Follow in a thread, which ends with the process."""
        threading.Thread(target=self._follow, name="view", daemon=True).start()

    def stop(self) -> None:
        """Ask no further question."""
        self._ended.set()

    def _follow(self) -> None:
        while not self._ended.is_set():
            try:
                before = self._view
                answer = self._ask("" if before is None else str(before["version"]))
                is_same = before is not None and answer["version"] == before["version"]
                self._view = answer if before is None else merged(before, answer)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._view, is_same = None, True
                if not self._is_lost:
                    hint = ""
                    if isinstance(error, PermissionError):
                        hint = f" (the policy needs uid {os.getuid()} under `viewers`)"
                    log.warning("no view from the controller at %s: %s%s", self._path, error, hint)
            self._is_lost = self._view is None
            self._take(self._view)
            if is_same:
                self._ended.wait(PAUSE_S)

    def _ask(self, version: str) -> dict[str, Any]:
        """Return the controller's answer. Raises OSError or ValueError."""
        question = {"do": "view", "have": version, "wait_s": WAIT_S}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            connect_in_turn(peer, self._path, timeout_s=ANSWER_S)
            peer.settimeout(WAIT_S + ANSWER_S)
            peer.sendall(json.dumps(question).encode() + b"\n")
            text = bytearray()
            while not text.endswith(b"\n"):
                if not (chunk := peer.recv(65536)) or len(text) > VIEW_MAX:
                    raise ConnectionError("the answer has no end")
                text += chunk
        answer = json.loads(text)
        if error := answer.get("error"):
            raise ValueError(str(error.get("message")))
        return dict(answer)
