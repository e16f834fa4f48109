"""The prune guard's memory, and its form in the controller's saved state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainSerializer

from controller.core.encoding.stored_form import StoredForm
from controller.model.names import Key

#: Keys, in JSON as a sorted list of texts.
_Keys = Annotated[frozenset[Key], PlainSerializer(lambda keys: [*map(str, sorted(keys))])]


@dataclass(frozen=True, slots=True)
class PruneMemory:
    """The guard's memory between observations. The controller stores it."""

    #: The filesystem of the directory when all was well.
    device: int = 0
    #: The new candidates of the last observation.
    settling: _Keys = frozenset()
    #: When these candidates first appeared.
    settling_since: float = 0.0
    #: Services that may go and are not gone yet.
    going: _Keys = frozenset()
    #: Those of ``going`` that were still declared (scaled to 0, or Stopped). The removal of
    #: their documents is not allowed yet.
    standing: _Keys = frozenset()
    #: When each service of the window was allowed.
    passed: tuple[tuple[Key, float], ...] = ()
    #: The filesystem of each Git source when all was well.
    devices: tuple[tuple[str, int], ...] = ()
    #: The source of each resource, '' for DIR. Empty without Git sources.
    sources: tuple[tuple[Key, str], ...] = ()
    #: The volumes whose last document said ``retain: false``.
    released: _Keys = frozenset()
    #: Those of ``released`` whose removal is approved.
    removing: _Keys = frozenset()


FORM = StoredForm(PruneMemory)
