"""Whose a container is, as its labels say."""

from __future__ import annotations

from controller.model import names
from tests.sim.objects import SimContainer

#: Namespace, service and slot, as the labels have them.
Place = tuple[str, str, str]


def label(container: SimContainer, name: str) -> str:
    return str(container.config["Labels"].get(name, ""))


def slot_of(container: SimContainer) -> Place | None:
    """Return the place of a container of the controller's, None of another's."""
    if label(container, names.ORIGIN) != "controller":
        return None
    return (
        label(container, names.NAMESPACE),
        label(container, names.SERVICE),
        label(container, names.SLOT),
    )
