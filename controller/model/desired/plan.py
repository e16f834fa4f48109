"""A plan: every action to convergence if each succeeds, each with its cause and precondition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from controller.model.desired.desired import OverrideReason, Service
from controller.model.errors import Problem
from controller.model.names import Key


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of one mutation. ``rules`` are the ids of the rules that decided.

    ``problems`` are the findings one by one, at their places in the document, where the mutation
    comes from one.
    """

    decision: Literal["allow", "mutate", "deny", "audit-deny"]
    rules: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""
    mutations: tuple[str, ...] = ()  # what was injected, a sentence each
    problems: tuple[Problem, ...] = ()


ALLOW = Verdict("allow")


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must hold right before the action: an object's absence by name, or its id and revision."""

    absent: str = ""
    id: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One engine call, or a wait. ``target`` is the name of the object that it acts on."""

    object: Key
    target: str
    cause: str
    slot: int = 0
    precondition: Precondition = Precondition()
    verdict: Verdict = ALLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class PullImage(Action):
    """Pull ``target``, a reference."""

    verb: ClassVar[str] = "pull-image"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateNetwork(Action):
    """Make a network of ours; ``masquerade`` and ``icc`` are bridge options."""

    verb: ClassVar[str] = "create-network"
    owner: str
    internal: bool = True
    masquerade: bool = True
    icc: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNetwork(Action):
    """Remove a network of ours that nothing is attached to."""

    verb: ClassVar[str] = "remove-network"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVolume(Action):
    """Make a named volume of ours."""

    verb: ClassVar[str] = "create-volume"
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateContainer(Action):
    """Create the replica ``target`` of ``service`` in ``slot``, from image ``image``.

    Unless it is ``announced``, its networks don't know it by its service's name yet: it joins them
    without that alias, and gets it by leaving and joining each.
    """

    verb: ClassVar[str] = "create-container"
    service: Service
    image: str
    announced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer(Action):
    """Start a container."""

    verb: ClassVar[str] = "start-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateContainer(Action):
    """Change a living container: its restart policy ('': as it is), its limits (None: as they are).

    Bytes, nano-CPUs, microseconds. A CPU set isn't among them: the gate admits none.
    """

    verb: ClassVar[str] = "update-container"
    restart: str = ""
    restart_max: int = 0
    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    nano_cpus: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_shares: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopContainer(Action):
    """Stop a container; ``grace_s`` is how long it may take, in seconds."""

    verb: ClassVar[str] = "stop-container"
    grace_s: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpauseContainer(Action):
    """Thaw a container that is frozen."""

    verb: ClassVar[str] = "unpause-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameContainer(Action):
    """Give a container its own name back: ``name``."""

    verb: ClassVar[str] = "rename-container"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectNetwork(Action):
    """Join a container to a network that it was admitted with, as ``aliases`` beside its name."""

    verb: ClassVar[str] = "connect-network"
    network: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectNetwork(Action):
    """Take a container off a network."""

    verb: ClassVar[str] = "disconnect-network"
    network: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveContainer(Action):
    """Remove a stopped (or dead, or never started) container. Volumes stay, anonymous ones too."""

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
class Retention(Wait):
    """Keep a stopped container until its quarantine ends. Nothing is pending meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsOperator(Wait):
    """Leave a slot alone until a person changes something; time does not help."""

    #: The reason code of the condition Stalled.
    code: str


AnyAction = (
    PullImage
    | CreateNetwork
    | RemoveNetwork
    | CreateVolume
    | CreateContainer
    | StartContainer
    | UpdateContainer
    | StopContainer
    | UnpauseContainer
    | RenameContainer
    | ConnectNetwork
    | DisconnectNetwork
    | RemoveContainer
    | Barrier
    | Delay
    | Retention
    | NeedsOperator
)

#: What is done to a container that exists, or will by then; ``target`` is its name.
ContainerChange = (
    StartContainer
    | UpdateContainer
    | StopContainer
    | UnpauseContainer
    | RenameContainer
    | ConnectNetwork
    | DisconnectNetwork
    | RemoveContainer
)


@dataclass(frozen=True, slots=True)
class Blocked:
    """Something that would be removed, and isn't: the prune guard's word."""

    key: Key
    code: str  # PrunePending
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in order; one service's are a sequence, different services' are independent.

    ``complete`` is false when part of the desired state is blind. ``holds`` are what people hold:
    nothing is pending for them.
    """

    actions: tuple[AnyAction, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    holds: tuple[OverrideReason, ...] = ()
    problems: tuple[Problem, ...] = field(default=())
    complete: bool = True
    digest: str = ""

    def of(self, key: Key) -> tuple[AnyAction, ...]:
        """Return the actions on one key."""
        return tuple(action for action in self.actions if action.object == key)

    @property
    def pending(self) -> tuple[AnyAction, ...]:
        """The actions without retentions: a kept container is in its desired state."""
        return tuple(action for action in self.actions if not isinstance(action, Retention))
