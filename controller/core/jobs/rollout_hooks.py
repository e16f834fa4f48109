"""Jobs of rollouts: the runs due for the rollouts of services, and the state of these runs.

``rollout.before`` blocks the first start of a new revision. ``rollout.after`` blocks the end of the
rollout. A revision needs one success of each job, of any revision of the job. The jobs of a phase
run in sequence, in the order of the document.

Invariant: no run is due for a revision that was good or is started already, as in repairs, scaling,
restarts and rollbacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from controller.core.encoding.json_values import digest
from controller.core.jobs.decision import JobTime, JobWord, RolloutRun, attempt
from controller.core.jobs.memory import ROLLOUT
from controller.core.manifests.revision_hash import VERSION
from controller.model.desired.desired import Desired, Service
from controller.model.desired.spec.service import FROM_SERVICE, JobSpec, RunState
from controller.model.names import Key, job_key
from controller.model.observed import NO_RUNS, Container, JobMemory, Observed

#: The longest message about a job, in characters.
MESSAGE_MAX: Final = 240


class HookWord(StrEnum):
    """How a job of a rollout stands for one revision of a service."""

    DONE = "Done"
    #: A run goes on, or is to begin.
    WAITING = "Waiting"
    #: No further run follows.
    FAILED = "Failed"
    #: The job itself can't run until a person acts.
    BLOCKED = "Blocked"


@dataclass(frozen=True, slots=True)
class HookState:
    """How a job of a rollout stands."""

    job: Key
    #: ``before`` or ``after``.
    phase: str
    word: HookWord
    message: str = ""

    @property
    def text(self) -> str:
        """The state in words for people."""
        name = f"{self.job.name} of rollout.{self.phase}"
        why = f": {self.message}" if self.message else ""
        match self.word:
            case HookWord.FAILED:
                return f"the job {name} failed{why}"
            case HookWord.BLOCKED:
                return f"the job {name} can't run{why}"
            case _:
                return f"waiting for the job {name}" + (
                    f" ({self.message})" if self.message else ""
                )


@dataclass(frozen=True, slots=True)
class HookFacts:
    """The jobs of one service's rollout, as input for the progress of the rollout."""

    #: The first job before the rollout that has not succeeded; None if nothing is missing.
    before: HookState | None = None
    #: The same of the jobs after the rollout.
    after: HookState | None = None
    #: The failed runs of each job so far, by its name.
    failures: tuple[tuple[str, int], ...] = ()


NO_HOOKS: Final = HookFacts()


@dataclass(frozen=True, slots=True)
class RolloutStanding:
    """How far the rollout of a service is, as the controller remembers it."""

    #: The revision of the rollout; '' if nothing is known about the declared one yet.
    revision: str = ""
    #: The declared revision was good once.
    is_good: bool = False
    #: The revision was available in all slots, and no other one had a process.
    is_serving: bool = False
    has_failed: bool = False
    #: Failed runs that don't count, by the job's name: they are of an earlier try.
    excused: tuple[tuple[str, int], ...] = ()


UNKNOWN: Final = RolloutStanding()


def occasion_of(service: Service) -> str:
    """Return the occasion of the runs for a service's present revision."""
    return f"{ROLLOUT}{service.key.name}@{service.revision.partition(':')[2]}"


def job_for(job: Service, service: Service) -> Service:
    """Return the job for a service: with ``fromService``, the job has the service's image.

    The revision then covers job and service, so that each image has runs of its own.
    """
    if job.spec.image != FROM_SERVICE:
        return job
    both = digest({"job": job.revision, "service": service.revision})
    return replace(
        job,
        spec=job.spec.model_copy(update={"image": service.spec.image}),
        revision=f"{VERSION}:{both}",
        image_revision=service.revision,
    )


@dataclass(frozen=True, slots=True)
class RolloutHooks:
    """The jobs of rollouts in one plan."""

    desired: Desired
    #: The snapshot of the plan. With one key only, its other resources are in ``everything``.
    observed: Observed
    everything: Observed
    now: JobTime
    standings: Mapping[Key, RolloutStanding] = field(default_factory=dict)
    #: Resources that need a person, with the reason.
    stalled: Mapping[Key, str] = field(default_factory=dict)

    def before(self, service: Service) -> HookState | None:
        """Return the job that holds back the first start of a service's revision; None without any."""
        if not service.spec.rollout.before or self._is_past(service):
            return None
        if any(c.started_at for c in self._containers(service) if c.revision == service.revision):
            return None
        return self._first_open(service, "before", service.spec.rollout.before)

    def after(self, service: Service) -> HookState | None:
        """Return the job that holds back the end of a service's rollout; None without any."""
        if not service.spec.rollout.after or self._is_past(service):
            return None
        return self._first_open(service, "after", service.spec.rollout.after)

    def due_after(self, service: Service) -> HookState | None:
        """Return the job that follows the rollout now: the revision is available everywhere."""
        standing = self._standing(service)
        return self.after(service) if standing.is_serving and not standing.has_failed else None

    def facts(self, service: Service) -> HookFacts:
        """Return the input for the progress of a service's rollout."""
        rollout = service.spec.rollout
        names = (*rollout.before, *rollout.after)
        if not names:
            return NO_HOOKS
        failures = tuple((name, self._failed_runs(service, name)) for name in names)
        return HookFacts(self.before(service), self.after(service), failures)

    def asked(self, job: Service) -> tuple[RolloutRun, ...]:
        """Return the runs that rollouts ask of a job now."""
        services = self.desired.services_by_hook.get(job.key, ())
        runs = (self._asked_by(service, job) for service in services)
        return tuple(run for run in runs if run is not None)

    def preview(self, job: Service, service: Service) -> RolloutRun:
        """Return the run that the rollout of a service will ask of a job."""
        return RolloutRun(job_for(job, service), service.key.name, occasion_of(service))

    def _asked_by(self, service: Service, job: Service) -> RolloutRun | None:
        standing = self._standing(service)
        if not standing.revision or standing.has_failed:
            return None
        before = self.before(service)
        # The pin shows that the image is here, and that the gate admitted the first container. A pin
        # outlives containers, and the gate finds the image for a run by a container of the revision.
        is_made = any(c.revision == service.revision for c in self._containers(service))
        is_admitted = is_made and service.revision in self.observed.pins
        hook = (before if is_admitted else None) or self.due_after(service)
        if hook is None or hook.job != job.key or hook.word is not HookWord.WAITING:
            return None
        excused = dict(standing.excused).get(job.key.name, 0)
        return replace(self.preview(job, service), excused=excused)

    def _standing(self, service: Service) -> RolloutStanding:
        return self.standings.get(service.key, UNKNOWN)

    def _is_past(self, service: Service) -> bool:
        """Return True if a service's revision needs no job any more, or the service doesn't run."""
        spec = service.spec
        idle = spec.state is RunState.STOPPED or spec.replicas == 0
        held = service.because != "" or service.key in self.desired.suspended
        return idle or held or self._standing(service).is_good

    def _containers(self, service: Service) -> Iterable[Container]:
        return self.observed.of(service.key) or self.everything.of(service.key)

    def _memory(self, job: Key) -> JobMemory:
        return self.observed.jobs.get(job) or self.everything.jobs.get(job, NO_RUNS)

    def _first_open(self, service: Service, phase: str, names: Iterable[str]) -> HookState | None:
        states = (self._state(service, phase, name) for name in names)
        return next((state for state in states if state.word is not HookWord.DONE), None)

    def _state(self, service: Service, phase: str, name: str) -> HookState:
        key, occasion = job_key(service.key.namespace, name), occasion_of(service)
        memory, job = self._memory(key), self.desired.workload(key)
        if any(o.name == occasion and o.is_complete for o in memory.occasions):
            return HookState(key, phase, HookWord.DONE)
        if job is None or not isinstance(job.spec, JobSpec):
            return HookState(key, phase, HookWord.BLOCKED, "its document can't be read")
        run = self.preview(job, service)
        known = memory.occasion(run.job.revision, occasion)
        standing = self._standing(service)
        # Before the rollout of the revision is known, failures of an earlier try don't count.
        failed = 0 if known is None else known.failed
        excused = dict(standing.excused).get(name, 0) if standing.revision else failed
        decision = attempt(job.spec, memory, replace(run, excused=excused), self.now)
        word, message = HookWord.WAITING, decision.message
        if decision.word is JobWord.FAILED:
            word = HookWord.FAILED
        elif job.spec.suspend and decision.word is not JobWord.RUNNING:
            word, message = HookWord.BLOCKED, "spec.suspend is true"
        elif key in self.stalled:
            word, message = HookWord.BLOCKED, self.stalled[key]
        return HookState(key, phase, word, message[:MESSAGE_MAX])

    def _failed_runs(self, service: Service, name: str) -> int:
        key = job_key(service.key.namespace, name)
        job = self.desired.workload(key)
        if job is None:
            return 0
        revision = job_for(job, service).revision
        known = self._memory(key).occasion(revision, occasion_of(service))
        return 0 if known is None else known.failed
