"""The limits of a service that an engine can change on a living container."""

from __future__ import annotations

from dataclasses import dataclass

from controller.model.desired.spec.rollout import Boot, RestartPolicy
from controller.model.desired.spec.service import ServiceSpec
from controller.model.observed import LimitValue, Settings
from controller.model.quantities import format_bytes

#: The limits of ``spec.resources`` that change in place, by their names in documents.
IN_PLACE_RESOURCES = ("memory", "memoryReservation", "cpus", "cpuShares", "cpuset", "pids")
_NANO_OF_MILLI = 1_000_000


@dataclass(frozen=True, slots=True)
class DeclaredLimits:
    """The limits in a document. None: the policy provides the limit, or there is none."""

    #: Bytes.
    memory: int | None = None
    #: Thousandths of a CPU.
    cpus: int | None = None
    #: Processes.
    pids: int | None = None
    #: The word of the restart policy, such as ``Always``.
    restart: str = RestartPolicy.ALWAYS.value
    #: Bytes.
    memory_reservation: int | None = None
    #: A weight.
    cpu_shares: int | None = None
    #: Numbers of CPUs, such as ``0-2,4``.
    cpuset: str | None = None
    #: ``Ordered`` if the controller starts the containers; None if the engine does.
    boot: str | None = None

    @classmethod
    def of(cls, spec: ServiceSpec) -> DeclaredLimits:
        """Return the limits of a document."""
        resources = spec.resources
        cpus = None if resources.cpus is None else round(resources.cpus * 1000)
        return cls(
            resources.memory,
            cpus,
            resources.pids,
            spec.restart.policy.value,
            resources.memory_reservation,
            resources.cpu_shares,
            resources.cpuset,
            Boot.ORDERED.value if spec.restart.boot is Boot.ORDERED else None,
        )

    @property
    def engine_limits(self) -> dict[str, LimitValue]:
        """The declared limits by their names in ``Settings``.

        Swap follows the memory, as in a create: no swap beside the memory.
        """
        values: dict[str, LimitValue | None] = {
            "memory": self.memory,
            "memory_swap": self.memory,
            "nano_cpus": None if self.cpus is None else self.cpus * _NANO_OF_MILLI,
            "pids": self.pids,
            "memory_reservation": self.memory_reservation,
            "cpu_shares": self.cpu_shares,
            "cpuset": self.cpuset,
        }
        return {name: value for name, value in values.items() if value is not None}

    def differing_from(self, admitted: Settings) -> dict[str, LimitValue]:
        """Return the declared limits that a container wasn't admitted with."""
        cpus = None if self.cpus is None else self.cpus * _NANO_OF_MILLI
        if (
            self.memory in (None, admitted.memory)
            and cpus in (None, admitted.nano_cpus)
            and self.pids in (None, admitted.pids)
            and self.memory_reservation in (None, admitted.memory_reservation)
            and self.cpu_shares in (None, admitted.cpu_shares)
            and self.cpuset in (None, admitted.cpuset)
        ):
            return {}  # of nearly all containers, and asked often
        limits = self.engine_limits
        own = {n: value for n, value in limits.items() if n != "memory_swap"}
        changed = {n: value for n, value in own.items() if getattr(admitted, n) != value}
        return changed | ({"memory_swap": limits["memory"]} if "memory" in changed else {})

    @property
    def text(self) -> str:
        """The limits in words, such as ``memory 64Mi, cpus 0.5, restart Always``."""
        memory, reservation = map(_bytes, (self.memory, self.memory_reservation))
        cpus = None if self.cpus is None else f"{self.cpus / 1000:g}"
        named = (
            ("memory", memory),
            ("memoryReservation", reservation),
            ("cpus", cpus),
            ("cpuShares", self.cpu_shares),
            ("cpuset", self.cpuset),
            ("pids", self.pids),
            ("restart", self.restart),
            ("boot", self.boot),
        )
        return ", ".join(f"{name} {value}" for name, value in named if value is not None)

    def is_lower_than(self, other: DeclaredLimits) -> bool:
        """Return True if some limit is lower than in *other*.

        A weight, a reservation and a set of CPUs are no limit of this kind.
        """
        pairs = (
            (self.memory, other.memory),
            (self.cpus, other.cpus),
            (self.pids, other.pids),
        )
        return any(one is not None and two is not None and one < two for one, two in pairs)


def _bytes(count: int | None) -> str | None:
    return None if count is None else format_bytes(count)
