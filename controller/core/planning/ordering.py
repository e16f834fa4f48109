"""The order of one plan: who comes first, who waits for whom, who leaves before whom.

Services that start come after what they depend on, and after what goes and holds what they want for
themselves; services that go leave before what they depend on. A plan of one
key alone knows of the others what was seen of them last; a plan of everything goes on where its own
actions lead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from controller.core.drift.actions import denied
from controller.core.drift.drift import ALIVE, SlotState, slot_of
from controller.core.encoding import graph
from controller.core.manifests.dependencies import dependencies_of
from controller.core.planning.dependency_state import (
    FAILED,
    DependencyState,
    DependencyStatus,
    status_of,
)
from controller.core.planning.exclusive_resources import ExclusiveResources
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import AnyAction, Barrier, Delay, NeedsOperator, StartContainer
from controller.model.desired.spec import DependencyCondition, RunState
from controller.model.errors import Problem, Severity
from controller.model.names import Key
from controller.model.observed import Container, Observed


@dataclass(frozen=True, slots=True)
class KnownServices:
    """What is known around what is planned for.

    ``observed`` is the last snapshot of everything; None: the one that is planned from shows it.
    ``stalled`` says of services why a person must act. ``remembered`` is what services depended on
    when they were last declared. ``overdue`` are those that had long enough to go.
    """

    observed: Observed | None = None
    stalled: Mapping[Key, str] = field(default_factory=dict)
    remembered: Mapping[Key, Collection[Key]] = field(default_factory=dict)
    overdue: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why a service isn't started, replaced or removed now, and which others that hangs on.

    ``code`` is '' where it passes by itself.
    """

    cause: str
    on: tuple[Key, ...]
    code: str = ""

    def wait(self, key: Key, *, target: str, slot: int = 0) -> Delay | NeedsOperator:
        """Return the action that shows this blocker in a plan."""
        if self.code:
            return NeedsOperator(
                object=key, target=target, slot=slot, cause=self.cause, on=self.on, code=self.code
            )
        return Delay(object=key, target=target, slot=slot, cause=self.cause, on=self.on)

    def barrier(self, key: Key) -> Barrier:
        """Return a barrier in front of the actions that follow once the blocker is gone."""
        return Barrier(object=key, target=key.name, cause=self.cause, on=self.on)


@dataclass(frozen=True, slots=True)
class Blockers:
    """What keeps a service's containers from being started, and from being replaced."""

    start: Blocker | None = None
    replace: Blocker | None = None


NONE = Blockers()
NOTHING_AROUND = KnownServices()


class Ordering:
    """The order of one plan, with what the plan comes to on the way (``note``)."""

    def __init__(
        self,
        desired: Desired,
        observed: Observed,
        around: KnownServices,
        *,
        crash_looping: frozenset[tuple[Key, int]],
        prunable: frozenset[Key],
        blocked: frozenset[Key] = frozenset(),
    ) -> None:
        self._services = {service.key: service for service in desired.services}
        self._suspended = desired.suspended
        self._observed = observed
        self._around = around
        self._known = observed if around.observed is None else around.observed
        self._crash_looping = crash_looping
        self._going = frozenset(key for key in prunable if self._goes(key, desired))
        self._slots: dict[Key, tuple[SlotState, ...]] = {}
        self._stalled = dict(around.stalled)
        self._holdings: ExclusiveResources | None = None
        self._starting: set[Key] = set()
        self._left: set[Key] = set()
        # What the guard holds back, or has no word on yet, would go, too: until it is let go, what
        # it needs stays.
        gone = self._going | {key for key in blocked if self._goes(key, desired)}
        if self._going:
            there = {each.key for each in self._known.containers if each.origin == "controller"}
            gone |= {key for key in there if self._goes(key, desired)}
        leaving = {key: self._depends(key) & self._going for key in gone}
        # Those that depend on one another in a circle (as remembered) needn't wait for each other.
        for ring in graph.cycles(leaving):
            leaving |= {key: leaving[key] - ring for key in ring}
        self._before = graph.reverse(leaving)

    def _goes(self, key: Key, desired: Desired) -> bool:
        service = self._services.get(key)
        if key in self._suspended:
            return False
        if service is None:
            return not desired.blind and key not in desired.blind_keys
        return service.spec.replicas == 0 or service.spec.state is RunState.STOPPED

    def _depends(self, key: Key) -> frozenset[Key]:
        service = self._services.get(key)
        if service is not None:
            return frozenset(dependencies_of(key, service.spec))
        return frozenset(self._around.remembered.get(key, ()))

    def sequence(self, keys: Iterable[Key]) -> list[Key]:
        """Return keys in the order in which a plan handles them; by key where nothing else says."""
        return graph.topological_order(
            {key: self._before[key] if key in self._going else self._first(key) for key in keys}
        )

    def _first(self, key: Key) -> frozenset[Key]:
        """Return what a service that stays comes after."""
        service, first = self._services.get(key), self._depends(key) - self._going
        if service is None or not self._going:
            return first
        return first | ({c.key for _, c in self.holdings.of_others(service)} & self._going)

    @property
    def holdings(self) -> ExclusiveResources:
        """What is held of ports and volumes."""
        if self._holdings is None:
            self._holdings = ExclusiveResources(self._known.containers)
        return self._holdings

    def resource_conflict(self, service: Service) -> Blocker | None:
        """Return why nothing of a service is started for now: others hold what it wants alone."""
        held = [(w, c) for w, c in self.holdings.of_others(service) if c.key not in self._left]
        if not held:
            return None
        told = dict.fromkeys(f"{container.name} has {what}" for what, container in held)
        cause = f"waiting while {' and '.join(told)}"
        keys = tuple(dict.fromkeys(container.key for _, container in held))
        if not self._is_awaited_by(keys, service.key):
            return Blocker(cause, keys)
        # None of them lets go first: a person must say which one gets something else meanwhile.
        return Blocker(f"{cause}, which waits for it in turn", keys, FAILED)

    def _is_awaited_by(self, keys: Iterable[Key], key: Key) -> bool:
        """Tell whether one of *keys* wants, over whatever others, what *key* holds."""
        wants = {
            other.key: {container.key for _, container in self.holdings.of_others(other)}
            for other in self._services.values()
        }
        return any(graph.shortest_path(wants, start, key) for start in keys)

    def is_kept(self, container: Container) -> bool:
        """Tell whether another service has a volume alone that a container writes to, too."""
        return self.holdings.kept_by_others(container.writes, container.key, self._services)

    def blockers(self, service: Service) -> Blockers:
        """Return what keeps a declared service from being started or replaced."""
        wanted = dependencies_of(service.key, service.spec)
        if not wanted:
            return NONE
        return Blockers(
            start=self._blocker(wanted, replacing=False),
            replace=self._blocker(wanted, replacing=True),
        )

    def _blocker(
        self, wanted: Mapping[Key, DependencyCondition], *, replacing: bool
    ) -> Blocker | None:
        told: dict[DependencyStatus, list[tuple[Key, str]]] = {
            word: [] for word in DependencyStatus
        }
        for key, condition in wanted.items():
            word, sentence = status_of(self._dependency(key, condition, replacing=replacing))
            told[word].append((key, sentence))
        for word, code in ((DependencyStatus.FAILED, FAILED), (DependencyStatus.WAITING, "")):
            if told[word]:
                cause = "; ".join(sentence for _, sentence in told[word])
                unmet = told[DependencyStatus.FAILED] + told[DependencyStatus.WAITING]
                return Blocker(cause, tuple(key for key, _ in unmet), code)
        return None

    def _dependency(
        self, key: Key, condition: DependencyCondition, *, replacing: bool
    ) -> DependencyState:
        return DependencyState(
            key=key,
            condition=condition,
            service=self._services.get(key),
            containers=self._known.of(key),
            slots=self._slots_of(key),
            stalled=self._stalled.get(key, ""),
            crash_looping=frozenset(slot for owner, slot in self._crash_looping if owner == key),
            suspended=key in self._suspended,
            starting=key in self._starting,
            replacing=replacing,
        )

    def _slots_of(self, key: Key) -> tuple[SlotState, ...]:
        service = self._services.get(key)
        if service is None:
            return ()
        if key not in self._slots:
            there: dict[int, list[Container]] = {}
            for container in self._known.of(key):
                there.setdefault(container.slot, []).append(container)
            self._slots[key] = tuple(
                slot_of(number, tuple(there.get(number, ())), service)
                for number in range(1, service.spec.replicas + 1)
            )
        return self._slots[key]

    def teardown_blocker(self, key: Key) -> Blocker | None:
        """Return why a service that goes stays for now: what depends on it still runs, and goes."""
        if not _runs(self._observed.of(key)):
            return None
        before = self._before.get(key, set()) - self._left
        if key in self._around.overdue:
            before -= self._around.overdue  # but not those that came to go, or may, since
        staying = tuple(k for k in sorted(before) if _runs(self._known.of(k)))
        if not staying:
            return None
        names = ", ".join(other.name for other in staying)
        verb = "depends" if len(staying) == 1 else "depend"
        return Blocker(f"waiting for {names} to be gone, which {verb} on it", staying)

    def causes(self, key: Key) -> frozenset[str]:
        """Return why a service would wait for others now."""
        service = self._services.get(key)
        kept = NONE if service is None else self.blockers(service)
        resource_conflict = None if service is None else self.resource_conflict(service)
        reasons = (kept.start, kept.replace, resource_conflict, self.teardown_blocker(key))
        return frozenset(reason.cause for reason in reasons if reason is not None)

    def note(self, key: Key, actions: Iterable[AnyAction], problems: Iterable[Problem]) -> None:
        """Take note of what the plan does for a service: those that come after build on it."""
        stuck = [problem.message for problem in problems if problem.severity is Severity.ERROR]
        waits = gated = False
        for action in actions:
            if denied(action):
                stuck.append(action.verdict.reason)
            elif isinstance(action, StartContainer) and not gated:
                self._starting.add(key)
            elif isinstance(action, NeedsOperator):
                stuck.append(action.cause)
            elif isinstance(action, Barrier | Delay):
                waits, gated = True, gated or isinstance(action, Barrier)
        if stuck:
            self._stalled[key] = stuck[0]
        elif key in self._going and not waits:
            self._left.add(key)


def _runs(containers: Iterable[Container]) -> bool:
    return any(container.state in ALIVE for container in containers)
