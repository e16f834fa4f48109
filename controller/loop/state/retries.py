"""Retries: when what failed may be tried again, per action and not per key.

An action that failed is held back until its time, while the rest of its key is still looked after:
a refused successor must not keep a killed replica down. A changed spec or policy makes it another
action, which is tried at once. Kept in memory only, on the monotonic clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

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
#: Somebody else acted meanwhile: look again at once, the first time.
AT_ONCE_S = 0.05
#: A person must act: refusals are journaled, so they aren't repeated often.
REFUSED_FIRST_S = 10.0
#: The engine or the broker is away, or too much is down: it is looked at least this often.
AWAY_LONGEST_S = 30.0
#: Whoever is in the way ends on its own.
CROWDED_S = 2.0
JITTER = 0.25

#: What makes an action the same one: verb, object, slot, what it is of or on, the policy.
ActionKey = tuple[str, Key, int, str, str]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failed action: how often in a row, by what, and when it may be tried again."""

    count: int
    error: EngineError
    not_before: float  # monotonic
    retry_at: float  # the same instant by the wall clock, for people


def signature(action: AnyAction, policy_digest: str) -> ActionKey:
    """Return what makes an action the same one as an earlier one."""
    if isinstance(action, CreateContainer):
        # Its name counts attempts; what it would be doesn't change with them.
        what = action.service.revision
    else:
        what = action.precondition.id or action.target
    if isinstance(action, ConnectNetwork | DisconnectNetwork):
        what = f"{what} {action.network}"
    return (action.verb, action.object, action.slot, what, policy_digest)


def delay_s(error: EngineError, count: int, random: Callable[[], float]) -> float:
    """Return how long to wait after the *count*-th failure in a row; *random* is in [0, 1)."""
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


class Retries:
    """The failed actions of all keys. Safe to use from several threads."""

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        self._attempts: dict[Key, dict[ActionKey, Attempt]] = {}

    def failed(self, key: Key, what: ActionKey, error: EngineError, *, down: bool = False) -> float:
        """Note a failure in a pass of *key*; return in how many seconds it may be tried again.

        *down*: what serves was stopped for it, which isn't done again at once.
        """
        with self._lock:
            mine = self._attempts.setdefault(key, {})
            before = mine.get(what)
            count = 1 if before is None else before.count + 1
            slower = down and isinstance(error, Conflict)
            wait_s = delay_s(error, count + slower, self._random)
            mine[what] = self.attempt(error, wait_s, count=count)
            return wait_s

    def attempt(self, error: EngineError, wait_s: float, *, count: int = 0) -> Attempt:
        """Return a failure that may be tried again in so many seconds."""
        clock = self._clock
        return Attempt(count, error, clock.monotonic() + wait_s, clock.now() + wait_s)

    def held(self, key: Key, what: ActionKey) -> Attempt | None:
        """Return the failure that holds an action back now, if one does."""
        with self._lock:
            attempt = self._attempts.get(key, {}).get(what)
            held = attempt is not None and attempt.not_before > self._clock.monotonic()
            return attempt if held else None

    def keep(self, key: Key, wanted: frozenset[ActionKey]) -> None:
        """Forget the failures of a key whose actions aren't wanted any more, or succeeded."""
        with self._lock:
            mine = self._attempts.get(key)
            if mine is None:
                return
            for what in mine.keys() - wanted:
                del mine[what]
            if not mine:
                del self._attempts[key]

    def remaining_s(self, attempt: Attempt) -> float:
        """Return in how many seconds a failed action may be tried again."""
        return max(0.0, attempt.not_before - self._clock.monotonic())

    def reset(self, key: Key) -> None:
        """Forget all failures of a key: what is wanted is another thing now."""
        with self._lock:
            self._attempts.pop(key, None)
