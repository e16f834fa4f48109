"""Container fields of a service: build, devices, health check, hooks, limits, privileges, shared namespaces.

The build of a service's image, as a Compose project declares it.

Devices of the host for a service.

The health check of a service.

Hooks of a container's life: commands that the broker runs after a start and before a stop.

Limits, privileges and logs of a container.

Namespaces of another service's containers: a sidecar.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from controller.model.desired.spec import fields
from controller.model.desired.spec.fields import (
    LISTED_MAX,
    PATH_MAX,
    TEXTS_MAX,
    Bytes,
    DurationMs,
    Folder,
    Model,
    PortNumber,
    Texts,
    UrlPath,
    UserName,
    is_env_name,
    matching,
    satisfying,
)
from controller.model.names import Key, service_key
from controller.model.observed import CPU_SHARES_MAX

#: The name of a Dockerfile that is no file of the context.
OTHER_DOCKERFILE = ".trimtab.Dockerfile"
#: Hex digits of the build's digest in the tag of its image.
TAG_DIGITS = 16

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_PATH = re.compile(r"[^\x00-\x1f\x7f]+")
#: A path below the root of a source; ``NAME:`` comes before it if a Git source has the files.
_Path = Annotated[str, matching(_PATH, PATH_MAX, "a path without control characters")]
_Texts = Annotated[dict[str, str], Field(max_length=TEXTS_MAX)]


class Build(Model):
    """A build. trimtab writes it for a Compose file's ``build``; a document can't have one of its own.

    The image's tag has a digest of the build. An image with that tag is never built again.
    """

    #: The folder of the files that the build gets.
    context: _Path
    #: The digest of these files: names, permissions and contents.
    digest: Annotated[str, matching(_DIGEST, 71, "sha256: and 64 hex digits")]
    #: The path of the Dockerfile in the context.
    dockerfile: _Path = "Dockerfile"
    #: The text of a Dockerfile that isn't in the context.
    dockerfile_inline: str | None = None
    #: The images that the build starts from or copies from.
    bases: Annotated[tuple[str, ...], Field(max_length=LISTED_MAX)] = ()
    #: Values of the Dockerfile's arguments. They are no secret.
    args: _Texts = Field(default_factory=dict)
    #: The stage that is built. Unset: the last one.
    target: str | None = None
    #: Labels of the image.
    labels: _Texts = Field(default_factory=dict)
    #: none leaves the commands of the build without a network. Unset: as the policy says.
    network: Literal["none", "default"] | None = None
    #: The size of /dev/shm for the commands of the build.
    shm: Bytes | None = None
    #: True pulls the bases anew at each build.
    pull: bool = False


def identity_of(spec: Mapping[str, object]) -> str:
    """Return hex digits that differ for builds with other files or other choices.

    *spec* is a build as a document has it. Where the files lie doesn't count.
    """
    made_of = {name: value for name, value in spec.items() if name not in {"context", "bases"}}
    text = json.dumps(made_of, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:TAG_DIGITS]


_DEVICE_PATH = re.compile(r"/dev(?:/[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,63}){1,4}", re.ASCII)
_CDI = re.compile(
    r"[A-Za-z][A-Za-z0-9._-]{0,62}/[A-Za-z][A-Za-z0-9._-]{0,62}=[A-Za-z0-9][A-Za-z0-9._:-]{0,62}",
    re.ASCII,
)
_PERMISSIONS = re.compile(r"(?=.)r?w?m?", re.ASCII)


def is_device_path(text: str) -> bool:
    """Return True if *text* is the path of a device: below /dev, in canonical spelling."""
    return _DEVICE_PATH.fullmatch(text) is not None and not {".", ".."} & set(text.split("/"))


def is_cdi_name(text: str) -> bool:
    """Return True if *text* names a device of a CDI specification: VENDOR/CLASS=NAME."""
    return _CDI.fullmatch(text) is not None


DevicePath = Annotated[
    str,
    satisfying(is_device_path, "is no device; expected a path below /dev, such as /dev/fuse"),
]
CdiName = Annotated[
    str,
    satisfying(is_cdi_name, "is no CDI name; expected VENDOR/CLASS=NAME, such as nvidia.com/gpu=0"),
]
Permissions = Annotated[
    str, matching(_PERMISSIONS, 3, "some of r, w and m, in that order, such as rw")
]


class Device(Model):
    """A device: a path of the host, or a CDI name. Also written as the path or the name alone."""

    #: The path on the host.
    path: DevicePath | None = None
    #: The name of a CDI specification, such as nvidia.com/gpu=all.
    cdi: CdiName | None = None
    #: The path in the container. Unset: the same path.
    target: DevicePath | None = None
    #: ``r`` reads, ``w`` writes, ``m`` makes nodes of the device.
    permissions: Permissions = "rw"

    @model_validator(mode="after")
    def _is_one(self) -> Device:
        if (self.path is None) == (self.cdi is None):
            fault = "has no device" if self.path is None else "has path and cdi"
            raise ValueError(f"{fault}; expected one of path and cdi")
        if self.cdi is not None and (self.target is not None or self.permissions != "rw"):
            raise ValueError("has cdi with target or permissions; expected cdi alone")
        return self

    @property
    def name(self) -> str:
        """The path on the host, or the CDI name."""
        return self.path or self.cdi or ""


def _short(value: object) -> object:
    if not isinstance(value, str):
        return value
    return {"cdi": value} if "=" in value else {"path": value}


DeviceEntry = Annotated[Device, BeforeValidator(_short)]


class HttpCheck(Model):
    """A GET in plain HTTP.

    A status from 200 to 399 is healthy. Redirects are not followed.
    """

    #: The path of the URL.
    path: UrlPath = "/"
    #: The port of the container.
    port: PortNumber


class TcpCheck(Model):
    """A TCP connection, closed as soon as it is established."""

    #: The port of the container.
    port: PortNumber


class Healthcheck(Model):
    """A health check: a command run by the engine, or a probe sent by the controller.

    The engine runs ``exec`` in the container. The controller sends ``http`` and ``tcp`` probes to
    the container's own address.
    """

    #: The command and its arguments, run in the container: exit code 0 is healthy.
    exec: Texts | None = None
    #: A GET by the controller.
    http: HttpCheck | None = None
    #: A connection by the controller.
    tcp: TcpCheck | None = None
    # 0 is the engine's default, so 0 cannot be set.
    interval: Annotated[DurationMs, Field(ge=1)] = 30_000
    #: The longest time of one check.
    timeout: Annotated[DurationMs, Field(ge=1)] = 30_000
    #: Failures in a row until the container is unhealthy.
    retries: Annotated[int, Field(ge=1, le=10)] = 3
    #: The time to start, in which failures do not count.
    start_period: DurationMs = 30_000
    #: The interval during ``start_period`` with ``exec``. Unset: the engine's.
    start_interval: Annotated[DurationMs, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Healthcheck:
        checks = {"exec": self.exec, "http": self.http, "tcp": self.tcp}
        given = [name for name, check in checks.items() if check is not None]
        if len(given) != 1:
            fault = f"has {' and '.join(given)}" if given else "has no check"
            raise ValueError(f"{fault}; expected one of exec, http and tcp")
        return self

    @property
    def probed(self) -> bool:
        """Return True if the controller runs the check, not the engine."""
        return self.exec is None


#: Hooks of one event.
HOOKS_MAX = 8
#: The longest time of one hook, and of all hooks of one event.
HOOK_MAX_MS = 60_000
HOOKS_S = HOOK_MAX_MS / 1000
HOOK_MIN_MS = 1_000


def _names(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        if not is_env_name(name):
            raise ValueError(f"expected names of environment variables, not {name!r}")
    return values


class Hook(Model):
    """A command that the broker runs in the container. The output is discarded."""

    #: The command and its arguments. Exit code 0 is a success.
    exec: Texts
    #: USER or USER:GROUP, names or numbers. Unset: the container's.
    user: UserName | None = None
    #: The working directory. Unset: the container's.
    working_dir: Folder | None = None
    #: Variables in addition to the container's.
    env: Annotated[dict[str, str], Field(max_length=TEXTS_MAX), AfterValidator(_names)] = Field(
        default_factory=dict
    )
    #: The longest time of the command. All hooks of one event share 60 s.
    timeout: Annotated[DurationMs, Field(ge=HOOK_MIN_MS, le=HOOK_MAX_MS)] = HOOK_MAX_MS


Hooks = Annotated[tuple[Hook, ...], Field(max_length=HOOKS_MAX)]


class Lifecycle(Model):
    """Commands at the start and before the stop of each container, in their order."""

    #: After each start by trimtab. The container isn't ready before all have succeeded.
    post_start: Hooks = ()
    #: Before each stop by trimtab, within four fifths of the grace period.
    pre_stop: Hooks = ()


OOM_SCORE_ADJ_MIN = -1_000  # the kernel's: it never ends such a process
MEMORY_MIN = 6 * 1024 * 1024  # the engine's minimum


class Resources(fields.Model):
    """Resource limits; the policy provides unset limits."""

    #: The memory limit. Unset: the policy's default.
    memory: Annotated[Bytes, Field(ge=MEMORY_MIN, le=2**50)] | None = None
    #: The memory that the kernel leaves to the containers if the host runs short.
    memory_reservation: Annotated[Bytes, Field(ge=MEMORY_MIN, le=2**50)] | None = None
    #: The CPU limit. Unset: the policy's default.
    cpus: fields.CpuCount | None = None
    #: The most processes. Unset: the policy's default.
    pids: Annotated[int, Field(ge=1, le=2**22)] | None = None
    #: The size of /dev/shm.
    shm: fields.Size | None = None
    #: A weight against other containers; the engine's default is 1024.
    cpu_shares: Annotated[int, Field(ge=2, le=CPU_SHARES_MAX)] | None = None
    #: The CPUs on which the processes run.
    cpuset: fields.CpuSet | None = None
    #: The size of the writable layer, where the storage of the engine can limit it.
    disk: fields.Size | None = None


class Security(fields.Model):
    """Hardening that a service can change within the policy."""

    #: Capabilities; all others are dropped.
    cap_add: fields.CapabilityNames = ()
    #: True: the root filesystem cannot be written to.
    read_only_root_filesystem: bool = False
    #: The runtime of the engine; the policy lists them.
    runtime: fields.RuntimeName | None = None


class UlimitBounds(fields.Model):
    """A limit of each process: the value in force, and the most that a process can raise it to."""

    #: The limit in force.
    soft: Annotated[int, Field(ge=0, le=2**53)]
    #: The most that a process can raise the limit to.
    hard: Annotated[int, Field(ge=0, le=2**53)]

    @model_validator(mode="after")
    def _is_ordered(self) -> UlimitBounds:
        if self.soft > self.hard:
            raise ValueError("has a soft limit above the hard one; expected soft: at most hard")
        return self


def _both(value: object) -> object:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return {"soft": value, "hard": value} if is_number else value


UlimitName = Literal[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]
#: Limits by name. A number is both limits.
Ulimits = dict[UlimitName, Annotated[UlimitBounds, BeforeValidator(_both)]]


class Logs(fields.Model):
    """The driver of the container's logs, and the rotation of the files on this host."""

    #: The driver. The policy lists journald, and the collectors of the others.
    driver: Literal["json-file", "local", "journald", "syslog", "fluentd", "gelf"] = "json-file"
    #: Options of journald, syslog, fluentd and gelf, by the engine's names, such as gelf-address.
    options: Annotated[dict[fields.LogOption, str], Field(max_length=16)] = Field(
        default_factory=dict
    )
    #: The size of a file before it is rotated.
    max_size: fields.Size = 10 * 1024 * 1024
    #: The number of files that are kept.
    max_files: Annotated[int, Field(ge=1, le=100)] = 3
    #: Compress rotated files. Unset: the driver's default.
    compress: bool | None = None

    @model_validator(mode="after")
    def _is_one_driver(self) -> Logs:
        if self.options and self.is_local:
            raise ValueError(
                f"has options of {self.driver}; expected maxSize, maxFiles and compress"
            )
        return self

    @property
    def is_local(self) -> bool:
        """True if the driver's files are the log. Another driver's files are a copy."""
        return self.driver in ("json-file", "local")


class IpcMode(StrEnum):
    """The System V and POSIX shared memory of a service's containers."""

    PRIVATE = "private"
    SHAREABLE = "shareable"  # a sidecar can join
    NONE = "none"  # no /dev/shm


class Observe(fields.Model):
    """Namespaces of the host, for an observer that the policy names."""

    #: True shares the host's network.
    network: bool = False
    #: True shares the host's processes.
    pid: bool = False


class Shares(fields.Model):
    """The service whose namespaces the containers share: slot 1 those of slot 1, and so on."""

    #: The name of a Service of the namespace, with the same owner.
    service: str
    #: True shares the network: localhost, ports, addresses and host name.
    network: bool = False
    #: True shares System V IPC and /dev/shm. The service needs ``ipc: shareable``.
    ipc: bool = False
    #: True shares the processes: each side sees and signals those of the other.
    pid: bool = False

    def key_in(self, namespace: str) -> Key:
        """Return the key of the service for a container of a namespace."""
        return service_key(namespace, self.service)
