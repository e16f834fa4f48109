"""What users write, as closed and frozen models: the ``spec`` of each kind.

Unknown keys are errors. A field that DESIGN names and whose behaviour comes later isn't here; it
is refused by name with "not supported yet" (``sources.documents``), never ignored.
Defaults here are the documented ones, except limits: an unset limit is the policy's to give.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from controller.model.names import REPLICAS_MAX
from controller.model.quantities import Bytes, DurationMs

STOP_GRACE_MAX_MS = 300_000


class Model(BaseModel):
    """Closed, frozen, strict, camelCase on the outside.

    Validate with ``model_validate_json``: strictness in JSON mode takes lists for tuples and
    strings for enums, and nothing else for anything else.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=False
    )


class RunState(StrEnum):
    """Whether a service's replicas should run."""

    RUNNING = "Running"
    STOPPED = "Stopped"


class PullPolicy(StrEnum):
    """When an image is pulled."""

    IF_NOT_PRESENT = "IfNotPresent"
    ALWAYS = "Always"
    NEVER = "Never"


class RestartPolicy(StrEnum):
    """What happens when a container exits on its own."""

    ALWAYS = "Always"  # the engine's `always`
    ON_FAILURE = "OnFailure"  # the engine's `on-failure:10`
    NEVER = "Never"  # the engine's `no`


class Order(StrEnum):
    """Whether a stale replica's successor starts before or after it stops."""

    START_FIRST = "StartFirst"
    STOP_FIRST = "StopFirst"


class NetworkMode(StrEnum):
    """How a service's containers are networked."""

    ISOLATED = "isolated"
    BRIDGE = "bridge"
    NONE = "none"


class Port(Model):
    """A port that the container listens on; ``host`` publishes it."""

    container: Annotated[int, Field(ge=1, le=65535)]
    host: Annotated[int, Field(ge=1, le=65535)] | None = None
    host_ip: str = Field(default="127.0.0.1", alias="hostIP")
    protocol: Literal["tcp", "udp"] = "tcp"


class BindMount(Model):
    """A folder or file of the host."""

    type: Literal["bind"]
    source: str
    target: str
    read_only: bool = False


class VolumeMount(Model):
    """A named volume of the namespace; writable means exclusive unless ``shared``."""

    type: Literal["volume"]
    source: str
    target: str
    read_only: bool = False
    shared: bool = False


class TmpfsMount(Model):
    """A bounded filesystem in memory."""

    type: Literal["tmpfs"]
    target: str
    size: Bytes


Mount = Annotated[BindMount | VolumeMount | TmpfsMount, Field(discriminator="type")]


class ServiceNetwork(Model):
    """The implied network of the namespace, and declared ones to join beside it."""

    mode: NetworkMode = NetworkMode.ISOLATED
    attach: tuple[str, ...] = ()


class Resources(Model):
    """Limits; one that is unset is the policy's default."""

    memory: Bytes | None = None
    cpus: Annotated[float, Field(gt=0, le=1024)] | None = None
    pids: Annotated[int, Field(ge=1)] | None = None
    shm: Bytes | None = None


class Security(Model):
    """Hardening that a service may adjust within the policy."""

    cap_add: tuple[str, ...] = ()
    read_only_root_filesystem: bool = False


class Healthcheck(Model):
    """A command that the engine runs in the container."""

    exec: Annotated[tuple[str, ...], Field(min_length=1)]
    interval: DurationMs = 30_000
    timeout: DurationMs = 30_000
    retries: Annotated[int, Field(ge=1, le=10)] = 3
    start_period: DurationMs = 30_000


class Restart(Model):
    """The restart policy."""

    policy: RestartPolicy = RestartPolicy.ALWAYS


class Rollout(Model):
    """How stale replicas are replaced; an unset order is chosen by ports and volumes."""

    order: Order | None = None


class Logs(Model):
    """Rotation of the container's log files."""

    max_size: Bytes = 10 * 1024 * 1024
    max_files: Annotated[int, Field(ge=1, le=100)] = 3


class ServiceSpec(Model):
    """The spec of a Service."""

    image: str
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    state: RunState = RunState.RUNNING
    replicas: Annotated[int, Field(ge=0, le=REPLICAS_MAX)] = 1
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: dict[str, str] = Field(default_factory=dict)
    working_dir: str | None = None
    user: str | None = None
    init: bool = False
    stop_signal: str | None = None
    stop_grace_period: DurationMs = 10_000
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: ServiceNetwork = ServiceNetwork()
    resources: Resources = Resources()
    security: Security = Security()
    healthcheck: Healthcheck | None = None
    restart: Restart = Restart()
    rollout: Rollout = Rollout()
    logs: Logs = Logs()
    container_labels: dict[str, str] = Field(default_factory=dict)


class NetworkSpec(Model):
    """The spec of a Network: a bridge of the namespace, without a way out unless asked for."""

    internal: bool = True


class VolumeSpec(Model):
    """The spec of a Volume, kept when its document goes."""

    retain: Literal[True] = True


class ReleaseSpec(Model):
    """The spec of a Release: a chart in configs/ with values."""

    chart: str
    values: dict[str, object] = Field(default_factory=dict)
