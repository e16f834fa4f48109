"""A plan: the actions after which the engine is as declared; and the differences of services, field by field.

Each action has a cause and a precondition.

A value that may be secret is left out: the change has ``sensitive=True`` and no values. If an
operator asked for the values, the change has ``sensitive=True`` and the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal

from controller.model.desired.desired import OverrideReason, Service, SourceLocation
from controller.model.desired.spec.container import Build
from controller.model.errors import Problem
from controller.model.names import Key
from controller.model.observed import LimitValue
from controller.model.records import ALLOW, NO_PRECONDITION, Precondition, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One engine request, or a wait."""

    object: Key
    target: str  # the name of the changed object
    cause: str
    slot: int = 0
    precondition: Precondition = NO_PRECONDITION
    verdict: Verdict = ALLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class PullImage(Action):
    """Pull the image with the reference ``target``."""

    verb: ClassVar[str] = "pull-image"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildImage(PullImage):
    """Build the image with the reference ``target``, in place of a pull."""

    verb: ClassVar[str] = "build-image"
    build: Build
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateNetwork(Action):
    """Create a network of this instance; ``masquerade`` and ``icc`` are bridge options."""

    verb: ClassVar[str] = "create-network"
    owner: str
    internal: bool = True
    masquerade: bool = True
    icc: bool = True
    #: '' for a subnet of the engine's choice.
    subnet: str = ""
    #: '' for no IPv6.
    ipv6_subnet: str = ""
    #: The host's interface of a macvlan network, with its range and gateway; '' for a bridge.
    macvlan: str = ""
    ip_range: str = ""
    gateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNetwork(Action):
    """Remove a network of this instance without attached containers."""

    verb: ClassVar[str] = "remove-network"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveVolume(Action):
    """Remove a released volume with its data, after a dump and by an operator's approval."""

    verb: ClassVar[str] = "remove-volume"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVolume(Action):
    """Create a named volume of this instance."""

    verb: ClassVar[str] = "create-volume"
    owner: str
    #: The largest size, in bytes; None for no limit.
    size: int | None = None
    #: The options of the engine's driver for a folder of another machine: names and values.
    remote: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverFiles(Action):
    """Give the broker the content of the Config ``target``, for containers of its namespace."""

    verb: ClassVar[str] = "deliver-files"
    kind: str
    owner: str
    #: The id of the content.
    content: str
    files: tuple[tuple[str, bytes], ...] = field(default=(), repr=False, compare=False)
    #: The source of a Secret, in place of its files; None for a Config.
    secret: Mapping[str, object] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateContainer(Action):
    """Create the replica ``target`` of ``service`` in ``slot``, from image ``image``."""

    verb: ClassVar[str] = "create-container"
    service: Service
    image: str
    #: True: the container joins its networks with the alias of the service's name. False: it joins
    #: without, and gets the alias later by a disconnect and a connect for each network.
    with_alias: bool = True
    #: Why a job's run is made, and ``slot`` is the run's number; '' for a replica.
    occasion: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveService(Action):
    """Let the containers of the service ``source`` go on under the name ``target``."""

    verb: ClassVar[str] = "move-service"
    source: Key
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer(Action):
    """Start a container."""

    verb: ClassVar[str] = "start-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateContainer(Action):
    """Change the restart policy or the limits of a container."""

    verb: ClassVar[str] = "update-container"
    restart: str = ""  # '' for no change
    restart_max: int = 0
    #: The new limits, by their names in ``Settings``.
    limits: Mapping[str, LimitValue] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopContainer(Action):
    """Stop a container within ``grace_s`` seconds."""

    verb: ClassVar[str] = "stop-container"
    grace_s: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalContainer(Action):
    """Send a container the signal after a changed content."""

    verb: ClassVar[str] = "signal-container"
    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpauseContainer(Action):
    """Unpause a container."""

    verb: ClassVar[str] = "unpause-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameContainer(Action):
    """Restore a container's own name, ``name``."""

    verb: ClassVar[str] = "rename-container"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectNetwork(Action):
    """Connect a container to an admitted network, with ``aliases`` in addition to its name."""

    verb: ClassVar[str] = "connect-network"
    network: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectNetwork(Action):
    """Disconnect a container from a network."""

    verb: ClassVar[str] = "disconnect-network"
    network: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveContainer(Action):
    """Remove a container without a running process: stopped, dead or never started.

    Volumes are kept, anonymous ones too.
    """

    verb: ClassVar[str] = "remove-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(Action):
    """Base of the four actions without an engine call. All of them print as ``wait``."""

    verb: ClassVar[str] = "wait"
    #: The services that must change first, if any.
    on: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Barrier(Wait):
    """End the sequence of a key until ``target`` is available or the services ``on`` are ready.

    A plan shows the actions that follow the barrier. A pass performs them only after the barrier
    has opened.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay(Wait):
    """Leave a slot alone in this pass: backoff, a removal in progress, or a service in ``on``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineWait(Wait):
    """Keep a stopped container until its quarantine ends. Nothing is pending meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsOperator(Wait):
    """Leave a slot alone until a person changes something; time does not help."""

    #: The reason code of the condition Stalled.
    code: str


#: An action on a container, which exists by then; ``target`` is its name.
ContainerChange = (
    StartContainer
    | UpdateContainer
    | StopContainer
    | SignalContainer
    | UnpauseContainer
    | RenameContainer
    | ConnectNetwork
    | DisconnectNetwork
    | RemoveContainer
)
#: The actions that repair a container in place.
IN_PLACE = (UpdateContainer, UnpauseContainer, RenameContainer, ConnectNetwork, DisconnectNetwork)

Creation = PullImage | CreateNetwork | CreateVolume | DeliverFiles | CreateContainer
AnyWait = Barrier | Delay | QuarantineWait | NeedsOperator
AnyAction = Creation | RemoveNetwork | RemoveVolume | MoveService | ContainerChange | AnyWait


@dataclass(frozen=True, slots=True)
class Blocked:
    """A resource whose removal the prune guard blocks."""

    key: Key
    code: str  # PrunePending
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in order.

    The actions of one service are a sequence. Different services are independent.
    """

    actions: tuple[AnyAction, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    #: The overridden services; nothing is pending for them.
    holds: tuple[OverrideReason, ...] = ()
    problems: tuple[Problem, ...] = field(default=())
    #: False if part of the desired state is blind.
    complete: bool = True
    digest: str = ""
    # Built at the first call of ``of``: a status report calls it several times for each resource.
    _by_key: dict[Key, tuple[AnyAction, ...]] | None = field(
        init=False, repr=False, compare=False, default=None
    )

    def of(self, key: Key) -> tuple[AnyAction, ...]:
        index = self._by_key
        if index is None:
            index = self._indexed()
            # Assigned when complete, so no other thread sees a partial index.
            object.__setattr__(self, "_by_key", index)
        return index.get(key, ())

    def _indexed(self) -> dict[Key, tuple[AnyAction, ...]]:
        by_key: dict[Key, list[AnyAction]] = {}
        for action in self.actions:
            by_key.setdefault(action.object, []).append(action)
        return {key: tuple(actions) for key, actions in by_key.items()}

    @property
    def pending(self) -> tuple[AnyAction, ...]:
        """The actions without quarantine waits: a container in quarantine is as desired."""
        return tuple(action for action in self.actions if not isinstance(action, QuarantineWait))


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
