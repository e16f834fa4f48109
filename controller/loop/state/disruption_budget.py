"""The controller's own disruption budget: take down only as many services at a time as the gate allows.

The controller doesn't request actions beyond the gate's limit. A pass waits while its stop would
take one service too many down. The controller counts as the gate does
(``core.disruption``): a service is down until a slot of it has run, unaltered, for 5 s. The
budget is in memory only. After a restart the gate's persistent budget still holds, and a refusal
makes the pass wait as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from controller.core import disruption
from controller.core.drift import failures
from controller.core.planning import planned_takedowns
from controller.core.planning.networks import services_cut_off
from controller.loop.state.service_state import Run
from controller.loop.state.store import StateStore
from controller.model.desired.plan import AnyAction, DisconnectNetwork, Plan
from controller.model.errors import OverShare
from controller.model.names import Key
from controller.model.observed import Container, Observed

#: How often a waiting pass checks the budget while a service was taken down a short time ago.
SOON_S = 1.0
#: How often a waiting pass checks the budget later.
LATER_S = 15.0
#: A service that went down within this time is most likely being replaced.
REPLACING_S = 60.0
#: A slot counts a little later here than at the gate, whose limit is then never met.
STEADY_S = disruption.RUN_S + 1.0


class DisruptionBudget:
    """The services taken down by the controller (``ServiceState.down_since``). Thread-safe."""

    def __init__(self, store: StateStore, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic

    def record_observation(self, key: Key, containers: Iterable[Container]) -> None:
        """Record the running *containers* of *key*, as a pass observed them."""
        with self._store.lock:
            state, now = self._store.of(key), self._monotonic()
            runs = {c.id: Run(c.started_at, now, now) for c in containers if c.running}
            for identifier, run in state.runs.items():
                if identifier in runs and runs[identifier].started_at == run.started_at:
                    runs[identifier] = replace(run, seen=now)
            state.runs = runs

    def record_alterations(self, key: Key, containers: Iterable[str], observed: Observed) -> None:
        """Begin the time of altered *containers* again, of *key* or on the network *key*."""
        with self._store.lock:
            for identifier in containers:
                found = observed.find(identifier) if key.kind == "Network" else None
                owner = key if found is None else found.key
                self._store.of(owner).runs.pop(identifier, None)

    def steady(self, key: Key) -> frozenset[str]:
        """Return the containers of *key* with a long enough run: each of them keeps *key* up."""
        with self._store.lock:
            now, runs = self._monotonic(), self._store.of(key).runs
            return frozenset(each for each, run in runs.items() if now - run.since >= STEADY_S)

    def take(self, key: Key, running: frozenset[Key]) -> OverShare | None:
        """Count *key* as down, or return the refusal; *running* are the services that are up."""
        with self._store.lock:
            now, down = self._monotonic(), self._store.down_since()
            for other in [other for other in down if not self._is_down(other, now)]:
                self._store.of(other).down_since = None
                del down[other]
            finding = disruption.judge_service(
                _name(key),
                down={_name(k): disruption.WINDOW_S - (now - at) for k, at in down.items()},
                available={_name(other) for other in running - down.keys()},
            )
            if finding is None:
                self._store.of(key).down_since = now
                return None
            return OverShare(finding.rule, finding.reason, remedy=finding.remedy)

    def take_all(self, keys: Iterable[Key], running: frozenset[Key]) -> OverShare | None:
        """Count all *keys* as down, or return the refusal and count none."""
        with self._store.lock:
            before = {key: self._store.of(key).down_since for key in sorted(keys)}
            for key in before:
                refusal = self.take(key, running)
                if refusal is not None:
                    for other, since in before.items():
                        self._store.of(other).down_since = since
                    return refusal
        return None

    def take_for(
        self,
        key: Key,
        action: AnyAction,
        plan: Plan,
        observed: Observed,
        running: Callable[[], frozenset[Key]],
    ) -> OverShare | None:
        """Count *key* as down if an action of its *plan* takes it down, or return the refusal.

        The first disconnect of a network's remake counts all services of the network. *running* returns
        the services that are up.
        """
        if key.kind == "Network":
            leaves = isinstance(action, DisconnectNetwork)
            cut_off = services_cut_off(plan.of(key), observed)
            return self.take_all(cut_off, running()) if leaves else None
        slots = planned_takedowns.counted_slots(plan.of(key), observed.of(key), self.steady(key))
        down = planned_takedowns.takes_down(action, slots)
        return self.take(key, running()) if down else None

    def _is_down(self, key: Key, now: float) -> bool:
        """Return True if a service that was taken down isn't up again, and still counts.

        The run of a successor can begin before its predecessor is taken down: an observation
        afterwards shows which of the two runs on.
        """
        state = self._store.of(key)
        assert state.down_since is not None, f"{key} wasn't taken down"
        is_up = any(
            run.seen > state.down_since and now - run.since >= STEADY_S
            for run in state.runs.values()
        )
        return not is_up and now - state.down_since < disruption.WINDOW_S

    def wait_s(self) -> float:
        """Return the time until the next check of the budget."""
        newest = max(self._store.down_since().values(), default=0.0)
        return SOON_S if self._monotonic() - newest < REPLACING_S else LATER_S


def running_keys(
    known: Observed | None, observed: Observed, key: Key, *, wall: float
) -> frozenset[Key]:
    """Return the services that are up, as the gate counts them.

    *key* is judged by *observed*, a snapshot of *key* alone; other services by *known*, the last
    snapshot of all. *wall* is now in seconds since the epoch.
    """
    before = () if known is None else known.containers
    everyone = (*observed.of(key), *(c for c in before if c.key != key))
    return frozenset(
        c.key
        for c in everyone
        if c.running and c.origin == "controller" and failures.up_s(c, wall) >= disruption.RUN_S
    )


def _name(key: Key) -> str:
    return f"{key.namespace}/{key.name}"
