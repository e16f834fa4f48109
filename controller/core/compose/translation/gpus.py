"""Requests for GPUs as CDI names: ``gpus``, and ``devices`` among the reservations of ``deploy``.

Docker Compose leaves the choice to a driver of the engine. Here the policy grants each device by
name. The names are the names of ``nvidia-ctk cdi generate``: by index, by UUID, or all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from controller.core.compose.translation.scope import Tree, items, mapping, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.core.compose.project import TreePath

_KIND: Final = "nvidia.com/gpu"
#: The most devices that a count can name.
COUNT_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """A request for GPUs: the CDI names, or why there are none."""

    path: TreePath  # in the service
    names: tuple[str, ...] = ()
    fault: str = ""


def gpu_requests(service: Tree) -> Iterator[GpuRequest]:
    """Yield the requests of a service."""
    reservations = mapping(
        mapping(mapping(service.get("deploy")).get("resources")).get("reservations")
    )
    places: tuple[tuple[TreePath, object], ...] = (
        (("gpus",), service.get("gpus")),
        (("deploy", "resources", "reservations", "devices"), reservations.get("devices")),
    )
    for path, requests in places:
        for index, request in enumerate(items(requests)):
            terms = mapping(request)
            if fault := _fault(terms):
                yield GpuRequest((*path, index), fault=fault)
            else:
                yield GpuRequest((*path, index), names=_names(terms))


def _fault(request: Tree) -> str:
    """Return why a request has no CDI names, '' if it has."""
    driver, count = str(request.get("driver") or ""), request.get("count")
    capabilities = texts(request.get("capabilities"))
    if driver not in ("", "nvidia", "cdi"):
        return f"a device of the driver {driver} has no known name"
    if driver != "cdi" and capabilities and "gpu" not in capabilities:
        return f"a device with the capabilities {', '.join(capabilities)} has no known name"
    if driver == "cdi" and not texts(request.get("device_ids")):
        return "the driver cdi needs the names of devices in device_ids"
    if request.get("options"):
        return "options of a device driver are not supported"
    if isinstance(count, int) and count > COUNT_MAX:
        return f"{count} devices are more than {COUNT_MAX}"
    return ""


def _names(request: Tree) -> tuple[str, ...]:
    ids = texts(request.get("device_ids"))
    if str(request.get("driver") or "") == "cdi":
        return tuple(ids)
    if ids:
        return tuple(f"{_KIND}={each}" for each in ids)
    count = request.get("count")
    if isinstance(count, int) and count >= 0:
        return tuple(f"{_KIND}={index}" for index in range(count))
    return (f"{_KIND}=all",)
