"""The answer to ``stats``: the running containers with their present use, limits and restarts."""

from __future__ import annotations

from typing import Any

from controller.core.metrics.samples import Use, UseLook
from controller.model.observed import Container, Observed
from controller.model.quantities import format_instant


def stats(observed: Observed | None, look: UseLook) -> dict[str, Any]:
    """Return ``at``, an instant, and ``containers`` in the order of their keys and slots.

    ``cpus`` counts processors since the look before, and is None at a container's first look. Figures
    are None without files in a cgroup, and limits without a limit.
    """
    running = () if observed is None else observed.containers
    found = [each for each in running if each.running]
    found.sort(key=lambda each: (each.key, each.slot, each.name))
    rows = [_row(each, look.containers.get(each.id)) for each in found]
    return {"at": format_instant(look.at), "containers": rows}


def _row(container: Container, use: Use | None) -> dict[str, Any]:
    limits = container.settings
    return {
        "key": str(container.key),
        "slot": container.slot,
        "container": container.name,
        "owner": container.owner,
        "cpus": None if use is None or use.cpus is None else round(use.cpus, 4),
        "cpuLimit": limits.quota_cpus / 10**9 or None,
        "memoryBytes": None if use is None else use.memory_bytes,
        "memoryLimitBytes": limits.memory or None,
        "pids": None if use is None else use.processes,
        "pidsLimit": max(0, limits.pids) or None,
        "restarts": container.restart_count,
    }
