"""When and how containers are pulled, started, restarted and replaced."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from controller.model.desired.field_types import DurationMs
from controller.model.desired.spec.fields import Model
from controller.model.names import JOB_NAME_MAX, REPLICAS_MAX

MIN_HEALTHY_MAX_MS = 3_600_000
DEADLINE_MAX_MS = 86_400_000
#: Jobs before a rollout, and jobs after it.
HOOKS_MAX = 10


HookName = Annotated[str, Field(min_length=1, max_length=JOB_NAME_MAX)]


class RunState(StrEnum):
    """The desired state of a service's replicas."""

    RUNNING = "Running"
    STOPPED = "Stopped"


class PullPolicy(StrEnum):
    """When the image is pulled."""

    IF_NOT_PRESENT = "IfNotPresent"
    ALWAYS = "Always"
    NEVER = "Never"


class RestartPolicy(StrEnum):
    """The reaction to a container's own exit."""

    ALWAYS = "Always"  # the engine's `always`
    ON_FAILURE = "OnFailure"  # the engine's `on-failure:10`
    NEVER = "Never"  # the engine's `no`


class Boot(StrEnum):
    """Who starts a service's containers again after a restart of the engine or host."""

    ENGINE = "Engine"  # the engine, all at once
    ORDERED = "Ordered"  # the controller, in the order of dependsOn


class Order(StrEnum):
    """Whether a replacement starts before or after the old replica stops."""

    START_FIRST = "StartFirst"
    STOP_FIRST = "StopFirst"


class OnFailure(StrEnum):
    """The reaction to a failed rollout."""

    ROLLBACK = "Rollback"  # roll back to the last good revision, once per revision
    PAUSE = "Pause"  # stop the rollout where it is


class DependencyCondition(StrEnum):
    """The condition of a dependency for the start of its dependents."""

    STARTED = "Started"
    HEALTHY = "Healthy"
    COMPLETED = "Completed"  # exited with code 0


class Restart(Model):
    """The restart policy."""

    #: Always, OnFailure or Never.
    policy: RestartPolicy = RestartPolicy.ALWAYS
    boot: Boot = Boot.ENGINE


class RollbackPace(Model):
    """How replicas are replaced in a rollback. An unset field has the value of the rollout."""

    #: StartFirst or StopFirst.
    order: Order | None = None
    max_unavailable: Annotated[int, Field(ge=1, le=REPLICAS_MAX)] | None = None
    parallelism: Annotated[int, Field(ge=1, le=REPLICAS_MAX)] | None = None
    #: How long a replacement is healthy before its predecessor stops.
    min_healthy: Annotated[DurationMs, Field(le=MIN_HEALTHY_MAX_MS)] | None = None


class Rollout(Model):
    """How outdated replicas are replaced.

    An unset order follows from the ports and volumes.
    """

    #: StartFirst or StopFirst. Unset: StartFirst, unless a port of the host or a volume forbids it.
    order: Order | None = None
    max_unavailable: Annotated[int, Field(ge=1, le=REPLICAS_MAX)] = 1  # with StopFirst
    parallelism: Annotated[int, Field(ge=1, le=REPLICAS_MAX)] | None = None  # unset: maxUnavailable
    #: How long a replacement is healthy before its predecessor stops.
    min_healthy: Annotated[DurationMs, Field(le=MIN_HEALTHY_MAX_MS)] = 10_000
    #: The longest time until a replacement is healthy.
    health_deadline: Annotated[DurationMs, Field(ge=1000, le=DEADLINE_MAX_MS)] = 300_000
    #: The longest time without progress.
    progress_deadline: Annotated[DurationMs, Field(ge=1000, le=DEADLINE_MAX_MS)] = 600_000
    #: Rollback to the last good revision, or Pause.
    on_failure: OnFailure = OnFailure.ROLLBACK
    #: The pace of a rollback. Unset: that of the rollout.
    rollback: RollbackPace = RollbackPace.model_construct()
    #: Jobs that succeed before the first container of a new revision starts, one after another.
    before: Annotated[tuple[HookName, ...], Field(max_length=HOOKS_MAX)] = ()
    #: Jobs that succeed after a new revision is available in all slots, one after another.
    after: Annotated[tuple[HookName, ...], Field(max_length=HOOKS_MAX)] = ()

    @property
    def of_rollback(self) -> Rollout:
        """The rollout with the pace of a rollback."""
        fields = ("order", "max_unavailable", "parallelism", "min_healthy")
        pace = {name: getattr(self.rollback, name) for name in fields}
        return self.model_copy(update={n: value for n, value in pace.items() if value is not None})


class Dependency(Model):
    """A service or job of the namespace to wait for before the start."""

    #: Service or Job.
    kind: Literal["Service", "Job"] = "Service"
    #: The name of the service or job.
    name: str
    #: Started, Healthy or Completed; Completed for a Job.
    condition: DependencyCondition = DependencyCondition.STARTED
    #: True replaces the containers of this service once those of the dependency were replaced.
    restart: bool = False
