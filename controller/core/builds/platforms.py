"""Platforms of builds: the engine's own, and its predefined variables in a Dockerfile."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

#: Names of the kernel, and the architecture that images have for them.
_MACHINES: Final[Mapping[str, str]] = MappingProxyType(
    {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "armv6l": "arm/v6", "i686": "386"}
)
#: Other ways to write an architecture.
_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **_MACHINES,
        "x86-64": "amd64",
        "arm64/v8": "arm64",
        "armhf": "arm/v7",
        "armel": "arm/v6",
        "arm": "arm/v7",
        "i386": "386",
    }
)


def of_machine(machine: str) -> str:
    """Return the platform of a host by the kernel's name of its machine: ``linux/amd64`` for ``x86_64``."""
    return f"linux/{_MACHINES.get(machine, machine)}"


def normal(platform: str) -> str:
    """Return a platform as ``OS/ARCHITECTURE[/VARIANT]``, whichever way it is written."""
    system, separator, architecture = platform.strip().lower().partition("/")
    if not separator:
        system, architecture = "linux", system
    return f"{system}/{_ALIASES.get(architecture, architecture)}"


def variables(platform: str) -> dict[str, str]:
    """Return the variables that BuildKit predefines; build and target have the same platform here."""
    system, architecture, variant = [*platform.split("/"), ""][:3]
    values = {"PLATFORM": platform, "OS": system, "ARCH": architecture, "VARIANT": variant}
    return {
        f"{side}{name}": value for side in ("BUILD", "TARGET") for name, value in values.items()
    }
