"""Sessions of browsers, the links that begin them, and the streams of each session.

Secrets are kept as SHA-256 digests, in memory alone: a restart ends all sessions. Times are seconds on a
clock without jumps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from controller.web.pages import WebSession
from controller.web.server.tokens import digest_of

LINK_S: Final = 60.0
SESSION_S: Final = 12 * 3600.0
#: Sessions at a time. A further one ends the oldest one.
SESSIONS_MAX: Final = 256
#: Open streams of events: in total, and of a session.
STREAMS_MAX: Final = 64
STREAMS_OF_A_SESSION: Final = 8


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A session: *id* is the digest of its secret."""

    id: str
    reader: WebSession
    until: float
    #: The digest of the token that began it; '' for the session of a link.
    token: str = ""


class Sessions:
    """The sessions and links of a server. *new_secret* returns an unguessable text for a URL."""

    def __init__(self, new_secret: Callable[[], str]) -> None:
        self._new_secret = new_secret
        #: By the digests of their secrets, the oldest first.
        self._links: dict[str, tuple[WebSession, float]] = {}
        self._sessions: dict[str, BrowserSession] = {}
        self._streams: Counter[str] = Counter()

    def offer(self, reader: WebSession, now: float) -> str:
        """Return the secret of a link, which begins one session of a reader within ``LINK_S`` seconds."""
        secret = self._new_secret()
        self._links[digest_of(secret)] = (reader, now + LINK_S)
        return secret

    def redeem(self, link: str, now: float) -> str | None:
        """Begin the session of a link, and return its secret; None if the link is unknown, used or too old."""
        found = self._links.pop(digest_of(link), None)
        return self.begin(found[0], now) if found is not None and now < found[1] else None

    def begin(self, reader: WebSession, now: float, *, token: str = "") -> str:
        """Begin a session, and return its secret.

        The session of a *token* can be ended by a form with its id, which nobody knows without the secret.
        """
        if len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        secret = self._new_secret()
        session_id = digest_of(secret)
        csrf = session_id if token else ""
        found = BrowserSession(session_id, replace(reader, csrf=csrf), now + SESSION_S, token)
        self._sessions[found.id] = found
        return secret

    def find(self, secret: str, now: float) -> BrowserSession | None:
        """Return the session of a secret; None if there is none, or if it ended."""
        found = self._sessions.get(digest_of(secret))
        if found is not None and now >= found.until:
            del self._sessions[found.id]
            return None
        return found

    def end(self, session: BrowserSession) -> None:
        """End a session."""
        self._sessions.pop(session.id, None)

    def can_stream(self, session: BrowserSession) -> bool:
        """Return True if the session can open a further stream."""
        return (
            self._streams.total() < STREAMS_MAX and self._streams[session.id] < STREAMS_OF_A_SESSION
        )

    @contextmanager
    def streaming(self, session: BrowserSession) -> Iterator[None]:
        """Count a stream of a session during the block."""
        self._streams[session.id] += 1
        try:
            yield
        finally:
            self._streams -= Counter((session.id,))  # without sessions that have none left
