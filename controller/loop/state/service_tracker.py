"""The tracker: the history of observations, as input for later plans.

The tracker records failures of slots, contention with other clients, since when containers are
healthy, and the progress of rollouts. Persistent parts are in ``StateStore``, the rest is in
memory, by key.

Snapshots: merge a key's snapshot into the snapshot of everything.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import attrgetter

from controller.core.drift import availability as readiness
from controller.core.drift import classify, contention, failures
from controller.core.drift.availability import Availability, AvailabilityWord, GoodSince, outlived
from controller.core.drift.contention import is_contended
from controller.core.drift.failures import ExitCursor
from controller.core.jobs.rollout_hooks import NO_HOOKS, HookFacts
from controller.core.planning.context import PlanContext, SlotPause
from controller.core.records import container_effects
from controller.core.service import rollout_progress
from controller.core.service.rollout_progress import RolloutProgress, RolloutView
from controller.core.status.facts import SlotTrouble
from controller.loop.state.store import StateStore
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import (
    AnyAction,
    CreateContainer,
    MoveService,
    PullImage,
    RemoveContainer,
    StartContainer,
)
from controller.model.mutations import Mutation
from controller.model.names import WORKLOADS, Key, SlotKey
from controller.model.observed import Container, Observed
from controller.ports import Clock, ContainerSummary, EngineEvent

#: A replica that is unhealthy again after this many failures is recreated, not restarted.
RECREATE_AFTER = 2
#: An unhealthy predecessor is restarted at most this often while no successor can replace it.
CURE_S = 60.0
#: A rollout is observed at least this often. A longer gap doesn't count towards any deadline:
#: controller or engine were down, and nothing was observed.
LOOK_S = 30.0
#: The same for a rollout whose replicas are all available, and that is only watched.
WATCH_LOOK_S = 60.0


class ServiceTracker:
    """The history of all services.

    A key's entries change only in the key's passes, and in observations of everything.
    """

    def __init__(self, store: StateStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        #: The failures of each service's containers since the start.
        self.restarts: Counter[Key] = Counter()
        #: True until everything was observed after an interruption, such as a restart of the engine.
        self.is_interrupted = True

    # Observations

    def count_exits(self, desired: Desired, observed: Observed, *, only: Key | None = None) -> None:
        """Count the failures since the last observation, for every slot in a snapshot.

        *observed* is a snapshot of everything, or of *only* one key.
        """
        now = self._clock.now()
        if observed.taken_down != self._store.taken_down:
            self._store.reset_after_down(observed.taken_down)
        for slot, state in self._store.troubled().items():
            if only in (None, slot[0]):
                state.history = failures.without_future(state.history, now)
        suspended = desired.suspended
        for slot, containers in _by_slot(observed.containers).items():
            service = None if slot[0] in suspended else desired.service(slot[0])
            if service is None or slot[1] > service.spec.replicas:
                continue
            self._count_violations(slot, containers, service, now)
            container = classify.slot_of(slot[1], containers, service).current
            if container is not None:
                self._count(slot, container, service, now)

    def _count_violations(
        self, slot: SlotKey, containers: Iterable[Container], service: Service, now: float
    ) -> None:
        """Count each container of the desired revision that the broker ended, once."""
        ended = [c for c in containers if c.violation and c.revision == service.revision]
        state = self._store.slot(slot)
        cursor = state.exit_cursor or ExitCursor("")
        for container in ended:
            if container.violation not in cursor.violations:
                state.history = failures.record_failure(
                    state.history,
                    now,
                    up_s=failures.up_s(container, now),
                    cause=failures.explain(container),
                    violation=container.violation,
                )
        counted = tuple(container.violation for container in ended)
        if counted != cursor.violations:
            state.exit_cursor = replace(cursor, violations=counted)

    def _count(self, slot: SlotKey, container: Container, service: Service, now: float) -> None:
        state = self._store.slot(slot)
        history, up_s = state.history, failures.up_s(container, now)
        looping = failures.is_crash_looping(history, now)
        cursor, at = state.exit_cursor, self._clock.monotonic()
        by_us = looping or service.is_boot_ordered
        count = failures.count_failures(container, service, cursor, controller_restarts=by_us)
        if self.is_interrupted and service.is_boot_ordered and not container.running:
            count = 0  # the engine stopped: that is no failure of the container
        if at - state.counted_at >= failures.RESET_AFTER_S:
            # The gap is longer than a crash loop's window: the failures aren't all recent.
            count = min(count, 1)
        state.counted_at = at
        self.restarts[slot[0]] += count
        for _ in range(count):
            history = failures.record_failure(
                history,
                now,
                up_s=0.0 if container.running else up_s,
                cause=failures.explain(container),
            )
        if container.running and container.health != "unhealthy":
            history = failures.reset_after_run(history, up_s)
        state.history, state.exit_cursor = history, failures.cursor_of(container, cursor)

    def observe_rollout(
        self,
        service: Service,
        observed: Observed,
        *,
        awaits_others: bool = False,
        hooks: HookFacts = NO_HOOKS,
    ) -> RolloutProgress:
        """Record a pass's observation of one service; return the progress of its rollout.

        *awaits_others*: the last pass waits for a person, another service or the engine. *hooks* are the
        jobs before and after the rollout.
        """
        key, now = service.key, self._clock.monotonic()
        state = self._store.of(key)
        state.good_since = self._good_since(key, observed, now)
        before = state.rollout
        advanced = now if state.advanced_at is None else state.advanced_at
        state.advanced_at = now
        view = replace(self._rollout_view(service, observed), hooks=hooks)
        elapsed_s = min(max(0.0, now - advanced), _look_s(before))
        after = rollout_progress.advance(
            before, view, elapsed_s=elapsed_s, awaits_others=awaits_others
        )
        if before.revision and not rollout_progress.is_of(before, service):
            # Failures of another revision, or with other limits, don't count for this one.
            for slot in state.slots.values():
                slot.forget_failures()
        state.rollout = after
        self._observe_contention(service, observed)
        return after

    def _observe_contention(self, service: Service, observed: Observed) -> None:
        now, by_slot = self._clock.now(), _by_slot(observed.of(service.key))
        looping = self.crash_looping(now)
        for number in range(1, service.spec.replicas + 1):
            slot = (service.key, number)
            state, containers = self._store.slot(slot), by_slot.get(slot, ())
            ended: dict[str, str] = {}
            for container in containers:
                if failures.is_stopped_from_outside(
                    container,
                    service,
                    controller_restarts=slot in looping or service.is_boot_ordered,
                ):
                    ended.setdefault(contention.STOPPED, container.id)
            cursor = state.exit_cursor
            if cursor is not None and _describe_removal(cursor, containers, observed):
                ended[contention.REMOVED] = cursor.id
            state.contentions = contention.observe(state.contentions, containers, now, ended=ended)

    def record_action(self, action: AnyAction) -> None:
        """Record a successful action."""
        if isinstance(action, MoveService):
            # The suspension went with the state, and another service can have the name.
            earlier = self._store.of(action.source)
            earlier.overrides = replace(earlier.overrides, suspension=None)
        state = self._store.slot((action.object, action.slot))
        # A container that this action started is observed from its start.
        state.counted_at = self._clock.monotonic()
        cursor = state.exit_cursor
        if isinstance(action, RemoveContainer) and cursor and cursor.id == action.precondition.id:
            state.exit_cursor = replace(cursor, id="", name="")
        if state.contentions:
            state.contentions = contention.record_healing(state.contentions, action)

    def record_pulls(
        self, workload: Service | None, done: Iterable[AnyAction], failed: AnyAction | None
    ) -> None:
        """Record whether a pass left an image pulled, with no create tried since.

        *done* and *failed*: the actions of the pass.
        """
        if workload is None:
            return
        state = self._store.of(workload.key)
        for action in done:
            if isinstance(action, PullImage):
                state.pulled = workload.revision
            elif isinstance(action, CreateContainer):
                state.pulled = None
        if isinstance(failed, CreateContainer):
            state.pulled = None

    def record_changed_source(self, start: StartContainer, cause: str) -> float:
        """Record that a container can't be started, as a source of its mounts was replaced.

        The container is to be replaced: at once the first time within ``RESET_AFTER_S``, then after
        the pause of a failed start. Returns the seconds until then.
        """
        state, now = self._store.slot((start.object, start.slot)), self._clock.monotonic()
        is_again = now - state.outdated_at < failures.RESET_AFTER_S
        state.outdated, state.outdated_at = start.precondition.id, now
        if not is_again:
            return 0.0
        wall = self._clock.now()
        state.history = failures.record_failure(state.history, wall, cause=cause)
        return failures.retry_not_before(state.history, wall) - wall

    def retry_rollout(self, key: Key) -> None:
        """Let a failed rollout be tried again."""
        state = self._store.of(key)
        state.rollout = rollout_progress.resume(state.rollout)

    def due_in_s(self, service: Service, observed: Observed) -> float | None:
        """Return when a service's rollout must be observed again even without an event, or None."""
        due_s = rollout_progress.due_in_s(
            self._store.of(service.key).rollout, self._rollout_view(service, observed)
        )
        if due_s is None:
            return None
        available_s = self.available_in_s(service, observed)
        look_s = _look_s(self._store.of(service.key).rollout)
        return min(look_s, due_s, look_s if available_s is None else available_s)

    # Inputs of plans

    def plan_context(
        self,
        desired: Desired,
        observed: Observed,
        *,
        only: Key | frozenset[Key] | None = None,
        known: Observed | None = None,
    ) -> PlanContext:
        """Return the context of a plan for *observed*, of *only* some keys or of all. Changes nothing.

        *known* is the last snapshot of everything, for an *observed* of one key only.
        """
        now, chosen = self._clock.now(), desired.chosen_workloads(only)
        services = [each for each in chosen if each.key.kind == "Service"]
        states = [(each.key, self._store.of(each.key)) for each in chosen]
        availability: dict[str, Availability] = {}
        superseded: dict[str, str] = {}
        present = [service for service in services if observed.of(service.key)]
        for service in present:
            availability |= self._availability(service, observed)
            superseded |= self._superseded(service, observed)
            superseded |= outlived(service, desired, observed, known or observed, now)
        if observed.taken_down != self._store.taken_down:
            # Failures before `down` don't count.
            return PlanContext(availability=availability)
        return PlanContext(
            backoff={slot: pause.text for slot, pause in self.start_pauses(now).items()},
            controller_restarts=self.crash_looping(now),
            availability=availability,
            replace_reasons=superseded,
            last_good={key: state.rollout.good for key, state in states},
            last_pass_failed=frozenset(key for key, state in states if state.pass_error),
            failing_predecessors=frozenset(
                container.id
                for service in present
                for container in self._failing_predecessors(service, observed)
            ),
            contended={
                slot: {
                    name: SlotPause(_again_and_again(name), until).text
                    for name, until in fields.items()
                }
                for slot, fields in self.repair_pauses(now).items()
            },
            removed_from_outside=dict(self._removals(services, observed)),
            remaking=self._store.networks_remade,
            pulled=self._store.pulled(),
            paused={
                key: f"the rollout failed: {reason}"
                for key, reason in self.failed_rollouts(services).items()
            },
        )

    def _removals(
        self, services: Iterable[Service], observed: Observed
    ) -> Iterable[tuple[SlotKey, str]]:
        """Yield how the last container of a slot was removed, for slots emptied by others."""
        for service in services:
            filled = {container.slot for container in observed.of(service.key)}
            for number in range(1, service.spec.replicas + 1):
                if number in filled:
                    continue
                slot = (service.key, number)
                cursor = self._store.slot(slot).exit_cursor
                if cursor and (removal := _describe_removal(cursor, (), observed)):
                    yield slot, f"{cursor.name or 'its container'} {removal}"

    def failed_rollouts(self, services: Iterable[Service]) -> dict[Key, str]:
        """Return the services whose current rollout has failed, with the reason."""
        return {
            service.key: rollout.failed
            for service in services
            if (rollout := self._store.of(service.key).rollout).failed
            and rollout_progress.is_of(rollout, service)
        }

    def settling(self, desired: Desired, observed: Observed) -> frozenset[Key]:
        """Return the services whose rollout isn't over, without tasks that failed for good."""
        return frozenset(
            service.key
            for service in desired.services
            if service.key not in desired.suspended
            and rollout_progress.is_settling(self._store.of(service.key).rollout, service)
            and not any(
                classify.ReplicaState(container, service).is_finished and container.exit_code
                for container in observed.of(service.key)
            )
        )

    def crash_looping(self, now: float) -> frozenset[SlotKey]:
        """Return the slots in a crash loop: the controller restarts these, not the engine."""
        troubled = self._store.troubled().items()
        return frozenset(k for k, slot in troubled if failures.is_crash_looping(slot.history, now))

    def restarted_slots(self, service: Service, now: float) -> frozenset[int]:
        """Return the slots of a service whose failed containers the controller restarts."""
        looping = {slot for key, slot in self.crash_looping(now) if key == service.key}
        if service.is_boot_ordered:
            # An exit with the engine's own counts as no failure.
            slots = range(1, service.spec.replicas + 1)
            looping |= {n for n in slots if self._store.slot((service.key, n)).history.count}
        return frozenset(looping)

    def start_pauses(self, now: float) -> dict[SlotKey, SlotPause]:
        """Return the slots in which no container is started now: backoff or contention."""
        paused = {
            slot: SlotPause(_again_and_again(name), until)
            for slot, untils in self.repair_pauses(now).items()
            for name, until in sorted(untils.items(), key=lambda item: item[1])
            if name in contention.ENDED
        }
        for slot, state in self._store.troubled().items():
            history = state.history
            until = failures.retry_not_before(history, now)
            if until > now and (slot not in paused or paused[slot].until < until):
                times = "once" if history.count == 1 else f"{history.count} times in a row"
                cause = f" (it {history.cause})" if history.cause else ""
                paused[slot] = SlotPause(f"failed {times}{cause}", until)
        return paused

    def pauses(self, now: float) -> dict[SlotKey, SlotPause]:
        """Return the slots in which a start or a repair waits for an instant."""
        repairs = {
            slot: SlotPause(_again_and_again(*untils), min(untils.values()))
            for slot, untils in self.repair_pauses(now).items()
        }
        return repairs | self.start_pauses(now)

    def repair_pauses(self, now: float) -> dict[SlotKey, dict[str, float]]:
        """Return until when contended fields aren't repaired, by slot and field.

        Stops and removals by other clients count as fields.
        """
        pauses: dict[SlotKey, dict[str, float]] = {}
        for slot, state in self._store.troubled().items():
            untils = {name: contention.not_before(c) for name, c in state.contentions.items()}
            later = {name: until for name, until in untils.items() if until > now}
            if later:
                pauses[slot] = later
        return pauses

    def troubles(self, now: float) -> dict[SlotKey, SlotTrouble]:
        """Return the troubles of all slots with failures or contentions."""
        pauses, troubles = self.pauses(now), {}
        for slot, state in self._store.troubled().items():
            history, contentions = state.history, sorted(state.contentions.items())
            is_looping = failures.is_crash_looping(history, now)
            troubles[slot] = SlotTrouble(
                history.cause,
                crash_looping=failures.frequency(history, now) if is_looping else "",
                breach=history.violation if is_looping else "",
                contended=tuple(name for name, each in contentions if is_contended(each, now)),
                pause=pauses.get(slot),
            )
        return troubles

    def available_in_s(self, service: Service, observed: Observed) -> float | None:
        """Return when the next container becomes available by time alone; None if none does."""
        untils = [a.until for a in self._availability(service, observed).values() if a.until]
        return max(0.0, min(untils) - self._clock.monotonic()) if untils else None

    def is_available(self, service: Service, observed: Observed, name: str) -> bool:
        """Return True if the container *name* is available."""
        view = self._rollout_view(service, observed)
        containers = (c for c in view.containers if c.name == name)
        return any(
            view.availability_of(container) is AvailabilityWord.AVAILABLE
            for container in containers
        )

    def _superseded(self, service: Service, observed: Observed) -> dict[str, str]:
        """Return the containers to recreate: unhealthy again after a restart for bad health, or with
        a mount's source that was replaced on the host.
        """
        outdated = {
            container.id: f"a mount's source was replaced on the host since {container.name} was created"
            for container in observed.of(service.key)
            if container.id == self._store.slot((service.key, container.slot)).outdated
        }
        return outdated | {
            container.id: f"{container.name} is unhealthy again"
            for container in observed.of(service.key)
            if container.running
            and container.revision == service.revision
            and container.health == "unhealthy"
            and self._store.slot((service.key, container.slot)).history.count >= RECREATE_AFTER
        }

    def _failing_predecessors(self, service: Service, observed: Observed) -> Iterable[Container]:
        """Yield the unhealthy containers of earlier revisions that have run for ``CURE_S``."""
        now = self._clock.now()
        for container in observed.of(service.key):
            unhealthy = container.running and container.health == "unhealthy"
            earlier = container.revision != service.revision
            if unhealthy and earlier and failures.up_s(container, now) >= CURE_S:
                yield container

    def _rollout_view(self, service: Service, observed: Observed) -> RolloutView:
        containers = observed.of(service.key)
        histories = {
            slot: self._store.slot((service.key, slot)).history
            for slot in {container.slot for container in containers}
        }
        availability = self._availability(service, observed)
        failure = self._store.of(service.key).pass_error
        return RolloutView(service, containers, availability, histories, failure)

    def _availability(self, service: Service, observed: Observed) -> dict[str, Availability]:
        now = self._clock.monotonic()
        good_since = self._good_since(service.key, observed, now)
        return {
            container.id: readiness.availability_of(
                container, service.spec, good_since.get(container.id), now=now
            )
            for container in observed.of(service.key)
        }

    def _good_since(self, key: Key, observed: Observed, now: float) -> dict[str, GoodSince]:
        state = self._store.of(key)
        unseen_s = math.inf if state.advanced_at is None else now - state.advanced_at
        return readiness.update_good_since(
            state.good_since,
            observed.of(key),
            now=now,
            wall=self._clock.now(),
            unseen_s=unseen_s,
        )


def _look_s(rollout: RolloutProgress) -> float:
    """Return the longest time between two observations of a rollout that is under way."""
    return LOOK_S if rollout.held_s is None else WATCH_LOOK_S


def _describe_removal(
    cursor: ExitCursor, containers: Iterable[Container], observed: Observed
) -> str:
    """Return how another client removed a slot's container, worded to follow its name; else ''."""
    if not cursor.id or any(c.id == cursor.id for c in containers):
        return ""
    ending = observed.endings.get(cursor.id)
    if ending is None or ending.route != Mutation.CONTAINER_REMOVE:
        return "was removed from outside"
    return (
        "" if ending.role in {"controller", "broker"} else container_effects.describe_ending(ending)
    )


def _again_and_again(*names: str) -> str:
    """Return the reason of a pause for contended fields, or for containers ended by others."""
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


def merge_snapshot(whole: Observed, part: Observed, key: Key) -> Observed:
    """Return *whole* updated by *part*, a snapshot of *key* alone.

    Such a snapshot has the containers of one service, the networks of its namespace and all
    volumes.
    """
    containers = whole.containers
    if key.kind in WORKLOADS:
        # *whole* has a moved container under another name of its service. After a move there and
        # back, nothing of the container itself tells so.
        gone = {each.id for each in (*whole.groups.get(key, ()), *part.containers)}
        others = (each for each in containers if each.id not in gone)
        containers = tuple(sorted((*others, *part.containers), key=attrgetter("id")))
    unread = {each: why for each, why in whole.unread.items() if each != key}
    elsewhere = (n for n in whole.networks if n.namespace != key.namespace)
    here = (n for n in part.networks if n.namespace == key.namespace)
    return replace(
        whole,
        instance=part.instance,
        engine_id=part.engine_id,
        engine_version=part.engine_version,
        untested=part.untested,
        containers=containers,
        networks=tuple(sorted((*elsewhere, *here), key=lambda n: (n.name, n.id))),
        volumes=part.volumes,
        images={**whole.images, **part.images},
        pins=part.pins,
        image_volumes={**whole.image_volumes, **part.image_volumes},
        image_settings={**whole.image_settings, **part.image_settings},
        # A part without published ports has none, whatever is bound.
        listening=part.listening or whole.listening,
        endings=part.endings,
        files=part.files,
        taken_down=part.taken_down,
        jobs={**whole.jobs, **part.jobs},
        unread={**unread, **part.unread},
    )


def refreshed(whole: Observed, keys: Iterable[Key], observe: Callable[[Key], Observed]) -> Observed:
    """Return *whole* updated by new snapshots of *keys*."""
    for key in keys:
        whole = merge_snapshot(whole, observe(key), key)
    return whole


def changed_services(known: Observed, listed: frozenset[ContainerSummary]) -> frozenset[Key]:
    """Return the controller's services whose containers in the engine's list differ from *known*."""
    before = {_summary(container) for container in known.containers}
    # A client's container has no namespace: the controller doesn't manage it.
    return frozenset(summary.key for summary in before ^ listed if summary.key.namespace)


def owner_of(known: Observed, container_id: str) -> Key | None:
    """Return the controller's service of a container; None if unknown."""
    found = known.find(container_id)
    return found.key if found is not None and found.origin == "controller" else None


def displaced(known: Observed) -> frozenset[Key]:
    """Return the services with a slot whose address a container of others has."""
    if not any(network.held for network in known.networks):
        return frozenset()
    return frozenset(each.key for each in known.containers if each.holders)


def has_health(known: Observed, key: Key, event: EngineEvent) -> bool:
    """Return True if an event reports the health that a running container has in *known*."""
    return event.health != "" and any(
        each.running and each.health == event.health
        for each in known.of(key)
        if each.id == event.id
    )


def _summary(container: Container) -> ContainerSummary:
    return ContainerSummary(
        id=container.id,
        name=container.name,
        state=container.state.value,
        key=container.key,
        networks=container.settings.networks,
    )
