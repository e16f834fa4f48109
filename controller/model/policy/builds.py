"""Builds of images through the gate: who may build, from what, and within which bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.model.desired.spec.fields import Model
from controller.model.policy import values


class ContextRules(Model):
    """Bounds of the files that a build gets."""

    bytes: Annotated[values.PolicyBytes, Field(ge=1024, le=8 * 1024**3)] = 256 * 1024**2
    #: Files, folders and links.
    files: Annotated[int, Field(ge=1, le=200_000)] = 20_000


class BuildRules(Model):
    """Builds by the engine's classic builder, which can hold every limit here."""

    #: Owners whose documents may build; None for every owner. Operators may always build.
    owners: tuple[values.OwnerName, ...] | None = None
    #: The network of the commands of a build. ``default`` is the engine's bridge, with the internet.
    network: Literal["none", "default"] = "none"
    #: Memory and CPUs of each command of a build. Swap is not used.
    memory: values.PolicyBytes = 2 * 1024**3
    cpus: values.Cpus = 2 * values.NANO
    #: Processes of a command. The engine can't limit them: the broker counts, and ends the build.
    pids: Annotated[int, Field(ge=1)] = 2048
    #: From the upload of the context to the result.
    time: Annotated[values.PolicyDurationMs, Field(ge=1_000, le=86_400_000)] = 1_800_000
    context: ContextRules = ContextRules.model_construct()
    #: The most bytes of the result with its base, and of what a build writes.
    result: Annotated[values.PolicyBytes, Field(ge=1024**2)] = 8 * 1024**3
    #: The images that a build may start from, beside ``images.allow``; None for all admitted ones.
    base: tuple[values.ImagePrefix, ...] | None = None
