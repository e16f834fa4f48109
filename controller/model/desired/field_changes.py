"""Differences between running and declared services, field by field.

A value that may be secret is left out: the change has ``sensitive=True`` and no values. If an
operator asked for the values, the change has ``sensitive=True`` and the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from controller.model.desired.desired import OverrideReason, SourceLocation
from controller.model.desired.plan import AnyAction, Plan
from controller.model.names import Key

ReviewKind = Literal["document", "drift"]


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One differing field."""

    #: The field's place in the document (``spec.resources.memory``), or ``container.NAME`` for a
    #: setting without a field in documents.
    path: str
    what: Literal["changed", "added", "removed"]
    old: str | None = None  # the value in force; None if the field is unset
    new: str | None = None  # the replacing value; None if the field is unset
    sensitive: bool = False
    #: ``drift``: the document is unchanged, and the container was changed outside trimtab.
    kind: ReviewKind = "document"
    #: Nobody compared the values: their source, such as a ciphertext, has changed.
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class ServiceDifference:
    """The differences between some containers of a service and its document."""

    key: Key
    origin: str | None  # the revision of the containers, for the scope ``containers``
    containers: tuple[str, ...]  # names, for the scope ``containers``
    changes: tuple[FieldChange, ...]
    #: Why only some fields could be compared.
    note: str | None = None
    #: The service is pinned or suspended, so no change is applied.
    held: bool = False
    #: ``service``: fields of the service as a whole, such as ``spec.replicas``. ``new``: a new service,
    #: with all fields added.
    scope: Literal["containers", "service", "new"] = "containers"


class Effect(StrEnum):
    """The effect of a plan on one object.

    If several apply, the first in this order is used.
    """

    REMOVE = "remove"
    REPLACE = "replace"
    CREATE = "create"
    ADD = "add-replicas"
    SCALE_DOWN = "scale-down"
    STOP = "stop"
    #: No action restarts a container in place; the JSON form of a summary has the member.
    RESTART = "restart"
    START = "start"
    UPDATE = "update"
    REFUSED = "refused"
    WAIT = "wait"
    HELD = "held"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Downtime:
    """A time without a running replica, because the only replica of a service is replaced."""

    key: Key
    measured_s: float | None  # of the last replacement; None if unknown
    grace_s: int  # the maximum of the stop alone


@dataclass(frozen=True, slots=True)
class ReviewEntry:
    """One object of a review: its actions, and the fields that cause them.

    ``replaced``, ``added``, ``removed`` and the like are numbers of slots.
    """

    key: Key
    effect: Effect
    actions: tuple[AnyAction, ...] = ()
    differences: tuple[ServiceDifference, ...] = ()
    replicas: int = 0
    replaced: int = 0
    added: int = 0
    removed: int = 0
    stopped: int = 0
    started: int = 0
    updated: int = 0
    order: str | None = None  # StartFirst or StopFirst, for replaced slots
    at_once: int = 1
    source: SourceLocation | None = None
    holds: tuple[OverrideReason, ...] = ()
    downtime: Downtime | None = None
    #: The networks in which replaced replicas get other addresses; None if none is replaced.
    new_addresses_on: tuple[str, ...] | None = None

    @property
    def is_new(self) -> bool:
        """Return True if the service has no containers yet: all its fields are added."""
        return any(each.scope == "new" for each in self.differences)


@dataclass(frozen=True, slots=True)
class Review:
    """A plan with its explanation."""

    plan: Plan
    #: All resources, unchanged ones too.
    keys: frozenset[Key] = frozenset()
    entries: tuple[ReviewEntry, ...] = ()
    #: What a person can do that the plan doesn't, a sentence each.
    hints: tuple[str, ...] = ()
