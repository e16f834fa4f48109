"""The follower of the controller's view (docs/view.md), for a process that shows the view or decides on it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from controller.core.view.view import merged
from controller.model.errors import TrimtabError
from controller.ports import Clock

log = logging.getLogger("trimtab.view")

#: The pause after an answer without news at once: the user isn't allowed to wait at the controller.
POLL_S: Final = 5.0
#: The pause after a failure.
RETRY_S: Final = 2.0


class ReadView(Protocol):
    """Reads the controller's view."""

    def __call__(self, have: str, *, wait_s: float) -> Mapping[str, Any]:
        """Return what changed in the view since the version *have*.

        The controller keeps the question for at most *wait_s* seconds, until there is a newer version.

        Raises:
            TrimtabError: the controller doesn't answer, or has no view yet.
        """
        ...


@dataclass(frozen=True, slots=True)
class Followed:
    """The last view, and since when the controller doesn't answer (Unix time; None while it does)."""

    view: Mapping[str, Any] | None = None
    away_since: float | None = None

    def is_news(self, before: Followed) -> bool:
        """Return True if a reader of *before* sees another view, or a controller that went or came back."""
        return self._version != before._version or self.away_since != before.away_since

    @property
    def _version(self) -> object:
        return None if self.view is None else self.view["version"]


class ViewFollower:
    """Keeps the last view of an instance.

    *on_step* gets the values before and after each question, in the follower's thread. *wait_s* is how long
    the controller keeps a question while nothing changes.
    """

    def __init__(
        self,
        read: ReadView,
        clock: Clock,
        on_step: Callable[[Followed, Followed], object],
        *,
        wait_s: float,
    ) -> None:
        self._read = read
        self._clock = clock
        self._on_step = on_step
        self._wait_s = wait_s
        self._ended = threading.Event()
        self._followed = Followed()
        #: The version to ask from; '' asks for everything.
        self._have = ""

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
        before, have = self._followed, self._have
        began = self._clock.monotonic()
        try:
            newer = self._read(have, wait_s=self._wait_s if have else 0.0)
            view = newer if before.view is None else merged(before.view, newer)
            self._have = str(view["version"])
            after = Followed(view)
        except (TrimtabError, ValueError, KeyError, TypeError) as error:
            self._have = ""
            after = Followed(before.view, before.away_since or self._clock.now())
            if before.away_since is None:
                is_denied = isinstance(error, TrimtabError) and error.code == "socket.denied"
                hint = f" (the policy needs uid {os.getuid()} under `viewers`)" if is_denied else ""
                log.warning("no view from the controller: %s%s", error, hint)
        self._followed = after
        self._on_step(before, after)
        if after.away_since is not None:
            return RETRY_S
        is_late = self._clock.monotonic() - began > 1.0
        return 0.0 if is_late or self._have != have else POLL_S
