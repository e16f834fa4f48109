"""Operator overrides of the files: pins, suspensions, restarts and automatic rollbacks.

``core.service`` decides; this module makes decisions durable and applies them to the desired state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from controller.core.service import revisions
from controller.core.service.kept_revisions import with_kept_revisions
from controller.core.service.operator_actions import ActionInputs, Decision, decide
from controller.core.service.overrides import apply_overrides, slots_of
from controller.core.service.rollout_progress import (
    RolloutProgress,
    is_of,
    outcome_of,
    should_roll_back,
)
from controller.loop.state.store import StateStore
from controller.model.desired.desired import Desired, Service
from controller.model.desired.overrides import NO_OVERRIDES, ServiceAct
from controller.model.errors import StateError, UsageError
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
        return apply_overrides(declared, self._store.all_overrides())

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
    ) -> Decision:
        """Return the decision on an operator's act; *containers* belong to its service.

        *rebuilt*, *renamed*: see ``ActionInputs``.

        Raises:
            UsageError: the act isn't possible; the message names the reason and alternatives.
        """
        generation = self._store.of(act.key).generation
        inputs = ActionInputs(
            declared=declared,
            all_overrides=self._store.all_overrides(),
            containers=containers,
            generation=0 if generation is None else generation.number,
            failed=self._store.of(act.key).rollout.failed,
            rebuilt=rebuilt,
            renamed=renamed,
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
        state.overrides = revisions.finish_restart(before, containers)
        return state.overrides != before

    def record_applied(self, service: Service) -> None:
        """Record a service as running by its document."""
        state = self._store.of(service.key)
        state.overrides = revisions.record_applied(state.overrides, service)

    def record_downtime(self, key: Key, seconds: float | None) -> None:
        """Record a slot's downtime during a replacement; None: not measured."""
        if seconds is not None:
            state = self._store.of(key)
            state.overrides = replace(state.overrides, down_ms=round(seconds * 1000))

    def record_outcome(self, service: Service, rollout: RolloutProgress) -> None:
        """Record whether a service's revision is good or has failed, once its rollout shows that."""
        overrides = self._store.of(service.key).overrides
        revision = overrides.find_revision(service.revision, service.limits)
        outcome = outcome_of(rollout)
        if revision is None or not is_of(rollout, service) or outcome in ("", revision.outcome):
            return
        after = revisions.record_outcome(
            overrides, service.revision, outcome, rollout.failed, service.limits
        )
        self._store.of(service.key).overrides = after
