"""The fetcher's memory of sent commit statuses: ``sent.json``.

A lost file costs one more request for each outcome, never a missing status.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.core.git.feedback import OUTCOMES_MAX
from controller.model.errors import StateError
from controller.model.sources import OutcomeState
from controller.system.atomic_file import write_atomic

VERSION = 1
_SENT_MAX_BYTES = 4 << 20
CommitPlace = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Sent:
    """The last status that a forge took, or refused for good."""

    state: OutcomeState
    text: str
    #: The number of statuses of this commit and namespace.
    posts: int
    #: In Unix seconds.
    at: float
    #: The place at the forge (``target_of``).
    target: str


class SentFile:
    """``sent.json``. Threads can share an object."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "sent.json"
        self._sent: dict[CommitPlace, Sent] = {}
        self._lock = threading.Lock()

    def load(self) -> str | None:
        """Read the file. Return why it couldn't be used; None if it could, or is missing."""
        try:
            with self._file.open("rb") as file:
                self._sent = _parse(file.read(_SENT_MAX_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            return f"{self._file} was damaged ({error}); commit statuses are sent again"
        return None

    def of(self, source: str) -> Mapping[CommitPlace, Sent]:
        """Return the sent statuses of a source."""
        with self._lock:
            return {place: sent for place, sent in self._sent.items() if place[0] == source}

    def record(self, place: CommitPlace, sent: Sent, *, kept: Iterable[CommitPlace]) -> None:
        """Record a status durably; of its source, only the places *kept* stay.

        Raises:
            StateError: the file can't be written.
        """
        wanted = {place, *kept}
        with self._lock:
            others = {p: s for p, s in self._sent.items() if p[0] != place[0] or p in wanted}
            self._sent = {**others, place: sent}
            try:
                write_atomic(self._file, _render(self._sent))
            except OSError as error:
                raise StateError("source.state", f"{self._file}: {error.strerror}") from error


def _render(sent: Mapping[CommitPlace, Sent]) -> bytes:
    listed = [
        [*place, each.state.value, each.text, each.posts, each.at, each.target]
        for place, each in sorted(sent.items())
    ]
    return f"{json.dumps({'version': VERSION, 'sent': listed}, indent=1)}\n".encode()


def _parse(data: bytes) -> dict[CommitPlace, Sent]:
    body = json.loads(data)
    if body["version"] != VERSION:
        raise ValueError(f"its version isn't {VERSION}")
    found: dict[CommitPlace, Sent] = {}
    for entry in body["sent"][: 64 * OUTCOMES_MAX]:
        source, commit, namespace, state, text, posts, at, target = entry
        place = (str(source), str(commit), str(namespace))
        found[place] = Sent(OutcomeState(state), str(text), int(posts), float(at), str(target))
    return found
