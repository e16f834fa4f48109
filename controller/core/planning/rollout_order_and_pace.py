"""StartFirst or StopFirst: whether a replacement starts before its predecessor stops, and how many at once."""

from __future__ import annotations

from controller.core.manifests.checks.claims import exclusive_resources
from controller.model.desired.desired import Service
from controller.model.desired.spec.rollout import Order


def order_of(service: Service) -> Order:
    """Return whether a replacement starts before or after its predecessor stops."""
    return service.spec.rollout.order or (
        Order.STOP_FIRST if exclusive_of(service) else Order.START_FIRST
    )


def replaced_at_once(service: Service) -> int:
    """Return how many slots of a service are replaced at a time."""
    rollout = service.spec.rollout
    count = rollout.parallelism or rollout.max_unavailable
    if order_of(service) is Order.START_FIRST:
        return count
    return min(count, rollout.max_unavailable)


def why_order(service: Service) -> str:
    """Return the reason for the result of ``order_of``, for the status report."""
    if service.spec.rollout.order is not None:
        return "declared"
    what = exclusive_of(service)
    if what:
        return f"{what} can't be held by two containers"
    return "no host port and no exclusive volume forbids it"


def exclusive_of(service: Service) -> str:
    """Return a resource only one container can hold, so the old container stops first; '' if none."""
    if resources := exclusive_resources(service.spec):
        return resources[0]
    for volume in service.image_volumes or ():
        if volume.keeping == "slot":
            return f"the volume at {volume.path}"
    return ""
