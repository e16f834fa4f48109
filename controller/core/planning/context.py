"""What a plan must know of the past, as values: what no snapshot of the engine shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.core.drift.availability import Availability
from controller.core.planning.ordering import NOTHING_AROUND, KnownServices
from controller.core.planning.quarantine import NOTHING_KEPT, Quarantine
from controller.model.names import Key, SlotKey
from controller.model.quantities import format_instant


@dataclass(frozen=True, slots=True)
class SlotPause:
    """Why a slot isn't acted on now, and until when: seconds since the epoch, by the wall clock."""

    reason: str
    until: float

    @property
    def text(self) -> str:
        """The reason with the instant of the next try; it doesn't change as time passes."""
        return f"{self.reason}, next try at {format_instant(self.until)}"


@dataclass(frozen=True, slots=True)
class PlanContext:
    """What earlier looks and passes say of the containers and services that a plan is about.

    ``held`` has the slots in backoff: why and until when they aren't tried. In those that are
    ``controller_restarts`` the controller restarts containers, and not the engine. ``readiness`` is by
    container id, as is ``superseded``: what must be replaced though its revision is right, and
    why. ``good`` is a service's last revision that held, and those are ``hindered`` whose last pass
    got no further. Those that are ``ailing`` (by id) are of earlier revisions, and unhealthy in a run that is
    long enough to be ended. ``gone`` says what became of a slot's last container, if somebody else
    removed it. ``paused`` says of a service why nothing of it that serves is replaced now, ``contended`` of a
    slot which alterations aren't healed now, by their words, and why; a stop and a removal too. ``quarantine`` is
    how long what is pruned is kept, and what is left of that. ``around`` is what is known of the
    services that others depend on.
    """

    backoff: Mapping[SlotKey, str] = field(default_factory=dict)
    controller_restarts: frozenset[SlotKey] = frozenset()
    availability: Mapping[str, Availability] = field(default_factory=dict)
    replace_reasons: Mapping[str, str] = field(default_factory=dict)
    last_good: Mapping[Key, str] = field(default_factory=dict)
    last_pass_failed: frozenset[Key] = frozenset()
    failing_predecessors: frozenset[str] = frozenset()
    removed_from_outside: Mapping[SlotKey, str] = field(default_factory=dict)
    paused: Mapping[Key, str] = field(default_factory=dict)
    contended: Mapping[SlotKey, Mapping[str, str]] = field(default_factory=dict)
    quarantine: Quarantine = NOTHING_KEPT
    known_services: KnownServices = NOTHING_AROUND


NOTHING = PlanContext()
