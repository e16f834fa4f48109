"""Invariant 16: nothing waits for the observation of everything by its timer.

Events, lists, ends of passes and known waits queue what is to be done. An observation that only its timer
asked for, and that finds work, shows a wakeup that the controller forgot: the work was up to 5 minutes late.
The exceptions are:

- A pass of the key was queued already, or is due at a known time.
- An event of the key was lost since the last look at the key, or one of a network or volume since the
  last look at everything. A list finds no altered limit, no health, and no network that is gone.
- The last pass of the key was shown an old snapshot.
- A network goes after the containers that leave it.
- The prune guard held the removal back before: an approval or the end of its window lets it go.
- All hints are lost, those of files too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from controller.core.drift.actions import is_denied
from controller.loop import controller as loop
from controller.loop.controller import Controller
from controller.loop.state import service_tracker
from controller.loop.workqueue import Chore, WorkQueue
from controller.model.desired.plan import RemoveNetwork, Wait
from controller.model.names import Key
from controller.ports import EngineEvent
from tests.sim.violation import Violation

LATE: Final = 16


class WatchedChores(WorkQueue[Chore]):
    """The queue of chores; it knows if anything but the timer asked for the next observation."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__(monotonic)
        self.asked = True

    def add(self, key: Chore, *, is_urgent: bool = False) -> bool:
        self.asked |= key is Chore.OBSERVE
        return super().add(key, is_urgent=is_urgent)

    def add_after(self, key: Chore, delay_s: float) -> bool:
        timer = delay_s >= loop.OBSERVE_S * (1 - loop.SPREAD)
        self.asked |= key is Chore.OBSERVE and not timer
        return super().add_after(key, delay_s)


class WatchedKeys(WorkQueue[Key]):
    """The queue of keys."""

    @property
    def expected(self) -> frozenset[Key]:
        """The keys that are queued, or become due."""
        return self.busy | self._due.keys()


class Promptness:
    """Looks over the shoulder of one controller."""

    def __init__(
        self,
        controller: Controller,
        chores: WatchedChores,
        keys: WatchedKeys,
        is_deaf: Callable[[], bool],
    ) -> None:
        self._controller = controller
        self._chores = chores
        self._keys = keys
        #: Why work of a key, or (None) of any, may be found late.
        self._excused: dict[Key | None, str] = {}
        self._is_deaf = is_deaf

    def event_is_lost(self, event: EngineEvent) -> None:
        """Note an event that the controller isn't told of."""
        observed, key = self._controller.shared.observed, event.key
        lost = f"{event.kind} {event.action} is lost"
        if key is None and event.kind == "container" and observed is not None:
            key = service_tracker.owner_of(observed, event.id)
            if key is None:
                # Of others' containers the controller needs to know only who leaves an address.
                left = event.action == "disconnect"
                self._excused |= dict.fromkeys(
                    service_tracker.displaced(observed) if left else (), lost
                )
                return
        self._excused[key] = lost

    def passing(self, key: Key, *, stale: bool) -> None:
        """Note that a pass looks at *key*."""
        self._excused.pop(key, None)
        if stale:
            self._excused[key] = "an old snapshot"

    @contextmanager
    def watching(self, chore: Chore) -> Iterator[None]:
        """Check a chore: an observation of everything.

        Raises:
            Violation: only the timer asked for it, and it finds work.
        """
        if chore is not Chore.OBSERVE:
            yield
            return
        timed, self._chores.asked = not self._chores.asked, False
        expected, decided = self._keys.expected, self._decided()
        yield
        excused, self._excused = self._excused, {}
        if not timed or self._is_deaf() or None in excused:
            return
        late = {*self._found(expected), *(self._decided() - decided)} - excused.keys()
        if late:
            told = ", ".join(self._told(key) for key in sorted(late))
            raise Violation(LATE, f"nobody but the timer asked for {told}")

    def _found(self, expected: frozenset[Key]) -> Iterator[Key]:
        for key in self._keys.busy - expected:
            if self._actions(key):
                yield key

    def _actions(self, key: Key) -> list[str]:
        """Return the actions of *key* that can be done now."""
        shared = self._controller.shared
        plan, observed = shared.store.of(key).plan, shared.observed
        containers = () if observed is None else observed.containers
        used = {name for each in containers for name in each.settings.networks}
        return [
            action.verb
            for action in (() if plan is None else plan.actions)
            if not isinstance(action, Wait) and not is_denied(action)
            if not (isinstance(action, RemoveNetwork) and action.target in used)
        ]

    def _told(self, key: Key) -> str:
        return f"{key} ({', '.join(self._actions(key)) or 'goes'})"

    def _decided(self) -> frozenset[Key]:
        """Return the services that the prune guard decided on: they go, settle, or are held back."""
        shared = self._controller.shared
        memory = shared.store.prune
        blocked = {each.key for each in shared.view.blocked}
        return memory.going | memory.settling | blocked
