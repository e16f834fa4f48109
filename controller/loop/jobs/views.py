"""The inputs of decisions about jobs: the time, and how far the rollouts of services are."""

from __future__ import annotations

from collections.abc import Mapping

from controller.core.jobs.progress import JobTime
from controller.core.jobs.rollout_hooks import RolloutHooks, RolloutStanding
from controller.core.service.rollout_progress import is_of
from controller.loop.state.store import StateStore
from controller.model.desired.desired import Desired, Service
from controller.model.names import Key
from controller.model.observed import Observed
from controller.ports import Clock


class JobViews:
    """Makes the inputs of decisions about jobs."""

    def __init__(self, store: StateStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._began = clock.now() - clock.monotonic()
        #: Since when this process knows each job, on the wall clock.
        self._seen: dict[Key, float] = {}

    def steady_now(self) -> float:
        """Return the wall clock's time at the start, and then without jumps."""
        return self._began + self._clock.monotonic()

    def time(self, desired: Desired) -> JobTime:
        """Return the time for the runs of jobs."""
        now, known = self._clock.now(), self._seen
        self._seen = {job.key: known.get(job.key, now) for job in desired.jobs}
        return JobTime(wall_s=now, steady_s=self.steady_now(), first_seen=self._seen)

    def hooks(
        self, desired: Desired, observed: Observed, known: Observed | None = None
    ) -> RolloutHooks:
        """Return the jobs of rollouts; *known* has the resources that *observed* lacks."""
        everything = observed if known is None else known
        standings = self.standings(desired)
        return RolloutHooks(desired, observed, everything, self.time(desired), standings)

    def standings(self, desired: Desired) -> Mapping[Key, RolloutStanding]:
        """Return how far the rollouts of services with jobs are."""
        services = {s.key: s for naming in desired.services_by_hook.values() for s in naming}
        return {key: self._standing(service) for key, service in services.items()}

    def _standing(self, service: Service) -> RolloutStanding:
        state = self._store.of(service.key)
        progress = state.rollout
        kept = state.overrides.find_revision(service.revision, service.limits)
        is_good = progress.good == service.revision
        is_good |= kept is not None and kept.outcome == "good"
        if not is_of(progress, service) or progress.excused is None:
            return RolloutStanding(is_good=is_good)
        return RolloutStanding(
            revision=service.revision,
            is_good=is_good,
            is_serving=progress.served,
            has_failed=progress.failed != "",
            excused=progress.excused,
        )
