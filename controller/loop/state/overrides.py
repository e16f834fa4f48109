"""What outlives a pass: operators' overrides of the files, and when a failed action is tried again.

Operator overrides of the files: pins, suspensions, restarts and automatic rollbacks.

``core.service`` decides; this module makes decisions durable and applies them to the desired state.

Retries: when a failed action is tried again, per action and not per key.

A failed action is deferred until its time, while the other actions of its key go on: a refused
successor must not keep a killed replica down. After a change of spec or policy, the
action counts as new and is tried at once. In memory only, on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from controller.core.service import history
from controller.core.service.history import with_kept_revisions
from controller.core.service.operator_actions import ActionInputs, Decision, decide
from controller.core.service.overrides import apply_overrides, slots_of
from controller.core.service.rollout_progress import (
    RolloutProgress,
    is_of,
    outcome_of,
    should_roll_back,
)
from controller.loop.state.service_state import ActionKey, Attempt
from controller.loop.state.store import StateStore
from controller.model.desired.desired import (
    NO_OVERRIDES,
    Desired,
    Overrides,
    Service,
    ServiceAct,
)
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
    StateError,
    TooManyRequests,
    UsageError,
)
from controller.model.names import Key
from controller.model.observed import Container, Observed
from controller.model.quantities import format_instant
from controller.ports import Clock

#: The actor of an automatic rollback.
BY_ITSELF = "trimtab"


class OverrideStore:
    """The overrides of all services. Not thread-safe: the controller's lock orders decisions."""

    def __init__(self, store: StateStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def apply(self, declared: Desired) -> Desired:
        """Return the desired state for passes: the files' with all overrides applied."""
        return apply_overrides(declared, self._in_force())

    def _in_force(self) -> dict[Key, Overrides]:
        """Return the overrides of each service, without those that have ended by themselves."""
        now = self._clock.now()
        return {
            key: history.without_ended(overrides, now)
            for key, overrides in self._store.all_overrides().items()
        }

    def end_scalings(self) -> float | None:
        """Forget the scalings that have ended; return the seconds until the next one ends, if any."""
        now, ends = self._clock.now(), list[float]()
        for key, overrides in self._store.all_overrides().items():
            self._store.of(key).overrides = after = history.without_ended(overrides, now)
            if after.scaling is not None and after.scaling.until is not None:
                ends.append(after.scaling.until - now)
        return min(ends, default=None)

    def declare(self, files: Desired, observed: Observed | None) -> tuple[Desired, Desired]:
        """Return the files' state under the revisions that containers have, and with overrides.

        Services under a new name continue the history of their earlier names.
        """
        for service in files.services:
            undeclared = (key for key in service.moved if key not in files.workloads_by_key)
            earlier = [key for key in undeclared if not files.is_blind_for(key)]
            self._store.copy_moved(service.key, earlier)
        declared = with_kept_revisions(files, self._store.all_overrides(), observed)
        return declared, self.apply(declared)

    def running_revisions(self, desired: Desired, observed: Observed) -> Iterator[Service]:
        """Yield each desired service, and its earlier revisions with containers."""
        overrides_by_key = self._store.all_overrides()
        for service in desired.services:
            yield service
            overrides = overrides_by_key.get(service.key, NO_OVERRIDES)
            running = {container.revision for container in observed.of(service.key)}
            for revision in sorted(running - {service.revision}):
                earlier = slots_of(overrides.find_revision(revision), service)
                if earlier is not None:
                    yield earlier

    def decide(
        self,
        act: ServiceAct,
        declared: Desired,
        containers: tuple[Container, ...],
        *,
        rebuilt: str = "",
        renamed: Key | None = None,
        is_signed: bool = False,
    ) -> Decision:
        """Return the decision on an operator's act; *containers* belong to its service.

        *rebuilt*, *renamed*, *is_signed*: see ``ActionInputs``.

        Raises:
            UsageError: the act isn't possible; the message names the reason and alternatives.
        """
        generation = self._store.of(act.key).generation
        inputs = ActionInputs(
            declared=declared,
            all_overrides=self._in_force(),
            containers=containers,
            generation=0 if generation is None else generation.number,
            failed=self._store.of(act.key).rollout.failed,
            rebuilt=rebuilt,
            renamed=renamed,
            is_signed=is_signed,
        )
        return decide(act, inputs, now=format_instant(self._clock.now()))

    def save(self, key: Key, decision: Decision) -> None:
        """Make a decision durable.

        Raises:
            StateError: the state can't be saved; the decision isn't in force.
        """
        state = self._store.of(key)
        before, state.overrides, state.pulled = state.overrides, decision.overrides, None
        try:
            self._store.save()
        except StateError:
            state.overrides = before
            raise

    def roll_back(
        self, service: Service, reason: str, declared: Desired | None, observed: Observed
    ) -> bool:
        """Roll a failed rollout back, if the spec asks for a rollback; return True if anything changed.

        Raises:
            StateError: the state can't be saved; the rollback isn't in force.
        """
        containers = observed.of(service.key)
        wanted = should_roll_back(service, self._store.of(service.key).overrides, containers)
        if not wanted or declared is None:
            return False
        act = ServiceAct("rollback", service.key, BY_ITSELF, reason=reason, automatic=True)
        try:
            decision = self.decide(act, declared, containers)
        except UsageError:
            return False  # there is no earlier revision: the rollout stays paused
        if decision.changed:
            self.save(service.key, decision)
        return decision.changed

    def record_restart(self, key: Key, containers: tuple[Container, ...]) -> bool:
        """End a restart whose containers are all replaced; return True if anything changed."""
        state = self._store.of(key)
        before = state.overrides
        state.overrides = history.finish_restart(before, containers)
        return state.overrides != before

    def record_applied(self, service: Service) -> None:
        """Record a service as running by its document."""
        state = self._store.of(service.key)
        state.overrides = history.record_applied(state.overrides, service)

    def record_downtime(self, key: Key, seconds: float | None) -> None:
        """Record a slot's downtime during a replacement; None: not measured."""
        if seconds is not None:
            state = self._store.of(key)
            state.overrides = replace(state.overrides, down_ms=round(seconds * 1000))

    def record_outcome(self, service: Service, rollout: RolloutProgress) -> str:
        """Record whether a service's revision is good or has failed, once its rollout shows that.

        Return what was recorded: good or failed, '' for nothing new.
        """
        overrides = self._store.of(service.key).overrides
        revision = overrides.find_revision(service.revision, service.limits)
        outcome = outcome_of(rollout)
        if revision is None or not is_of(rollout, service) or outcome in ("", revision.outcome):
            return ""
        after = history.record_outcome(
            overrides, service.revision, outcome, rollout.failed, service.limits
        )
        self._store.of(service.key).overrides = after
        return outcome


RETRY_FIRST_S = 1.0
RETRY_LONGEST_S = 300.0
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
    longest = RETRY_LONGEST_S
    if isinstance(error, TooManyRequests):
        return CROWDED_S
    if isinstance(error, Conflict):
        if count == 1:
            return AT_ONCE_S
        first, count = RETRY_FIRST_S, count - 1
    elif error.act is Act.STALLED:
        first = REFUSED_FIRST_S
    elif isinstance(error, EngineUnavailable | OverShare):
        first, longest = RETRY_FIRST_S, AWAY_LONGEST_S
    else:
        first = RETRY_FIRST_S
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
