"""Follows the controller's view (docs/view.md), in a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.core.view.view import merged
from controller.model.errors import StateError, TrimtabError

log = logging.getLogger("trimtab.notify")

#: How long the controller keeps the question while nothing changes: the time between two steps.
WAIT_S: Final = 5.0
#: How long the controller takes for an answer, besides.
ANSWER_S: Final = 10.0
#: The time until the next question, if the controller answers at once.
PAUSE_S: Final = 2.0

AskController = Callable[[dict[str, object]], Any]


class NoticeFeed:
    """Passes on each answer as the whole view, and None for each question without an answer.

    *ask* returns the controller's answer to a question; it raises TrimtabError.
    """

    def __init__(
        self, ask: AskController, take: Callable[[Mapping[str, Any] | None], None]
    ) -> None:
        self._ask = ask
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
                have = "" if before is None else str(before["version"])
                answer = self._ask({"do": "view", "have": have, "wait_s": WAIT_S})
                is_same = before is not None and answer["version"] == before["version"]
                self._view = answer if before is None else merged(before, answer)
            except (TrimtabError, ValueError, KeyError, TypeError) as error:
                self._view, is_same = None, True
                if not self._is_lost:
                    hint = ""
                    if isinstance(error, StateError):
                        hint = f" (the policy needs uid {os.getuid()} under `viewers`)"
                    log.warning("no view from the controller: %s%s", error, hint)
            self._is_lost = self._view is None
            self._take(self._view)
            if is_same:
                self._ended.wait(PAUSE_S)
