"""Limits, privileges and logs of a container."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from controller.model.desired.field_types import Bytes
from controller.model.desired.spec.fields import Capabilities, Cpus, Model, Size

MEMORY_MIN = 6 * 1024 * 1024  # the engine's minimum


class Resources(Model):
    """Resource limits; the policy provides unset limits."""

    memory: Annotated[Bytes, Field(ge=MEMORY_MIN, le=2**50)] | None = None
    cpus: Cpus | None = None
    pids: Annotated[int, Field(ge=1, le=2**22)] | None = None
    shm: Size | None = None


class Security(Model):
    """Hardening that a service can change within the policy."""

    cap_add: Capabilities = ()
    read_only_root_filesystem: bool = False


class Logs(Model):
    """Rotation of the container's log files."""

    max_size: Size = 10 * 1024 * 1024
    max_files: Annotated[int, Field(ge=1, le=100)] = 3
