"""Who reads the page of several people: holders of tokens, and users whom a trusted proxy names."""

from __future__ import annotations

import logging
import re
from collections import deque
from dataclasses import dataclass
from typing import Final

from controller.core.encoding.text import printable
from controller.model.errors import TrimtabError
from controller.ports import Clock
from controller.web.pages import WebSession
from controller.web.server.sessions import BrowserSession, Sessions
from controller.web.server.tokens import TokenFile, WebToken, digest_of, read_scope

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
        if token is None or not (scope := read_scope(token.scope)).has_view:
            return None
        reader = WebSession(token.name, scope.logs)
        log.info("%s logged in from %s", token.name, printable(address))
        return self._sessions.begin(reader, self._clock.monotonic(), token=token.digest)

    def is_valid(self, session: BrowserSession) -> bool:
        """Return True if the token of a session isn't revoked, and hasn't expired."""
        try:
            return self._tokens.find(session.token, self._clock.now()) is not None
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
