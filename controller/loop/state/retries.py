"""Retries: when a failed action is tried again, per action and not per key.

A failed action is deferred until its time, while the other actions of its key go on: a refused
successor must not keep a killed replica down. After a change of spec or policy, the
action counts as new and is tried at once. In memory only, on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.loop.state.service_state import ActionKey, Attempt
from controller.loop.state.store import StateStore
from controller.model.desired.plan import (
    AnyAction,
    ConnectNetwork,
    CreateContainer,
    DisconnectNetwork,
)
from controller.model.errors import (
    Act,
    Conflict,
    EngineError,
    EngineUnavailable,
    OverShare,
    TooManyRequests,
)
from controller.model.names import Key
from controller.ports import Clock

FIRST_S = 1.0
LONGEST_S = 300.0
#: The first delay after a conflict, since another client acted: observe again at once.
AT_ONCE_S = 0.05
#: The first delay where a person must act. Refusals are journaled, so they aren't repeated often.
REFUSED_FIRST_S = 10.0
#: The longest delay while engine or broker are unreachable, or too many services are down.
AWAY_LONGEST_S = 30.0
#: The delay after TooManyRequests: the requests in the way end on their own.
CROWDED_S = 2.0
JITTER = 0.25


def signature(action: AnyAction, policy_digest: str) -> ActionKey:
    """Return the identity of an action, by which its earlier failures are found."""
    if isinstance(action, CreateContainer):
        # A container's name contains the number of the attempt; the revision stays the same.
        subject = action.service.revision
    else:
        subject = action.precondition.id or action.target
    if isinstance(action, ConnectNetwork | DisconnectNetwork):
        subject = f"{subject} {action.network}"
    return (action.verb, action.object, action.slot, subject, policy_digest)


def delay_s(error: EngineError, count: int, random: Callable[[], float]) -> float:
    """Return the delay after the *count*-th failure in a row; *random* returns [0, 1)."""
    longest = LONGEST_S
    if isinstance(error, TooManyRequests):
        return CROWDED_S
    if isinstance(error, Conflict):
        if count == 1:
            return AT_ONCE_S
        first, count = FIRST_S, count - 1
    elif error.act is Act.STALLED:
        first = REFUSED_FIRST_S
    elif isinstance(error, EngineUnavailable | OverShare):
        first, longest = FIRST_S, AWAY_LONGEST_S
    else:
        first = FIRST_S
    doubled = first * 2.0 ** min(count - 1, 20)
    return float(min(longest, doubled)) * (1 + JITTER * random())


def retry_refused(
    store: StateStore, queue: Callable[[Key], object], only: Key | None = None
) -> None:
    """Queue all resources with refused actions, or *only* one, for a try at once.

    The cause of the refusals may be gone.
    """
    for key in store.forget_refusals(only):
        queue(key)


class Retries:
    """The failed actions of all keys (``ServiceState.attempts``). Thread-safe."""

    def __init__(self, store: StateStore, clock: Clock, random: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._random = random

    def record_failure(
        self, key: Key, action: ActionKey, error: EngineError, *, down: bool = False
    ) -> float:
        """Record a failure in a pass of *key*; return the seconds until the next try.

        *down*: a running container was stopped for the action. Its first retry after a conflict
        is slower, to avoid another stop at once.
        """
        with self._store.lock:
            attempts = self._store.of(key).attempts
            count = attempts[action].count + 1 if action in attempts else 1
            slower = down and isinstance(error, Conflict)
            wait_s = delay_s(error, count + slower, self._random)
            attempts[action] = self.attempt(error, wait_s, count=count)
            return wait_s

    def attempt(self, error: EngineError, wait_s: float, *, count: int = 0) -> Attempt:
        """Return a failed action with a retry after *wait_s* seconds."""
        clock = self._clock
        return Attempt(count, error, clock.monotonic() + wait_s, clock.now() + wait_s)

    def deferred(self, key: Key, action: ActionKey) -> Attempt | None:
        """Return the failure by which an action is deferred now, or None."""
        with self._store.lock:
            attempt = self._store.of(key).attempts.get(action)
        return attempt if attempt is not None and self.remaining_s(attempt) else None

    def keep_only(self, key: Key, planned: frozenset[ActionKey]) -> None:
        """Forget the failures of a key's actions outside of *planned*."""
        with self._store.lock:
            state = self._store.of(key)
            state.attempts = {a: each for a, each in state.attempts.items() if a in planned}

    def remaining_s(self, attempt: Attempt) -> float:
        """Return the seconds until a failed action is tried again."""
        return max(0.0, attempt.not_before - self._clock.monotonic())
