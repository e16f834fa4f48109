"""The spec of a Service, and of a Release, which makes Services."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from controller.model.desired.spec.fields import (
    TEXTS_MAX,
    Folder,
    GracePeriod,
    ImageReference,
    Model,
    SignalName,
    Texts,
    UserName,
)
from controller.model.desired.spec.health import Healthcheck
from controller.model.desired.spec.mounts import Mount
from controller.model.desired.spec.network import Port, ServiceNetwork
from controller.model.desired.spec.resources import Logs, Resources, Security
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
    init: bool = False
    stop_signal: SignalName | None = None
    stop_grace_period: GracePeriod = 10_000
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


class ReleaseSpec(Model):
    """The spec of a Release: a chart in configs/ with values."""

    chart: str
    values: dict[str, object] = Field(default_factory=dict)
