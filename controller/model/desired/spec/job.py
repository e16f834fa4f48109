"""The spec of a Job: the container fields of a Service, and when the container runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from controller.model.desired.spec.fields import DurationMs, Model, image_reference
from controller.model.desired.spec.service import Restart, RestartPolicy, ServiceSpec
from controller.model.names import COMPLETIONS_MAX, PARALLELISM_MAX

SCHEDULE_MAX: Final = 128
STARTING_DEADLINE_MAX_MS: Final = 86_400_000
BACKOFF_LIMIT_MAX: Final = 20
ACTIVE_DEADLINE_MAX_MS: Final = 7 * 86_400_000
KEEP_MAX: Final = 5
TTL_MAX_MS: Final = 365 * 86_400_000
#: Fields of a Service without a meaning for a Job, each with the remedy.
NOT_OF_A_JOB: Final = {
    "state": "remove it: a run ends by itself",
    "replicas": "remove it: spec.completions and spec.parallelism say how many runs there are",
    "restart": "remove it: a failed run is followed by another one, up to spec.backoffLimit",
    "rollout": "remove it: runs aren't replaced",
    "healthcheck": "remove it: the exit code says whether a run succeeded",
    "lifecycle": "remove it: put the commands into the job's own command",
    "shares": "remove it: a run has no slot, and so no container to share with",
    "ports": "remove it: nobody connects to a run; write a Service for what serves",
}


#: The image of a Job with ``image: {fromService: true}``. No reference looks like that.
FROM_SERVICE: Final = "{fromService: true}"


def _image(value: object) -> object:
    """Return the image of a Job, where a mapping can name the image of the service."""
    if not isinstance(value, dict):
        return value
    if value != {"fromService": True}:
        raise ValueError("expected an image reference, or {fromService: true}")
    return FROM_SERVICE


def _reference(image: str) -> str:
    return image if image == FROM_SERVICE else image_reference(image)


#: A reference, or the image of the service that the run belongs to.
JobImage = Annotated[
    str,
    BeforeValidator(_image),
    AfterValidator(_reference),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"fromService": {"const": True}},
                    "required": ["fromService"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class Trigger(StrEnum):
    """What makes a run of a Job due."""

    #: A revision of the job without a run.
    ON_CHANGE = "OnChange"
    #: Only an operator's ``trimtab run-job``.
    MANUAL = "Manual"
    #: The rollout of a service that names the job in ``rollout.before`` or ``rollout.after``.
    ROLLOUT = "Rollout"


class ConcurrencyPolicy(StrEnum):
    """What happens at an instant of the schedule while a run goes on."""

    FORBID = "Forbid"  # the run begins once the other has ended, within startingDeadline
    ALLOW = "Allow"  # both go on
    REPLACE = "Replace"  # the other is stopped first


class Interrupted(StrEnum):
    """What follows a run that was cut from outside, for example by the engine's restart."""

    RETRY = "Retry"  # another run, as after any failure
    FAIL = "Fail"  # none: the job has failed


class KeptRuns(Model):
    """How many containers of ended runs are kept."""

    succeeded: Annotated[int, Field(ge=0, le=KEEP_MAX)] = 3
    failed: Annotated[int, Field(ge=0, le=KEEP_MAX)] = 3


class JobSpec(ServiceSpec):
    """The spec of a Job.

    The fields of ``NOT_OF_A_JOB`` are refused by ``core.manifests.job_checks``.
    """

    #: The image, or {fromService: true} for the image of the service that the run belongs to.
    image: JobImage
    restart: Restart = Restart.model_construct(policy=RestartPolicy.NEVER)
    trigger: Trigger = Trigger.ON_CHANGE
    #: Minute, hour, day of month, month and day of week, as cron has them. In place of a trigger.
    schedule: Annotated[str, Field(max_length=SCHEDULE_MAX)] | None = None
    #: Of the tz database, such as ``Europe/Berlin``.
    time_zone: Annotated[str, Field(max_length=64)] = "UTC"
    concurrency_policy: ConcurrencyPolicy = ConcurrencyPolicy.FORBID
    #: How late a run may begin.
    starting_deadline: Annotated[DurationMs, Field(ge=10_000, le=STARTING_DEADLINE_MAX_MS)] = (
        3_600_000
    )
    #: How often a failed run is followed by another one.
    backoff_limit: Annotated[int, Field(ge=0, le=BACKOFF_LIMIT_MAX)] = 3
    #: With one completion: a run is stopped after this time, and has failed. With several: all runs of
    #: an occasion are stopped this long after the first one began, and the job has failed.
    active_deadline: Annotated[DurationMs, Field(ge=1000, le=ACTIVE_DEADLINE_MAX_MS)] = 3_600_000
    #: How many runs must succeed for an occasion, and how many go on at a time.
    completions: Annotated[int, Field(ge=1, le=COMPLETIONS_MAX)] = 1
    parallelism: Annotated[int, Field(ge=1, le=PARALLELISM_MAX)] = 1
    interrupted: Interrupted = Interrupted.RETRY
    keep: KeptRuns = KeptRuns.model_construct()
    #: The container of an ended run is removed after this time. None: ``keep`` alone counts.
    ttl: Annotated[DurationMs, Field(ge=1000, le=TTL_MAX_MS)] | None = None


#: Fields of a Job alone. None of them is part of a revision: they don't make the container.
JOB_FIELDS: Final = frozenset(JobSpec.model_fields) - frozenset(ServiceSpec.model_fields)
