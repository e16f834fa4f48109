"""The specs of a Service, a Release and a Job: the containers, and when they run and are replaced.

The spec of a Service, and of a Release, which makes Services.

When and how containers are pulled, started, restarted and replaced.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from controller.model.desired.spec import container, fields
from controller.model.desired.spec.fields import DurationMs, Model, image_reference
from controller.model.desired.spec.mounts import Mount, SecretVariable, Variable
from controller.model.desired.spec.network import Dns, Port, ServiceNetwork
from controller.model.names import COMPLETIONS_MAX, JOB_NAME_MAX, PARALLELISM_MAX, REPLICAS_MAX

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


DEPENDENCIES_MAX = 100


class ServiceSpec(fields.Model):
    """The spec of a Service."""

    #: The image: a reference with a tag or a digest.
    image: fields.ImageReference
    #: What the image is built from, for a Compose project. Unset: the image is pulled.
    build: container.Build | None = None
    #: When the image is looked up anew.
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    #: Running, or Stopped.
    state: RunState = RunState.RUNNING
    #: True leaves the service as it is, whatever that is.
    suspend: bool = False
    #: The number of containers.
    replicas: Annotated[int, Field(ge=0, le=REPLICAS_MAX)] = 1
    #: The program with its first arguments. Unset: the image's.
    entrypoint: fields.Texts | None = None
    #: The arguments. Unset: the image's.
    command: fields.Texts | None = None
    #: Environment variables: texts, or values of Secrets.
    env: Annotated[dict[str, Variable], Field(max_length=fields.TEXTS_MAX)] = Field(
        default_factory=dict
    )
    #: The working directory. Unset: the image's.
    working_dir: fields.Folder | None = None
    #: USER or USER:GROUP, names or numbers. Unset: the image's.
    user: fields.UserName | None = None
    #: Groups of the processes in addition to the user's own.
    group_add: Annotated[tuple[fields.GroupName, ...], Field(max_length=fields.LISTED_MAX)] = ()
    #: The host name in the container.
    hostname: fields.HostName | None = None
    #: The domain name in the container.
    domainname: fields.DomainName | None = None
    #: Entries of /etc/hosts: an address by name, or several with commas between them.
    extra_hosts: Annotated[
        dict[fields.DomainName, fields.HostAddresses], Field(max_length=fields.LISTED_MAX)
    ] = Field(default_factory=dict)
    #: The resolver of the containers.
    dns: Dns = Dns.model_construct()
    #: True adds an init process that reaps processes and forwards signals.
    init: bool = False
    #: True gives the program a terminal.
    tty: bool = False
    #: True keeps standard input open.
    stdin: bool = False
    #: The signal of a stop. Unset: the image's, else SIGTERM.
    stop_signal: fields.SignalName | None = None
    #: The time from the signal of a stop to the end by force.
    stop_grace_period: fields.GracePeriod = 10_000
    #: Ports of the containers, and ports of the host that lead to them.
    ports: tuple[Port, ...] = ()
    #: Volumes, folders of the host, files of Configs and Secrets, and tmpfs.
    mounts: tuple[Mount, ...] = ()
    #: The networks of the containers.
    network: ServiceNetwork = ServiceNetwork.model_construct()
    #: Namespaces of another service's containers, in place of own ones.
    shares: container.Shares | None = None
    #: Namespaces of the host, for an observer.
    observe: container.Observe | None = None
    #: private, shareable (a sidecar can join) or none.
    ipc: container.IpcMode = container.IpcMode.PRIVATE
    #: Limits of memory, CPUs and processes.
    resources: container.Resources = container.Resources.model_construct()
    #: Devices of the host that the policy grants.
    devices: Annotated[tuple[container.DeviceEntry, ...], Field(max_length=fields.LISTED_MAX)] = ()
    #: Limits of each process, by name.
    ulimits: container.Ulimits = Field(default_factory=dict)
    #: Settings of the kernel for the containers alone, by name, as the policy lists them.
    sysctls: Annotated[
        dict[fields.SysctlName, fields.SysctlValue], Field(max_length=fields.LISTED_MAX)
    ] = Field(default_factory=dict)
    #: The higher, the sooner the kernel ends the processes if memory runs out.
    oom_score_adj: Annotated[int, Field(ge=container.OOM_SCORE_ADJ_MIN, le=1000)] = 0
    #: Hardening that a service can change within the policy.
    security: container.Security = container.Security.model_construct()
    #: The check that decides whether a container is healthy.
    healthcheck: container.Healthcheck | None = None
    #: Commands that the broker runs after a start and before a stop.
    lifecycle: container.Lifecycle = container.Lifecycle.model_construct()
    #: The reaction to a container's own exit.
    restart: Restart = Restart.model_construct()
    #: How outdated replicas are replaced.
    rollout: Rollout = Rollout.model_construct()
    #: Services and jobs to wait for before the start.
    depends_on: Annotated[tuple[Dependency, ...], Field(max_length=DEPENDENCIES_MAX)] = ()
    #: The driver and the rotation of the containers' logs.
    logs: container.Logs = container.Logs.model_construct()
    #: Labels of the containers.
    container_labels: dict[str, str] = Field(default_factory=dict)

    @property
    def texts_of_env(self) -> dict[str, str]:
        """The variables with a text in the document."""
        return {name: value for name, value in self.env.items() if isinstance(value, str)}

    @property
    def secrets_of_env(self) -> dict[str, SecretVariable]:
        """The variables with a value of a Secret."""
        return {
            name: value for name, value in self.env.items() if isinstance(value, SecretVariable)
        }


class ReleaseSpec(fields.Model):
    """The spec of a Release: a chart in configs/ with values."""

    chart: str
    values: dict[str, object] = Field(default_factory=dict)


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
