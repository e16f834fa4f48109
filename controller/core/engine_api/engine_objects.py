"""The engine's objects: the types of the members that trimtab reads, and the tested engines.

docs/engines.md says what was seen on each. An untested engine is used, and named as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from controller.core.encoding.json_values import list_of, text_member
from controller.core.engine_api.container_fields import LIMITS

#: A type, a list of one shape, or an object: shapes by name, ``ANY`` for all names. Null fits each.
Shape = type | tuple["Shape"] | Mapping[str, "Shape"]
ANY = "*"

_TEXTS: Shape = {ANY: str}
_OBJECTS: Shape = {ANY: {}}
#: The members that trimtab reads of containers, images, networks, volumes and sessions.
ENGINE_OBJECT: Final[Shape] = {
    **dict.fromkeys(("Id", "Name", "Image", "Driver", "CreatedAt", "Created", "Os"), str),
    **dict.fromkeys(("RepoTags", "RepoDigests"), (str,)),
    "Labels": _TEXTS,
    "Options": _TEXTS,
    "Containers": _OBJECTS,
    "IPAM": {"Config": ({},), "Options": _TEXTS},
    "GraphDriver": {},
    "Mounts": ({},),
    "Running": bool,
    "Pid": int,
    "ExitCode": int,
    "ProcessConfig": {},
    "State": {
        **dict.fromkeys(("Status", "StartedAt", "FinishedAt", "Error"), str),
        "Running": bool,
        "Pid": int,
        "ExitCode": int,
        "Health": {"Status": str, "FailingStreak": int, "Log": ({"ExitCode": int},)},
    },
    "RestartCount": int,
    "Config": {
        **dict.fromkeys(("User", "Hostname", "WorkingDir"), str),
        **dict.fromkeys(("Env", "Cmd", "Entrypoint"), (str,)),
        "Labels": _TEXTS,
        "Volumes": _OBJECTS,
        "ExposedPorts": _OBJECTS,
        "Healthcheck": {"Test": (str,), "Retries": int},
        "StopTimeout": int,
    },
    "HostConfig": {
        **dict.fromkeys(("NetworkMode", "IpcMode", "PidMode", "CgroupParent"), str),
        **{limit.member: int if limit.is_plain else str for limit in LIMITS},
        "ShmSize": int,
        "PortBindings": {ANY: ({},)},
        "RestartPolicy": {"Name": str, "MaximumRetryCount": int},
    },
    "NetworkSettings": {
        "Ports": {ANY: ({"HostIp": str, "HostPort": str},)},
        "Networks": {
            ANY: {
                **dict.fromkeys(("NetworkID", "EndpointID", "IPAddress"), str),
                "Aliases": (str,),
                "IPAMConfig": {},
            }
        },
    },
}


def _is_uniform(shape: Mapping[str, Shape], values: Iterable[object]) -> bool:
    """Return True if all values have the type for all names: images have a hundred thousand labels."""
    return isinstance(kind := shape.get(ANY), type) and {*map(type, values)} <= {kind}


def misfit(value: Any, shape: Shape, place: str = "") -> str:
    """Return the place of the first value of another type, for example ``Config.Env``; '' for none."""
    if value is None:
        return ""
    inner: Iterable[str] = ()
    if isinstance(shape, dict) and isinstance(value, dict) and _is_uniform(shape, value.values()):
        return ""
    if isinstance(shape, type):
        fits = isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
    elif isinstance(shape, tuple):
        fits = isinstance(value, list)
        inner = (misfit(each, shape[0], place) for each in (value if fits else ()))
    else:
        fits = isinstance(value, dict)
        names = (value if ANY in shape else shape.keys() & value.keys()) if fits else ()
        inner = (
            misfit(value[name], shape.get(name, shape.get(ANY, {})), f"{place}.{name}".lstrip("."))
            for name in names
        )
    return next(filter(None, inner), "") if fits else place or "the value"


#: The containerd image store, whatever its snapshotter.
CONTAINERD: Final = "containerd"
#: The image stores of each tested version (MAJOR.MINOR); another name than containerd is a storage driver's.
TESTED: Final[Mapping[str, tuple[str, ...]]] = {
    "26.1": ("overlay2", CONTAINERD),
    "28.5": ("overlay2", CONTAINERD),
}
UNTESTED: Final = "engine.untested"
REMEDY: Final = (
    "docs/engines.md has the tested ones and what differs; `make ring KIND=engines` runs the tests"
)
_DRIVER_TYPE: Final = ["driver-type", "io.containerd.snapshotter.v1"]
_VERSION: Final = re.compile(r"(\d+\.\d+)(?:[.+-].*)?", re.ASCII | re.DOTALL)


def image_store(info: Mapping[str, Any]) -> str:
    """Return the image store in the ``/info`` of an engine: a storage driver such as ``overlay2``, or ``containerd``."""
    if _DRIVER_TYPE in list_of(info.get("DriverStatus")):
        return CONTAINERD
    return text_member(info, "Driver")


def untested(version: str, store: str) -> str:
    """Return a sentence about an engine that trimtab was not tested on; '' for a tested one.

    What an engine didn't say counts as tested.
    """
    found = _VERSION.fullmatch(version)
    stores = TESTED.get(found[1]) if found else ()
    if not version or (stores is not None and (not store or store in stores)):
        return ""
    known = ", ".join(f"{each} ({' and '.join(names)})" for each, names in TESTED.items())
    kept = f" with the image store {store}" if store else ""
    return f"Docker {version}{kept} is untested with this trimtab; tested are {known}"
