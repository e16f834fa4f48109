"""Verdicts of one policy on creates, by the digest of the judged request. Bounded and thread-safe.

A create is judged while its key is planned, again in each further plan, and for the status. Only
the first of these judges.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from controller.model.desired.plan import Verdict

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
