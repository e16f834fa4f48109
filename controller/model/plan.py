"""A plan: every action to convergence if each succeeds, each with its cause and precondition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from controller.model.desired import Service
from controller.model.errors import Problem
from controller.model.names import Key


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of one mutation. ``rules`` are the ids of the rules that decided."""

    decision: Literal["allow", "mutate", "deny", "audit-deny"]
    rules: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""
    mutations: tuple[str, ...] = ()  # what was injected, a sentence each


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
    """Create the replica ``target`` of ``service`` in ``slot``, from image ``image``."""

    verb: ClassVar[str] = "create-container"
    service: Service
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer(Action):
    """Start a container."""

    verb: ClassVar[str] = "start-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateContainer(Action):
    """Set a container's restart policy (before a deliberate stop, or with a start after one)."""

    verb: ClassVar[str] = "update-container"
    restart: str
    restart_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StopContainer(Action):
    """Stop a container; ``grace_s`` is how long it may take, in seconds."""

    verb: ClassVar[str] = "stop-container"
    grace_s: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveContainer(Action):
    """Remove a stopped (or dead, or never started) container. Volumes stay, anonymous ones too."""

    verb: ClassVar[str] = "remove-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(Action):
    """Nothing to call: something else must happen first (an engine's restart, a backoff)."""

    verb: ClassVar[str] = "wait"


AnyAction = (
    PullImage
    | CreateNetwork
    | RemoveNetwork
    | CreateVolume
    | CreateContainer
    | StartContainer
    | UpdateContainer
    | StopContainer
    | RemoveContainer
    | Wait
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

    ``complete`` is false when part of the desired state is blind.
    """

    actions: tuple[AnyAction, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    problems: tuple[Problem, ...] = field(default=())
    complete: bool = True
    digest: str = ""

    def of(self, key: Key) -> tuple[AnyAction, ...]:
        """Return the actions on one key."""
        return tuple(action for action in self.actions if action.object == key)
