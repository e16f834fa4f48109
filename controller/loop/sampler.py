"""Samples of the use of containers: taken only while somebody looks, or metrics are written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping

from controller.core.engine_api.translate import timestamp_seconds
from controller.core.metrics.samples import SAMPLE_S, History, Running, UseLook, next_look
from controller.model.names import Key
from controller.model.observed import ContainerUse, Observed
from controller.ports import Clock

#: How long samples are taken after the last request for one.
WANTED_S = 300.0
#: Figures that are younger are shown again.
FRESH_S = 1.0

#: Returns what the kernel counts of containers, by their ids.
ReadUse = Callable[[Collection[str]], Mapping[str, ContainerUse]]


def read_no_use(_ids: Collection[str]) -> Mapping[str, ContainerUse]:
    """Return nothing: the containers are on another host, or there is none."""
    return {}


class Sampler:
    """Takes samples. Costs nothing while nobody asks. Thread-safe."""

    def __init__(
        self,
        read: ReadUse,
        observed: Callable[[], tuple[Observed | None, Collection[Key]]],
        clock: Clock,
    ) -> None:
        self._read = read
        #: Returns the last snapshot, and the declared services.
        self._observed = observed
        self._clock = clock
        self._looking = threading.Lock()
        self._last: UseLook | None = None
        self._looked_at = 0.0  # monotonic
        self._history = History()
        self._wanted = threading.Condition()
        self._wanted_until = 0.0
        self._stopped = False

    def look(self, *, fresh_s: float = FRESH_S) -> UseLook:
        """Return figures that are at most *fresh_s* old, and let samples be taken for a while."""
        with self._wanted:
            self._wanted_until = self._clock.monotonic() + WANTED_S
            self._wanted.notify_all()
        return self._look(fresh_s)

    def samples_of(self, key: Key) -> tuple[tuple[float, float | None, int], ...]:
        """Return the samples of a service in the last hour: Unix time, processors, bytes.

        Samples are taken for a while, as by ``look``.
        """
        self.look(fresh_s=SAMPLE_S)
        with self._looking:
            return self._history.samples_of(key)

    def run(self) -> None:
        """Take a sample every ``SAMPLE_S`` while somebody wants samples, until ``stop``."""
        while self._await_wanted():
            self._look(FRESH_S)
            with self._wanted:
                self._wanted.wait_for(lambda: self._stopped, SAMPLE_S)

    def stop(self) -> None:
        """End ``run``."""
        with self._wanted:
            self._stopped = True
            self._wanted.notify_all()

    def _await_wanted(self) -> bool:
        """Wait until samples are wanted; return False once ``stop`` was called."""
        with self._wanted:
            self._wanted.wait_for(
                lambda: self._stopped or self._clock.monotonic() < self._wanted_until
            )
            return not self._stopped

    def _look(self, fresh_s: float) -> UseLook:
        with self._looking:
            now = self._clock.monotonic()
            if self._last is not None and now - self._looked_at < fresh_s:
                return self._last
            observed, declared = self._observed()
            running = () if observed is None else _running(observed)
            counted = self._read([each.id for each in running])
            known = {*declared, *(each.key for each in running)}
            at = self._clock.now()
            self._last, self._looked_at = (
                next_look(self._last, running, counted, known=known, at=at),
                now,
            )
            self._history.add(self._last)
            return self._last


def _running(observed: Observed) -> tuple[Running, ...]:
    return tuple(
        Running(each.id, each.key, each.slot, timestamp_seconds(each.started_at) or 0.0)
        for each in observed.containers
        if each.running
    )
