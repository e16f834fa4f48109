"""The follower of the view: one reader for all browsers, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.core.view.view import merged
from controller.model.errors import TrimtabError
from controller.ports import Clock
from controller.web.server.port import InstanceReader

#: How long the controller waits for the next version. The time of the view is at most that old.
WAIT_S: Final = 25.0
#: The pause after an answer without news at once: the user isn't allowed to wait at the controller.
POLL_S: Final = 5.0
#: The pause after a failure.
RETRY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Followed:
    """The last view, and since when the controller doesn't answer (Unix time; None while it does)."""

    view: Mapping[str, Any] | None = None
    away_since: float | None = None


class ViewFollower:
    """Keeps the last view of an instance. *on_change* is called in the follower's thread."""

    def __init__(
        self, reader: InstanceReader, clock: Clock, on_change: Callable[[], object]
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._on_change = on_change
        self._ended = threading.Event()
        self._followed = Followed()

    @property
    def followed(self) -> Followed:
        """The last view, as one value: the thread replaces the value as a whole."""
        return self._followed

    def start(self) -> None:
        """Follow in a thread, which ends with the process."""
        threading.Thread(target=self._run, name="view", daemon=True).start()

    def stop(self) -> None:
        """Ask no further question. A question under way ends with the process."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._ended.wait(self.step())

    def step(self) -> float:
        """Ask once; return the seconds until the next question."""
        before = self._followed
        have = "" if before.view is None else str(before.view["version"])
        began = self._clock.monotonic()
        try:
            newer = self._reader.view(have, wait_s=WAIT_S if before.view else 0.0)
        except TrimtabError:
            away_since = before.away_since or self._clock.now()
            self._replace(Followed(before.view, away_since))
            return RETRY_S
        view = newer if before.view is None else merged(before.view, newer)
        self._replace(Followed(view))
        is_news = view["version"] != have
        return 0.0 if is_news or self._clock.monotonic() - began > 1.0 else POLL_S

    def _replace(self, after: Followed) -> None:
        before, self._followed = self._followed, after
        if _version(before) != _version(after) or before.away_since != after.away_since:
            self._on_change()


def _version(followed: Followed) -> object:
    return None if followed.view is None else followed.view["version"]
