"""Samples of use, for an hour: the processor time and memory of containers, as metrics and as ``stats``.

Pure: the files of cgroups are read elsewhere (``system.usage``).
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from controller.model.names import Key
from controller.model.observed import Container, ContainerUse, Observed
from controller.model.quantities import format_instant

#: The time between two samples that are kept, and how many are kept of a service: an hour.
SAMPLE_S: Final = 10.0
SAMPLES_MAX: Final = 360
#: The services with kept samples. Others have only the present figures.
SERVICES_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class Use:
    """The use of a service or container."""

    #: Processor time; of a service since the controller's first look, replaced containers included.
    cpu_s: float = 0.0
    memory_bytes: int = 0
    processes: int = 0
    #: Processors in use between the last two looks; None at the first look.
    cpus: float | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A running container, as it was observed."""

    id: str
    key: Key
    slot: int
    #: The start in Unix time.
    started_at: float


@dataclass(frozen=True, slots=True)
class UseLook:
    """The use of all containers at a time."""

    #: Unix time.
    at: float
    counted: Mapping[str, ContainerUse] = field(default_factory=dict)
    #: By the id of the container, those without files in a cgroup left out.
    containers: Mapping[str, Use] = field(default_factory=dict)
    services: Mapping[Key, Use] = field(default_factory=dict)


def next_look(
    before: UseLook | None,
    running: tuple[Running, ...],
    counted: Mapping[str, ContainerUse],
    *,
    known: Collection[Key],
    at: float,
) -> UseLook:
    """Return the use at a time, from what the kernel counts now and the look before.

    *known* are the services with a container, or a document. The counter of a service goes on while its containers are replaced. A container that was running
    before the look before, and is seen for the first time, counts from now on.
    """
    containers: dict[str, Use] = {}
    services: dict[Key, Use] = {}
    elapsed_s = 0.0 if before is None else at - before.at
    for each in running:
        if (now := counted.get(each.id)) is None:
            continue
        grown_s = _grown_s(before, each, now)
        cpus = grown_s / elapsed_s if elapsed_s > 0 and grown_s is not None else None
        containers[each.id] = Use(now.cpu_s, now.memory_bytes, now.processes, cpus)
        so_far = services.get(each.key)
        if so_far is None:
            earlier = None if before is None else before.services.get(each.key)
            so_far = Use(cpu_s=0.0 if earlier is None else earlier.cpu_s)
        services[each.key] = Use(
            so_far.cpu_s + (grown_s or 0.0),
            so_far.memory_bytes + now.memory_bytes,
            so_far.processes + now.processes,
            so_far.cpus if cpus is None else (so_far.cpus or 0.0) + cpus,
        )
    # A service whose containers are all down keeps its counter.
    for key, use in ({} if before is None else before.services).items():
        if key in known:
            services.setdefault(key, Use(cpu_s=use.cpu_s))
    return UseLook(at, counted, containers, services)


def _grown_s(before: UseLook | None, container: Running, now: ContainerUse) -> float | None:
    """Return by how much the time of a container grew since the look before; None if unknown."""
    if before is None:
        return None
    earlier = before.counted.get(container.id)
    if earlier is not None:
        # The kernel counts anew after each start.
        return now.cpu_s - earlier.cpu_s if now.cpu_s >= earlier.cpu_s else now.cpu_s
    return now.cpu_s if container.started_at >= before.at else None


class History:
    """The samples of the last hour: processors and bytes of each service. Bounded."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._times = array("d")
        self._cpus: dict[Key, array[float]] = {}
        self._memory: dict[Key, array[float]] = {}

    def add(self, look: UseLook) -> None:
        """Keep the samples of a look, unless the last ones are younger than ``SAMPLE_S``."""
        if self._last is not None and 0 <= look.at - self._last < SAMPLE_S * 0.9:
            return
        self._last = look.at
        known = [key for key in look.services if key in self._cpus]
        new = [key for key in look.services if key not in self._cpus]
        kept = {*known, *new[: max(0, SERVICES_MAX - len(known))]}
        for series in (self._cpus, self._memory):
            for key in series.keys() - kept:
                del series[key]
            for key in kept - series.keys():
                series[key] = array("f", [float("nan")] * len(self._times))
        self._times.append(look.at)
        for key in kept:
            use = look.services[key]
            self._cpus[key].append(float("nan") if use.cpus is None else use.cpus)
            self._memory[key].append(use.memory_bytes)
        if len(self._times) > SAMPLES_MAX:
            for each in (self._times, *self._cpus.values(), *self._memory.values()):
                del each[: len(each) - SAMPLES_MAX]

    def samples_of(self, key: Key) -> tuple[tuple[float, float | None, int], ...]:
        """Return the samples of a service, the oldest first: Unix time, processors, bytes."""
        cpus, memory = self._cpus.get(key), self._memory.get(key)
        if cpus is None or memory is None:
            return ()
        begin = self._times[-1] - SAMPLE_S * SAMPLES_MAX  # nobody may have looked for long
        return tuple(
            (at, None if cpu != cpu else round(cpu, 4), int(size))  # noqa: PLR0124 - nan
            for at, cpu, size in zip(self._times, cpus, memory, strict=True)
            if size == size and at > begin  # noqa: PLR0124 - nan: the service was not there yet
        )


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
