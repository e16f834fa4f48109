"""Sessions of browsers, and who may begin one: holders of tokens, and users whom a trusted proxy names.

Secrets of sessions are kept as SHA-256 digests, in memory alone: a restart ends all sessions. Times are
seconds on a clock without jumps.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from controller.core.encoding.text import printable
from controller.model.errors import TrimtabError
from controller.ports import Clock
from controller.web.pages import WebSession
from controller.web.server.tokens import TokenFile, WebToken, digest_of, read_scope

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


#: Failed logins from an address in ``WINDOW_S`` seconds; then further ones are refused unread.
FAILURES_MAX: Final = 5
WINDOW_S: Final = 60.0
#: Addresses with failures that are remembered. With more, the oldest one is forgotten.
ADDRESSES_MAX: Final = 1024
_USER: Final = re.compile(r"[^\x00-\x1f\x7f]{1,64}")

log = logging.getLogger("trimtab.web")


class FailedLogins:
    """The failed logins of the last minute, by address. Times are seconds on a clock without jumps."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def is_blocked(self, address: str, now: float) -> bool:
        """Return True if no login of the address is read now."""
        times = self._times.get(address)
        while times and now - times[0] >= WINDOW_S:
            times.popleft()
        return times is not None and len(times) >= FAILURES_MAX

    def add(self, address: str, now: float) -> None:
        """Count a failed login."""
        times = self._times.pop(address, None) or deque(maxlen=FAILURES_MAX)
        if len(self._times) >= ADDRESSES_MAX:
            del self._times[next(iter(self._times))]
        self._times[address] = times
        times.append(now)


@dataclass(frozen=True, slots=True)
class TrustedProxy:
    """A proxy that authenticates users: the proxy's uid at the Unix socket, and the header with the user."""

    uid: int
    #: The name of the header with the user's name, in small letters.
    header: str


def _reader_of(token: WebToken, csrf: str = "") -> WebSession | None:
    """Return the reader of a token; None if it opens no page."""
    scope = read_scope(token.scope)
    return WebSession(token.name, scope.logs, csrf) if scope.has_view else None


class LoginsBlocked(Exception):
    """The login wasn't checked, since too many logins of the address failed."""


class Logins:
    """Decides by tokens and by the trusted proxy who reads. For the thread of the event loop alone."""

    def __init__(
        self, tokens: TokenFile, sessions: Sessions, clock: Clock, proxy: TrustedProxy | None
    ) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._clock = clock
        self._proxy = proxy
        self._failed = FailedLogins()

    def token(self, secret: str, address: str) -> WebToken | None:
        """Return the token of a secret; None if there is none, which counts as a failure of the address.

        Raises:
            LoginsBlocked: too many logins of the address failed.
            StateError: the file of tokens can't be read.
        """
        now = self._clock.monotonic()
        if self._failed.is_blocked(address, now):
            raise LoginsBlocked
        found = self._tokens.find(digest_of(secret), self._clock.now())
        if found is None:
            self._failed.add(address, now)
            log.warning("a login from %s failed", printable(address))
        return found

    def begin(self, secret: str, address: str) -> str | None:
        """Begin the session of a token with a view; return the session's secret, or None.

        Raises as ``token``.
        """
        token = self.token(secret, address)
        if token is None or (reader := _reader_of(token)) is None:
            return None
        log.info("%s logged in from %s", token.name, printable(address))
        return self._sessions.begin(reader, self._clock.monotonic(), token=token.digest)

    def is_valid(self, session: BrowserSession) -> bool:
        """Return True if the token of a session isn't revoked, hasn't expired, and has the scope of its login."""
        try:
            token = self._tokens.find(session.token, self._clock.now())
            return token is not None and _reader_of(token, session.reader.csrf) == session.reader
        except TrimtabError as error:
            log.warning("%s [%s]", error.message, error.code)
            return False

    def from_proxy(self, client: str, headers: list[str]) -> BrowserSession | None:
        """Return the session of the user whom the trusted proxy names; None for any other client.

        *headers* are the values of the proxy's header. A proxied user sees no output of containers.
        """
        if self._proxy is None or client != f"uid:{self._proxy.uid}" or len(headers) != 1:
            return None
        if _USER.fullmatch(headers[0]) is None:
            return None
        return BrowserSession(
            digest_of(f"proxy {headers[0]}"), WebSession(printable(headers[0])), until=float("inf")
        )

    @property
    def header(self) -> str:
        """The name of the proxy's header; '' without a trusted proxy."""
        return "" if self._proxy is None else self._proxy.header

    def address_of(self, client: str, forwarded: list[str]) -> str:
        """Return the address by which failed logins are counted.

        That is the client's, or what the trusted proxy added last to ``X-Forwarded-For``.
        """
        if self._proxy is not None and client == f"uid:{self._proxy.uid}" and forwarded:
            return forwarded[-1].rpartition(",")[2].strip()[:64]
        # Any local program has sixteen million loopback addresses.
        return "loopback" if client.startswith("127.") else client
