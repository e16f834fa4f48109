"""The prune guard's memory, and its form in the controller's saved state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from controller.core.encoding.stored_form import (
    OPTIONAL,
    Milliseconds,
    StoredForm,
    StoredKeys,
    stored,
)
from controller.model.names import Key

#: In JSON an object.
_Devices = Annotated[
    tuple[tuple[str, int], ...],
    BeforeValidator(lambda members: tuple(sorted(members.items()))),
    PlainSerializer(dict),
]


@dataclass(frozen=True, slots=True)
class PruneMemory:
    """The guard's memory between observations. The controller stores it."""

    #: The filesystem of the directory when all was well.
    device: int = 0
    #: The new candidates of the last observation.
    settling: StoredKeys = frozenset()
    #: When these candidates first appeared.
    settling_since: Annotated[Milliseconds, stored("settlingSinceMs")] = 0.0
    #: Services that may go and are not gone yet.
    going: StoredKeys = frozenset()
    #: Those of ``going`` that were still declared (scaled to 0, or Stopped). The removal of
    #: their documents is not allowed yet.
    standing: StoredKeys = frozenset()
    #: When each service of the window was allowed.
    passed: tuple[tuple[Key, Milliseconds], ...] = ()
    #: The filesystem of each Git source when all was well.
    devices: Annotated[_Devices, OPTIONAL] = ()
    #: The source of each resource, '' for DIR. Empty without Git sources.
    sources: Annotated[tuple[tuple[Key, str], ...], OPTIONAL] = ()
    #: The volumes whose last document said ``retain: false``.
    released: Annotated[StoredKeys, OPTIONAL] = frozenset()
    #: Those of ``released`` whose removal is approved.
    removing: Annotated[StoredKeys, OPTIONAL] = frozenset()


FORM = StoredForm(PruneMemory, "the prune guard's memory")
