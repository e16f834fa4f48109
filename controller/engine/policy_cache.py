"""Caches of the broker's policy, by digest, and of the policy's verdicts on creates.

A create is judged while its key is planned, again in each further plan, and for the status. Only
the first of these judges.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from controller.model.names import NetworkNames
from controller.model.records import Verdict


class ParsedPolicy(Protocol):
    """The members of a parsed policy that the cache reads."""

    @property
    def digest(self) -> str: ...

    @property
    def networks(self) -> NetworkNames: ...

    @property
    def valid_until(self) -> float: ...


P = TypeVar("P", bound=ParsedPolicy)


class PolicyCache(Generic[P]):
    """The policy in force, as of the last update.

    *parse* makes a policy from the payload of the broker's route ``/trimtab/v1/policy``, and the time
    that *now* returns.
    """

    def __init__(
        self, parse: Callable[[Mapping[str, Any], float], P], now: Callable[[], float]
    ) -> None:
        self._parse = parse
        self._now = now
        self._digest = ""
        self._policy: P | None = None

    def update(self, payload: Mapping[str, Any]) -> P:
        """Return the policy of *payload*: the cached object while the digest is the same, and it is
        valid.
        """
        now = self._now()
        if (
            self._policy is None
            or (self._digest != payload["digest"])
            or now >= self._policy.valid_until
        ):
            self._digest, self._policy = payload["digest"], self._parse(payload, now)
        return self._policy

    def networks(self) -> NetworkNames:
        """Return the network names of the policy; the defaults before the first update."""
        return NetworkNames() if self._policy is None else self._policy.networks


#: The replicas of a large instance; a verdict without findings takes some 100 bytes.
VERDICTS_MAX: Final = 4096


class VerdictCache:
    """The latest verdicts. A cache belongs to one policy, and is dropped with the policy."""

    def __init__(self, size_max: int = VERDICTS_MAX) -> None:
        self._size_max = size_max
        self._lock = threading.Lock()
        #: The least recently used first.
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()

    def get(self, digest: str, judge: Callable[[], Verdict]) -> Verdict:
        """Return the verdict on the request of *digest*; call *judge* for an unknown request."""
        with self._lock:
            if digest in self._verdicts:
                self._verdicts.move_to_end(digest)
                return self._verdicts[digest]
        verdict = judge()
        with self._lock:
            self._verdicts[digest] = verdict
            if len(self._verdicts) > self._size_max:
                self._verdicts.popitem(last=False)
        return verdict
