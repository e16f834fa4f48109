"""Differences between what runs and what is declared, field by field, as people read them.

A value that may be a secret is never part of these unless an operator asked to see it: then
``sensitive`` is true and the values are there; otherwise ``sensitive`` is true and they are None.
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
    """One field that differs. ``old`` is the value in force, ``new`` the one that replaces it.

    None is a field that isn't set. ``path`` is the field's place in the document
    (``spec.resources.memory``), or ``container.`` and a name for a setting that no document has.
    ``drift``: the document is unchanged, the container was changed outside trimtab.
    """

    path: str
    what: Literal["changed", "added", "removed"]
    old: str | None = None
    new: str | None = None
    sensitive: bool = False
    kind: ReviewKind = "document"


@dataclass(frozen=True, slots=True)
class ServiceDifference:
    """How some containers of a service differ from its document.

    ``origin`` is the revision of those containers, ``containers`` are their names. Both are absent for
    fields that belong to the ``service`` as a whole, such as ``spec.replicas``, and for a ``new``
    service, of which all fields are added. ``note`` says why only some
    fields could be compared. ``held``: nothing of it is applied while the service is pinned or
    suspended.
    """

    key: Key
    origin: str | None
    containers: tuple[str, ...]
    changes: tuple[FieldChange, ...]
    note: str | None = None
    held: bool = False
    scope: Literal["containers", "service", "new"] = "containers"


class Effect(StrEnum):
    """The effect of a plan on one object; of several, the first of these that applies."""

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
    """A service of which no replica runs for a while, because its only one is replaced.

    ``measured_s`` is how long that took the last time, in seconds, or None if it isn't known.
    ``grace_s`` is how long the stop alone may take.
    """

    key: Key
    measured_s: float | None
    grace_s: int


@dataclass(frozen=True, slots=True)
class ReviewEntry:
    """One object of a review: its actions, and the fields that they are for.

    ``replaced``, ``added``, ``removed`` and the like count slots of a service.
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
    order: str | None = None  # StartFirst or StopFirst, of what is replaced
    at_once: int = 1
    source: SourceLocation | None = None
    holds: tuple[OverrideReason, ...] = ()
    downtime: Downtime | None = None

    @property
    def is_new(self) -> bool:
        """Return True if it is a service without containers yet, of which all fields are added."""
        return any(each.scope == "new" for each in self.differences)


@dataclass(frozen=True, slots=True)
class Review:
    """A plan with everything that is said about it. ``keys`` are all resources, also unchanged ones."""

    plan: Plan
    keys: frozenset[Key] = frozenset()
    entries: tuple[ReviewEntry, ...] = ()
