"""Limits, privileges and logs of a container."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from controller.model.desired.field_types import Bytes
from controller.model.desired.spec import fields
from controller.model.observed import CPU_SHARES_MAX

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
