"""The limits of a service that an engine can change on a living container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from controller.model.desired.spec.resources import Resources
from controller.model.desired.spec.rollout import Boot, RestartPolicy
from controller.model.desired.spec.service import ServiceSpec
from controller.model.observed import LIMIT_NAMES, EngineLimits, LimitValue, Settings

#: The fields of ``spec.resources`` by the limit of the engine that each declares, if it changes in place.
_FIELDS: Mapping[str, str] = MappingProxyType(
    {name: name for name in LIMIT_NAMES if name in Resources.model_fields} | {"nano_cpus": "cpus"}
)
#: The same fields by their names in documents.
IN_PLACE_RESOURCES = tuple(Resources.model_fields[name].alias or name for name in _FIELDS.values())
#: A lower value can end what a program does. A weight, a reservation and a set of CPUs are no such limit.
_TIGHT = ("memory", "nano_cpus", "pids")
_NANO_OF_MILLI = 1_000_000


@dataclass(frozen=True, slots=True)
class DeclaredLimits(EngineLimits):
    """The limits in a document. Unset: the policy provides the limit, or there is none."""

    #: The word of the restart policy, such as ``Always``.
    restart: str = RestartPolicy.ALWAYS.value
    #: ``Ordered`` if the controller starts the containers; None if the engine does.
    boot: str | None = None

    @classmethod
    def of(cls, spec: ServiceSpec) -> DeclaredLimits:
        """Return the limits of a document."""
        values = {name: getattr(spec.resources, field) for name, field in _FIELDS.items()}
        if spec.resources.cpus is not None:
            values["nano_cpus"] = round(spec.resources.cpus * 1000) * _NANO_OF_MILLI
        boot = Boot.ORDERED.value if spec.restart.boot is Boot.ORDERED else None
        declared = {name: value for name, value in values.items() if value is not None}
        return cls(**declared, restart=spec.restart.policy.value, boot=boot)

    @property
    def engine_limits(self) -> dict[str, LimitValue]:
        """The declared limits by their names in ``Settings``.

        Swap follows the memory, as in a create: no swap beside the memory.
        """
        values = {name: getattr(self, name) for name in LIMIT_NAMES} | {"memory_swap": self.memory}
        return {name: value for name, value in values.items() if value}

    def differing_from(self, admitted: Settings) -> dict[str, LimitValue]:
        """Return the declared limits that a container wasn't admitted with."""
        changed = {
            name: value
            for name in _FIELDS
            if (value := getattr(self, name)) and value != getattr(admitted, name)
        }
        return changed | ({"memory_swap": self.memory} if "memory" in changed else {})

    def is_lower_than(self, other: DeclaredLimits) -> bool:
        """Return True if some limit is lower than in *other*."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in _TIGHT)
        return any(one and two and one < two for one, two in pairs)
