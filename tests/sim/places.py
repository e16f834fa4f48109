"""Whose a container is, as its labels say."""

from __future__ import annotations

from controller.model import names
from tests.sim.objects import SimContainer

#: Namespace, service and slot, as the labels have them.
Place = tuple[str, str, str]


def label(container: SimContainer, name: str) -> str:
    """Return a label, with the present namespace and name of a service that was moved."""
    if container.moved_to is not None and name in {names.NAMESPACE, names.SERVICE}:
        return container.moved_to[name == names.SERVICE]
    return str(container.config["Labels"].get(name, ""))


def run_of(container: SimContainer) -> int:
    """Return the number of a job's run; 0 for any other container."""
    return names.run_of_slot(label(container, names.SLOT))


def volumes_of(container: SimContainer) -> frozenset[str]:
    """Return the named volumes of a container."""
    return frozenset(str(m["Name"]) for m in container.mounts if m.get("Type") == "volume")


def slot_of(container: SimContainer) -> Place | None:
    """Return the place of a container of a service, None of another's; a job's run has none."""
    if label(container, names.ORIGIN) != "controller" or run_of(container):
        return None
    return (
        label(container, names.NAMESPACE),
        label(container, names.SERVICE),
        label(container, names.SLOT),
    )
