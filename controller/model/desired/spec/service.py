"""The spec of a Service, and of a Release, which makes Services."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from controller.model.desired.spec.devices import DeviceEntry
from controller.model.desired.spec.fields import (
    LISTED_MAX,
    TEXTS_MAX,
    DomainName,
    Folder,
    GracePeriod,
    GroupName,
    HostAddress,
    HostName,
    ImageReference,
    Model,
    SignalName,
    Texts,
    UserName,
)
from controller.model.desired.spec.health import Healthcheck
from controller.model.desired.spec.mounts import Mount
from controller.model.desired.spec.network import Dns, Port, ServiceNetwork
from controller.model.desired.spec.resources import Logs, Resources, Security, Ulimits
from controller.model.desired.spec.rollout import Dependency, PullPolicy, Restart, Rollout, RunState
from controller.model.names import REPLICAS_MAX

DEPENDENCIES_MAX = 100


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
    working_dir: Folder | None = None
    user: UserName | None = None
    #: Groups of the processes in addition to the user's own.
    group_add: Annotated[tuple[GroupName, ...], Field(max_length=LISTED_MAX)] = ()
    hostname: HostName | None = None
    domainname: DomainName | None = None
    #: Entries of /etc/hosts: addresses by name.
    extra_hosts: Annotated[dict[DomainName, HostAddress], Field(max_length=LISTED_MAX)] = Field(
        default_factory=dict
    )
    dns: Dns = Dns()
    init: bool = False
    tty: bool = False
    stdin: bool = False
    stop_signal: SignalName | None = None
    stop_grace_period: GracePeriod = 10_000
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: ServiceNetwork = ServiceNetwork()
    resources: Resources = Resources()
    devices: Annotated[tuple[DeviceEntry, ...], Field(max_length=LISTED_MAX)] = ()
    ulimits: Ulimits = Field(default_factory=dict)
    #: From 0 to 1000: the higher, the sooner the kernel ends the processes if memory runs out.
    oom_score_adj: Annotated[int, Field(ge=0, le=1000)] = 0
    security: Security = Security()
    healthcheck: Healthcheck | None = None
    restart: Restart = Restart()
    rollout: Rollout = Rollout()
    depends_on: Annotated[tuple[Dependency, ...], Field(max_length=DEPENDENCIES_MAX)] = ()
    logs: Logs = Logs()
    container_labels: dict[str, str] = Field(default_factory=dict)


class ReleaseSpec(Model):
    """The spec of a Release: a chart in configs/ with values."""

    chart: str
    values: dict[str, object] = Field(default_factory=dict)
