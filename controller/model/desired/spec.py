"""The ``spec`` of each kind, as closed and frozen models.

Unknown keys are errors. A field without an implementation is not part of a model:
``core.manifests.parse`` refuses it by name as "not supported yet" instead of ignoring it. Defaults
are the documented ones, except for limits: the policy provides unset limits.
"""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from controller.model.desired.field_types import Bytes, DurationMs, PortNumber
from controller.model.names import REPLICAS_MAX
from controller.model.observed import HostPort

STOP_GRACE_MAX_MS = 300_000
MIN_HEALTHY_MAX_MS = 3_600_000
DEADLINE_MAX_MS = 86_400_000
MEMORY_MIN = 6 * 1024 * 1024  # the engine's minimum
TEXTS_MAX = 1_000  # items of a list, members of a mapping
URL_PATH_MAX = 1024
DEPENDENCIES_MAX = 100

_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?)*"
    r"(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?", re.ASCII)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_URL_PATH = re.compile(r"/[!-\"$-~]*", re.ASCII)  # printable, without spaces and '#'
_CAPABILITY = re.compile(r"(?:CAP_)?[A-Z][A-Z_]*[A-Z]", re.ASCII)
_SIGNAL = re.compile(
    "SIG(?:HUP|INT|QUIT|ILL|TRAP|ABRT|BUS|FPE|KILL|USR1|SEGV|USR2|PIPE|ALRM|TERM|STKFLT|CHLD|CONT"
    "|STOP|TSTP|TTIN|TTOU|URG|XCPU|XFSZ|VTALRM|PROF|WINCH|IO|PWR|SYS"
    r"|RTMIN(?:\+(?:[1-9]|1[0-5]))?|RTMAX(?:-(?:[1-9]|1[0-4]))?)",
    re.ASCII,
)


def _matching(pattern: re.Pattern[str], length: int, expected: str) -> AfterValidator:
    """Return a validator of strings: they match *pattern*, and have at most *length* characters."""

    def check(text: str) -> str:
        if len(text) > length or not pattern.fullmatch(text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


def clean_path(text: str) -> str:
    """Return *text* if it is an absolute path in canonical spelling, and not ``/``.

    Raises:
        ValueError: *text* is not such a path.
    """
    parts = text.split("/")
    clean = len(parts) > 1 and parts[0] == "" and not {"", ".", ".."} & set(parts[1:])
    if not clean or len(text) > 4096 or not text.isprintable():
        raise ValueError("expected an absolute path without '//', '.', '..' or a slash at its end")
    return text


def _folder(text: str) -> str:
    return text if text == "/" else clean_path(text)


def _whole_seconds(count: int) -> int:
    if count % 1000:
        raise ValueError("expected whole seconds: the engine counts no smaller")
    return count


def _cpus(count: float) -> float:
    if abs(count * 1000 - round(count * 1000)) > 1e-6:
        raise ValueError("expected thousandths of a CPU at the finest, such as 0.125")
    return count


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or "%" in text or address.is_multicast:
        raise ValueError("expected an IP address, such as 127.0.0.1")
    return str(address)


def is_env_name(name: str) -> bool:
    """Return True if *name* is valid as the name of an environment variable."""
    return _ENV_NAME.fullmatch(name) is not None


def _capabilities(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _CAPABILITY.fullmatch(name):
            raise ValueError(f"expected capabilities in capitals, such as CHOWN, not {name!r}")
    if len({name.removeprefix("CAP_") for name in names}) != len(names):
        raise ValueError("a capability is named twice")
    return names


ImageReference = Annotated[
    str,
    _matching(_REFERENCE, 512, "an image reference such as ghcr.io/team/api:1.4.2, in lower case"),
]
UrlPath = Annotated[str, _matching(_URL_PATH, URL_PATH_MAX, "the path of a URL, such as /healthz")]
UserName = Annotated[
    str, _matching(_USER, 128, 'USER or USER:GROUP, names or numbers, such as "1000:1000"')
]
SignalName = Annotated[str, _matching(_SIGNAL, 16, "the name of a signal, such as SIGTERM")]
CleanPath = Annotated[str, AfterValidator(clean_path)]
Size = Annotated[Bytes, Field(ge=1024, le=2**50)]
Texts = Annotated[tuple[str, ...], Field(min_length=1, max_length=TEXTS_MAX)]
PublishAddress = Annotated[str, AfterValidator(_address)]


class Model(BaseModel):
    """Base of all models: closed, frozen, strict, with camelCase aliases.

    Validate with ``model_validate_json``. In JSON mode, strict validation accepts lists for tuples
    and strings for enums, and no other conversion.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=False
    )


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
    """What happens after a container exits by itself."""

    ALWAYS = "Always"  # the engine's `always`
    ON_FAILURE = "OnFailure"  # the engine's `on-failure:10`
    NEVER = "Never"  # the engine's `no`


class Order(StrEnum):
    """Whether a replacement starts before or after the old replica stops."""

    START_FIRST = "StartFirst"
    STOP_FIRST = "StopFirst"


class OnFailure(StrEnum):
    """What happens after a failed rollout."""

    ROLLBACK = "Rollback"  # roll back to the last good revision, once per revision
    PAUSE = "Pause"  # stop the rollout where it is


class DependencyCondition(StrEnum):
    """The condition of a dependency for the start of its dependents."""

    STARTED = "Started"
    HEALTHY = "Healthy"
    COMPLETED = "Completed"  # exited with code 0


class NetworkMode(StrEnum):
    """The implied network of a service's containers."""

    ISOLATED = "isolated"
    BRIDGE = "bridge"
    NONE = "none"


class Port(Model):
    """A port of the container; ``host`` publishes it."""

    container: PortNumber
    host: PortNumber | None = None
    host_ip: PublishAddress = Field(default="127.0.0.1", alias="hostIP")
    protocol: Literal["tcp", "udp"] = "tcp"

    @property
    def published(self) -> HostPort | None:
        """The port of the host; None if the port is not published."""
        return None if self.host is None else HostPort(self.host_ip, self.host, self.protocol)


class BindMount(Model):
    """A folder or file of the host."""

    type: Literal["bind"]
    source: CleanPath
    target: CleanPath
    read_only: bool = False


class VolumeMount(Model):
    """A named volume of the namespace.

    A writable volume is exclusive to its service unless ``shared``.
    """

    type: Literal["volume"]
    source: str
    target: CleanPath
    read_only: bool = False
    shared: bool = False


class TmpfsMount(Model):
    """A filesystem in memory, of limited size."""

    type: Literal["tmpfs"]
    target: CleanPath
    size: Size


Mount = Annotated[BindMount | VolumeMount | TmpfsMount, Field(discriminator="type")]


class ServiceNetwork(Model):
    """The implied network of the namespace, and declared networks to join in addition."""

    mode: NetworkMode = NetworkMode.ISOLATED
    attach: tuple[str, ...] = ()


class Resources(Model):
    """Resource limits; the policy provides unset limits."""

    memory: Annotated[Bytes, Field(ge=MEMORY_MIN, le=2**50)] | None = None
    cpus: Annotated[float, Field(ge=0.01, le=1024), AfterValidator(_cpus)] | None = None
    pids: Annotated[int, Field(ge=1, le=2**22)] | None = None
    shm: Size | None = None


class Security(Model):
    """Hardening that a service can change within the policy."""

    cap_add: Annotated[tuple[str, ...], AfterValidator(_capabilities)] = ()
    read_only_root_filesystem: bool = False


class HttpCheck(Model):
    """A GET in plain HTTP.

    A status from 200 to 399 is healthy. Redirects are not followed.
    """

    path: UrlPath = "/"
    port: PortNumber


class TcpCheck(Model):
    """A TCP connection, closed as soon as it is established."""

    port: PortNumber


class Healthcheck(Model):
    """A health check: a command run by the engine, or a probe sent by the controller.

    The engine runs ``exec`` in the container. The controller sends ``http`` and ``tcp`` probes to
    the container's own address.
    """

    exec: Texts | None = None
    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    # 0 is the engine's default, so 0 cannot be set.
    interval: Annotated[DurationMs, Field(ge=1)] = 30_000
    timeout: Annotated[DurationMs, Field(ge=1)] = 30_000
    retries: Annotated[int, Field(ge=1, le=10)] = 3
    start_period: DurationMs = 30_000

    @model_validator(mode="after")
    def _is_one(self) -> Healthcheck:
        if sum(each is not None for each in (self.exec, self.http, self.tcp)) != 1:
            raise ValueError("expected one of exec, http and tcp")
        return self

    @property
    def probed(self) -> bool:
        """Return True if the controller runs the check, not the engine."""
        return self.exec is None


class Restart(Model):
    """The restart policy."""

    policy: RestartPolicy = RestartPolicy.ALWAYS


class Rollout(Model):
    """How outdated replicas are replaced.

    An unset order follows from the ports and volumes.
    """

    order: Order | None = None
    max_unavailable: Annotated[int, Field(ge=1, le=REPLICAS_MAX)] = 1  # with StopFirst
    parallelism: Annotated[int, Field(ge=1, le=REPLICAS_MAX)] | None = None  # unset: maxUnavailable
    min_healthy: Annotated[DurationMs, Field(le=MIN_HEALTHY_MAX_MS)] = 10_000
    health_deadline: Annotated[DurationMs, Field(ge=1000, le=DEADLINE_MAX_MS)] = 300_000
    progress_deadline: Annotated[DurationMs, Field(ge=1000, le=DEADLINE_MAX_MS)] = 600_000
    on_failure: OnFailure = OnFailure.ROLLBACK


class Dependency(Model):
    """A service of the namespace to wait for before the start."""

    name: str
    condition: DependencyCondition = DependencyCondition.STARTED


class Logs(Model):
    """Rotation of the container's log files."""

    max_size: Size = 10 * 1024 * 1024
    max_files: Annotated[int, Field(ge=1, le=100)] = 3


class ServiceSpec(Model):
    """The spec of a Service."""

    image: ImageReference
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    state: RunState = RunState.RUNNING
    suspend: bool = False
    replicas: Annotated[int, Field(ge=0, le=REPLICAS_MAX)] = 1
    entrypoint: Texts | None = None
    command: Texts | None = None
    env: Annotated[dict[str, str], Field(max_length=TEXTS_MAX)] = Field(default_factory=dict)
    working_dir: Annotated[str, AfterValidator(_folder)] | None = None
    user: UserName | None = None
    init: bool = False
    stop_signal: SignalName | None = None
    stop_grace_period: Annotated[
        DurationMs, Field(le=STOP_GRACE_MAX_MS), AfterValidator(_whole_seconds)
    ] = 10_000
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: ServiceNetwork = ServiceNetwork()
    resources: Resources = Resources()
    security: Security = Security()
    healthcheck: Healthcheck | None = None
    restart: Restart = Restart()
    rollout: Rollout = Rollout()
    depends_on: Annotated[tuple[Dependency, ...], Field(max_length=DEPENDENCIES_MAX)] = ()
    logs: Logs = Logs()
    container_labels: dict[str, str] = Field(default_factory=dict)


class NetworkSpec(Model):
    """The spec of a Network: a bridge of the namespace, without internet access by default."""

    internal: bool = True


class VolumeSpec(Model):
    """The spec of a Volume. The volume is kept after its document is removed."""

    retain: Literal[True] = True


class ReleaseSpec(Model):
    """The spec of a Release: a chart in configs/ with values."""

    chart: str
    values: dict[str, object] = Field(default_factory=dict)
