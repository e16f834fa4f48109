"""The chronicle: what looks showed, one after the other, as far as later plans must know of it.

Failures of slots, since when containers are good, how far rollouts are. What must survive a restart
is in ``StateStore``; the rest is kept by key, each by the one worker that has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from controller.core.drift import availability as readiness
from controller.core.drift import backoff, contention, drift, failures
from controller.core.drift.availability import Availability, AvailabilityWord, GoodSince
from controller.core.drift.contention import is_contended
from controller.core.drift.failures import ExitCursor
from controller.core.planning.context import PlanContext, SlotPause
from controller.core.records import endings
from controller.core.service import rollout_progress
from controller.core.service.rollout_progress import RolloutProgress, RolloutView
from controller.loop.state.store import StateStore
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import AnyAction, RemoveContainer
from controller.model.mutations import Mutation
from controller.model.names import Key, SlotKey
from controller.model.observed import Container, Observed
from controller.ports import Clock

#: A replica that is unhealthy again after so many failures is recreated, not restarted.
RECREATE_AFTER = 2
#: A predecessor that is unhealthy, and whose successor can't be had, is restarted this often at most.
CURE_S = 60.0
#: A rollout is looked at so often at least. What passed beyond that between two looks, nobody saw:
#: the controller or the engine was away, and no deadline comes nearer by it.
LOOK_S = 30.0


class ServiceTracker:
    """What is known of the past. A key's entries change only in its own passes, and in full looks."""

    def __init__(self, memory: StateStore, clock: Clock) -> None:
        self._memory = memory
        self._clock = clock
        self._sightings: dict[Key, dict[str, GoodSince]] = {}
        self._advanced: dict[Key, float] = {}  # when a course was looked at last, monotonic
        self._hindered: dict[Key, str] = {}
        self._counted: dict[SlotKey, float] = {}  # when its exits were counted last, monotonic

    # Looks

    def count_exits(self, desired: Desired, observed: Observed, *, only: Key | None = None) -> None:
        """Count what failed on its own since the last look, for every slot in a snapshot.

        It is one of everything, or of *only* one key.
        """
        now = self._clock.now()
        if observed.taken_down != self._memory.taken_down:
            self._memory.start_over(observed.taken_down)
        for slot, history in self._memory.histories().items():
            after = backoff.seen(history, now)
            if only in (None, slot[0]) and after != history:
                self._memory.remember(slot, after)
        suspended = desired.suspended
        services = {s.key: s for s in desired.services if s.key not in suspended}
        for slot, containers in _by_slot(observed.containers).items():
            service = services.get(slot[0])
            if service is None or slot[1] > service.spec.replicas:
                continue
            self._count_violations(slot, containers, service, now)
            container = drift.slot_of(slot[1], containers, service).current
            if container is not None:
                self._count(slot, container, service, now)

    def _count_violations(
        self, slot: SlotKey, containers: Iterable[Container], service: Service, now: float
    ) -> None:
        """Count each container of the wanted revision that the broker ended, once."""
        ended = [c for c in containers if c.violation and c.revision == service.revision]
        mark = self._memory.mark(slot) or ExitCursor("")
        for container in ended:
            if container.violation not in mark.violations:
                history = backoff.failed(
                    self._memory.history(slot),
                    now,
                    up_s=failures.up_s(container, now),
                    cause=failures.explain(container),
                    violation=container.violation,
                )
                self._memory.remember(slot, history)
        counted = tuple(container.violation for container in ended)
        if counted != mark.violations:
            self._memory.set_mark(slot, replace(mark, violations=counted))

    def _count(self, slot: SlotKey, container: Container, service: Service, now: float) -> None:
        history, up_s = self._memory.history(slot), failures.up_s(container, now)
        looping = backoff.crash_looping(history, now)
        mark, at = self._memory.mark(slot), self._clock.monotonic()
        count = failures.failures(container, service, mark, controller_restarts=looping)
        if at - self._counted.get(slot, -math.inf) >= backoff.RESET_AFTER_S:
            # Nobody looked for longer than a crash loop takes: they aren't all of just now.
            count = min(count, 1)
        self._counted[slot] = at
        for _ in range(count):
            history = backoff.failed(
                history,
                now,
                up_s=0.0 if container.running else up_s,
                cause=failures.explain(container),
            )
        if container.running and container.health != "unhealthy":
            history = backoff.rested(history, up_s)
        self._memory.remember(slot, history)
        self._memory.set_mark(slot, failures.mark_of(container, mark))

    def saw(self, service: Service, observed: Observed, *, stalled: bool) -> RolloutProgress:
        """Take note of what a pass's look shows of one service, and return how its rollout goes.

        *stalled*: its last pass ended with something that a person must do.
        """
        key, now = service.key, self._clock.monotonic()
        self._sightings[key] = self._seen(key, observed, now)
        before = self._memory.course(key)
        advanced = self._advanced.get(key, now)
        self._advanced[key] = now
        scene = self._scene(service, observed)
        elapsed_s = min(max(0.0, now - advanced), LOOK_S)
        after = rollout_progress.advance(before, scene, elapsed_s=elapsed_s, stalled=stalled)
        if before.revision not in ("", after.revision):
            # Earlier failures say nothing of another revision.
            self._memory.forgive(key)
        self._memory.set_course(key, after)
        self._look_for_fights(service, observed)
        return after

    def _look_for_fights(self, service: Service, observed: Observed) -> None:
        now, found = self._clock.now(), _by_slot(observed.of(service.key))
        looping = self.looping(now)
        for number in range(1, service.spec.replicas + 1):
            slot = (service.key, number)
            there = found.get(slot, ())
            ended: dict[str, str] = {}
            for container in there:
                if failures.stopped_from_outside(
                    container, service, controller_restarts=slot in looping
                ):
                    ended.setdefault(contention.STOPPED, container.id)
            mark = self._memory.mark(slot)
            if mark is not None and _removed(mark, there, observed):
                ended[contention.REMOVED] = mark.id
            fights = contention.look(self._memory.fights(slot), there, now, ended=ended)
            self._memory.set_fights(slot, fights)

    def did(self, action: AnyAction) -> None:
        """Take note of an action that succeeded."""
        slot = (action.object, action.slot)
        self._counted[slot] = self._clock.monotonic()  # what it begins is seen from its beginning
        mark = self._memory.mark(slot)
        if isinstance(action, RemoveContainer) and mark and mark.id == action.precondition.id:
            self._memory.set_mark(slot, replace(mark, id="", name=""))
        fights = self._memory.fights(slot)
        if fights:
            self._memory.set_fights(slot, contention.healed(fights, action))

    def hindered(self, key: Key, why: str) -> None:
        """Take note of what a pass failed with; '' where it didn't."""
        if why:
            self._hindered[key] = why
        else:
            self._hindered.pop(key, None)

    def go_on(self, key: Key) -> None:
        """Let a rollout that failed be tried again."""
        self._memory.set_course(key, rollout_progress.again(self._memory.course(key)))

    def due_in_s(self, service: Service, observed: Observed) -> float | None:
        """Return when a service's rollout needs a look though nothing happens, if it does."""
        due_s = rollout_progress.due_in_s(
            self._memory.course(service.key), self._scene(service, observed)
        )
        if due_s is None:
            return None
        settles_s = self.settles_in_s(service, observed)
        return min(LOOK_S, due_s, LOOK_S if settles_s is None else settles_s)

    def forget_all_but(self, keys: frozenset[Key]) -> None:
        """Forget what is neither declared nor there any more."""
        tables: tuple[dict[Key, Any], ...] = (self._sightings, self._advanced, self._hindered)
        # Copied as a whole: passes add to them meanwhile.
        for table in tables:
            for key in [*table]:
                if key not in keys:
                    table.pop(key, None)
        for slot in [*self._counted]:
            if slot[0] not in keys:
                self._counted.pop(slot, None)

    # What plans get of it

    def plan_context(self, desired: Desired, observed: Observed) -> PlanContext:
        """Return what a plan from *observed* must know; nothing is remembered by that."""
        now = self._clock.now()
        found: dict[str, Availability] = {}
        superseded: dict[str, str] = {}
        for service in desired.services:
            found |= self._readiness(service, observed)
            superseded |= self._superseded(service, observed)
        if observed.taken_down != self._memory.taken_down:
            return PlanContext(availability=found)  # what failed before `down` is tried at once
        return PlanContext(
            backoff={slot: pause.text for slot, pause in self.held(now).items()},
            controller_restarts=self.looping(now),
            availability=found,
            replace_reasons=superseded,
            last_good={key: each.good for key, each in self._memory.courses().items()},
            last_pass_failed=frozenset(self._hindered),
            failing_predecessors=frozenset(
                c.id for s in desired.services for c in self._ailing(s, observed)
            ),
            contended={
                slot: {
                    name: SlotPause(_again_and_again(name), until).text
                    for name, until in fields.items()
                }
                for slot, fields in self.sparing(now).items()
            },
            removed_from_outside=dict(self._gone(desired, observed)),
            paused={key: f"the rollout failed: {why}" for key, why in self.failed(desired).items()},
        )

    def _gone(self, desired: Desired, observed: Observed) -> Iterable[tuple[SlotKey, str]]:
        """Yield what became of the last container of slots that somebody else emptied."""
        for service in desired.services:
            found = _by_slot(observed.of(service.key))
            for number in range(1, service.spec.replicas + 1):
                slot = (service.key, number)
                mark = self._memory.mark(slot)
                if slot not in found and mark and (how := _removed(mark, (), observed)):
                    yield slot, f"{mark.name or 'its container'} {how}"

    def failed(self, desired: Desired) -> dict[Key, str]:
        """Return the services whose rollout has failed, and why."""
        courses = self._memory.courses()
        return {
            service.key: told.failed
            for service in desired.services
            if (told := courses.get(service.key)) is not None
            and told.failed
            and told.revision == service.revision
        }

    def looping(self, now: float) -> frozenset[SlotKey]:
        """Return the slots in a crash loop; the controller restarts those, and not the engine."""
        histories = self._memory.histories().items()
        return frozenset(slot for slot, each in histories if backoff.crash_looping(each, now))

    def breaches(self, now: float) -> dict[SlotKey, str]:
        """Return the slots in a crash loop whose last container the broker ended, and its record."""
        histories, looping = self._memory.histories(), self.looping(now)
        return {slot: v for slot in looping if (v := histories[slot].violation)}

    def held(self, now: float) -> dict[SlotKey, SlotPause]:
        """Return the slots in which nothing is started now."""
        held = {
            slot: SlotPause(_again_and_again(name), until)
            for slot, untils in self.sparing(now).items()
            for name, until in sorted(untils.items(), key=lambda each: each[1])
            if name in contention.ENDED
        }
        for slot, history in self._memory.histories().items():
            until = backoff.not_before(history, now)
            if until > now and (slot not in held or held[slot].until < until):
                times = "once" if history.count == 1 else f"{history.count} times in a row"
                why = f" (it {history.cause})" if history.cause else ""
                held[slot] = SlotPause(f"failed {times}{why}", until)
        return held

    def frequencies(self, now: float) -> dict[SlotKey, str]:
        """Return how often the slots in a crash loop failed."""
        return {
            slot: backoff.frequency(history, now)
            for slot, history in self._memory.histories().items()
            if backoff.crash_looping(history, now)
        }

    def pauses(self, now: float) -> dict[SlotKey, SlotPause]:
        """Return the slots in which something waits for an instant: a start, or an alteration."""
        spared = {
            slot: SlotPause(_again_and_again(*untils), min(untils.values()))
            for slot, untils in self.sparing(now).items()
        }
        return spared | self.held(now)

    def sparing(self, now: float) -> dict[SlotKey, dict[str, float]]:
        """Return the alterations that aren't healed yet, stops and removals too, and until when."""
        found: dict[SlotKey, dict[str, float]] = {}
        for slot, fights in self._memory.all_fights().items():
            untils = {name: contention.not_before(fight) for name, fight in fights.items()}
            held = {name: until for name, until in untils.items() if until > now}
            if held:
                found[slot] = held
        return found

    def contended(self, now: float) -> dict[SlotKey, tuple[str, ...]]:
        """Return the fields that somebody else alters again and again, by slot."""
        found = {
            slot: tuple(n for n, fight in sorted(fights.items()) if is_contended(fight, now))
            for slot, fights in self._memory.all_fights().items()
        }
        return {slot: names for slot, names in found.items() if names}

    def settles_in_s(self, service: Service, observed: Observed) -> float | None:
        """Return when time alone makes one more of a service's containers available, if it does."""
        untils = [r.until for r in self._readiness(service, observed).values() if r.until]
        return max(0.0, min(untils) - self._clock.monotonic()) if untils else None

    def is_available(self, service: Service, observed: Observed, name: str) -> bool:
        """Tell whether the container of that name is available."""
        scene = self._scene(service, observed)
        found = (c for c in scene.containers if c.name == name)
        return any(scene.ready(container) is AvailabilityWord.AVAILABLE for container in found)

    def _superseded(self, service: Service, observed: Observed) -> dict[str, str]:
        """Return what was restarted for being unhealthy, and is so again."""
        return {
            container.id: f"{container.name} is unhealthy again"
            for container in observed.of(service.key)
            if container.running
            and container.revision == service.revision
            and container.health == "unhealthy"
            and self._memory.history((service.key, container.slot)).count >= RECREATE_AFTER
        }

    def _ailing(self, service: Service, observed: Observed) -> Iterable[Container]:
        """Yield what of earlier revisions is unhealthy, and wasn't started just now."""
        now = self._clock.now()
        for container in observed.of(service.key):
            ill = container.running and container.health == "unhealthy"
            earlier = container.revision != service.revision
            if ill and earlier and failures.up_s(container, now) >= CURE_S:
                yield container

    def _scene(self, service: Service, observed: Observed) -> RolloutView:
        histories = {
            slot: self._memory.history((service.key, slot))
            for slot in {container.slot for container in observed.of(service.key)}
        }
        containers = observed.of(service.key)
        readiness, hindered = (
            self._readiness(service, observed),
            self._hindered.get(service.key, ""),
        )
        return RolloutView(service, containers, readiness, histories, hindered)

    def _readiness(self, service: Service, observed: Observed) -> dict[str, Availability]:
        now = self._clock.monotonic()
        seen = self._seen(service.key, observed, now)
        return {
            container.id: readiness.readiness(
                container, service.spec, seen.get(container.id), now=now
            )
            for container in observed.of(service.key)
        }

    def _seen(self, key: Key, observed: Observed, now: float) -> dict[str, GoodSince]:
        before = self._sightings.get(key)
        return readiness.saw(
            before or {},
            observed.of(key),
            now=now,
            wall=self._clock.now(),
            unseen_s=now - self._advanced.get(key, -math.inf),
        )


def _removed(mark: ExitCursor, there: Iterable[Container], observed: Observed) -> str:
    """Return how somebody else removed a slot's container, in words that follow its name; else ''."""
    if not mark.id or any(c.id == mark.id for c in there):
        return ""
    ending = observed.endings.get(mark.id)
    if ending is None or ending.route != Mutation.CONTAINER_REMOVE:
        return "was removed from outside"
    return "" if ending.role in {"controller", "broker"} else endings.describe(ending)


def _again_and_again(*names: str) -> str:
    """Return that fields are altered, or containers ended, again and again."""
    ended = [name for name in names if name in contention.ENDED]
    if ended:
        return f"its container is {' and '.join(sorted(ended))} from outside again and again"
    fields = ", ".join(sorted(name.replace("_", " ") for name in names))
    return f"{fields} {'is' if len(names) == 1 else 'are'} altered again and again"


def _by_slot(containers: Iterable[Container]) -> dict[SlotKey, tuple[Container, ...]]:
    by_slot: dict[SlotKey, list[Container]] = {}
    for container in sorted(containers, key=lambda c: c.name):
        if container.origin == "controller":
            by_slot.setdefault((container.key, container.slot), []).append(container)
    return {slot: tuple(found) for slot, found in by_slot.items()}
