"""The spec of a Service, and of a Release, which makes Services."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from controller.model.desired.spec import fields
from controller.model.desired.spec.build import Build
from controller.model.desired.spec.devices import DeviceEntry
from controller.model.desired.spec.files import SecretVariable, Variable
from controller.model.desired.spec.health import Healthcheck
from controller.model.desired.spec.lifecycle import Lifecycle
from controller.model.desired.spec.mounts import Mount
from controller.model.desired.spec.network import Dns, Port, ServiceNetwork
from controller.model.desired.spec.resources import (
    OOM_SCORE_ADJ_MIN,
    Logs,
    Resources,
    Security,
    Ulimits,
)
from controller.model.desired.spec.rollout import Dependency, PullPolicy, Restart, Rollout, RunState
from controller.model.desired.spec.sharing import IpcMode, Observe, Shares
from controller.model.names import REPLICAS_MAX

DEPENDENCIES_MAX = 100


class ServiceSpec(fields.Model):
    """The spec of a Service."""

    #: The image: a reference with a tag or a digest.
    image: fields.ImageReference
    #: What the image is built from, for a Compose project. Unset: the image is pulled.
    build: Build | None = None
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
    shares: Shares | None = None
    #: Namespaces of the host, for an observer.
    observe: Observe | None = None
    #: private, shareable (a sidecar can join) or none.
    ipc: IpcMode = IpcMode.PRIVATE
    #: Limits of memory, CPUs and processes.
    resources: Resources = Resources.model_construct()
    #: Devices of the host that the policy grants.
    devices: Annotated[tuple[DeviceEntry, ...], Field(max_length=fields.LISTED_MAX)] = ()
    #: Limits of each process, by name.
    ulimits: Ulimits = Field(default_factory=dict)
    #: Settings of the kernel for the containers alone, by name, as the policy lists them.
    sysctls: Annotated[
        dict[fields.SysctlName, fields.SysctlValue], Field(max_length=fields.LISTED_MAX)
    ] = Field(default_factory=dict)
    #: The higher, the sooner the kernel ends the processes if memory runs out.
    oom_score_adj: Annotated[int, Field(ge=OOM_SCORE_ADJ_MIN, le=1000)] = 0
    #: Hardening that a service can change within the policy.
    security: Security = Security.model_construct()
    #: The check that decides whether a container is healthy.
    healthcheck: Healthcheck | None = None
    #: Commands that the broker runs after a start and before a stop.
    lifecycle: Lifecycle = Lifecycle.model_construct()
    #: The reaction to a container's own exit.
    restart: Restart = Restart.model_construct()
    #: How outdated replicas are replaced.
    rollout: Rollout = Rollout.model_construct()
    #: Services and jobs to wait for before the start.
    depends_on: Annotated[tuple[Dependency, ...], Field(max_length=DEPENDENCIES_MAX)] = ()
    #: The driver and the rotation of the containers' logs.
    logs: Logs = Logs.model_construct()
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
