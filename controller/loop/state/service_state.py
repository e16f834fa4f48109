"""The controller's knowledge of a resource besides the document and the engine's objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from controller.core.drift import failures
from controller.core.drift.availability import GoodSince, outlived
from controller.core.drift.contention import Contention
from controller.core.drift.failures import ExitCursor, SlotHistory
from controller.core.planning.planner import KeyPlan
from controller.core.planning.service_order import Ordering
from controller.core.service import rollout_progress
from controller.core.service.rollout_progress import RolloutProgress
from controller.core.status.facts import Failure
from controller.model.desired.desired import NO_OVERRIDES, Desired, Overrides, Service
from controller.model.desired.plan import Wait
from controller.model.errors import EngineError
from controller.model.names import Key, SlotKey
from controller.model.observed import Observed
from controller.model.records import Verdict

#: By field.
Contentions = Mapping[str, Contention]

#: Marks a field that ``state.json`` has. A restart loses all other fields, which costs waiting
#: times at most.
SAVED: Final = {"saved": True}


@dataclass(frozen=True, slots=True)
class Generation:
    """The generation of a resource: a counter of accepted changes of its spec."""

    #: The digest of the accepted spec.
    digest: str
    number: int = 1
    #: The last generation that was fully acted on.
    observed: int = 0


#: The identity of an action: verb, object, slot, revision or container or target, policy digest.
ActionKey = tuple[str, Key, int, str, str]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failed action."""

    #: Failures in a row.
    count: int
    error: EngineError
    #: When the action is tried again, on the monotonic clock.
    not_before: float
    #: The same instant on the wall clock, for people.
    retry_at: float


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a container, observed without an alteration by this controller."""

    started_at: str
    #: The monotonic times of its first and its last observation, in seconds.
    since: float
    seen: float


@dataclass(slots=True, eq=False)
class SlotMemory:
    """The state of one slot."""

    slot: SlotKey
    #: The failures.
    history: SlotHistory = field(default=failures.CLEAN, metadata=SAVED)
    #: The exits of the container that are counted already.
    exit_cursor: ExitCursor | None = field(default=None, metadata=SAVED)
    contentions: Contentions = field(default_factory=dict, metadata=SAVED)
    #: When exits were counted last, on the monotonic clock.
    counted_at: float = -math.inf
    #: The id of a container that can't be started any more, because a source of its mounts was
    #: replaced on the host; '' for none. A new container has the new source.
    outdated: str = ""
    #: When the last such container was found, on the monotonic clock.
    outdated_at: float = -math.inf

    def forget_failures(self) -> None:
        """Forget failures and contentions."""
        self.history, self.contentions = failures.CLEAN, {}


@dataclass(slots=True, eq=False)
class ServiceState:
    """The state of one resource. Passes of the key change it, and chores under the store's lock."""

    key: Key
    #: None if no spec was ever accepted.
    generation: Generation | None = field(default=None, metadata=SAVED)
    #: The overrides and kept revisions.
    overrides: Overrides = field(default=NO_OVERRIDES, metadata=SAVED)
    rollout: RolloutProgress = field(default=rollout_progress.NEW, metadata=SAVED)
    #: The dependencies of the service when it was last declared.
    dependencies: frozenset[Key] = field(default=frozenset(), metadata=SAVED)
    slots: dict[int, SlotMemory] = field(default_factory=dict, metadata=SAVED)

    #: The last plan; None: the key has to be planned.
    plan: KeyPlan | None = None
    #: The digest of a policy, a service, and the policy's verdict on the service's create.
    verdict: tuple[str, Service, Verdict] | None = None
    #: How the last pass failed. A changed spec ends the failure.
    failure: Failure | None = None
    #: The failure of the last pass; '' after a success.
    pass_error: str = ""
    #: The failed actions.
    attempts: dict[ActionKey, Attempt] = field(default_factory=dict)
    #: The waits of the last pass for other services.
    waits: tuple[Wait, ...] = ()
    #: True if the last pass waits for a person, another service or the engine: no deadline of the
    #: rollout runs meanwhile.
    awaits_others: bool = False
    #: Acting passes, failed observations, and unexpected exceptions in a row.
    acting: int = 0
    unobserved: int = 0
    crashes: int = 0
    #: The user who requested a pass, and the approved plan that passes are part of; '' for none.
    requested_by: str = ""
    approved_plan: str = ""
    #: Since when containers are healthy, by id.
    good_since: dict[str, GoodSince] = field(default_factory=dict)
    #: When the rollout was observed last, on the monotonic clock.
    advanced_at: float | None = None
    #: When the controller took the service down, on the monotonic clock; None: it isn't down.
    down_since: float | None = None
    #: The revision whose image was pulled, while no create was tried since; None for none.
    pulled: str | None = None
    #: The runs of the containers, by id.
    runs: dict[str, Run] = field(default_factory=dict)


def to_json(state: ServiceState | SlotMemory) -> dict[str, object]:
    """Return a state as text for people who look for a fault, without secrets of documents."""
    parts: dict[str, dict[str, object]] = {"saved": {}, "memory": {}}
    for each in fields(state):
        if each.name not in ("key", "slot"):
            part = parts["saved" if each.metadata else "memory"]
            part[each.name] = _shown(getattr(state, each.name))
    return {**parts}


def _shown(value: Any) -> object:
    match value:
        case KeyPlan():
            return [f"{a.verb} {a.target}: {a.cause}" for a in value.actions]
        case Overrides():  # its revisions have the values of variables
            return repr(replace(value, revisions=(), applied=None))
        case SlotMemory():
            return to_json(value)
        case (str(digest), Service(), Verdict() as verdict):
            return f"{verdict.decision} by {digest}"
        case dict():
            return {str(key): _shown(each) for key, each in value.items()}
        case bool() | int() | str() | None:
            return value
        case _:
            return repr(value)


def released_by(
    waiting: Mapping[Key, tuple[Wait, ...]], key: Key, order: Callable[[], Ordering]
) -> list[Key]:
    """Return the services to wake after a pass of *key*: *key* itself, or waiters for *key*.

    *waiting* has the waits of the services that wait.

    A service isn't woken only to wait for the same cause again: a dependency in a loop of
    failures wakes nothing.
    """
    concerned = {
        waiter: {wait.cause for wait in waits}
        for waiter, waits in waiting.items()
        if waiter == key or any(key in wait.on for wait in waits)
    }
    now = order() if concerned else None
    return [k for k, causes in concerned.items() if now and not causes <= now.causes(k)]


def followers_to_replace(
    key: Key, desired: Desired, observed: Observed | None, now: float
) -> list[Key]:
    """Return the services with containers to replace after a replacement or restart of *key*.

    By the last snapshot of everything. A pass records the snapshot from before the actions, so the next
    pass of *key* wakes the followers. The engine also restarts containers without any action.
    """
    if observed is None:
        return []
    followers = desired.followers.get(key, ())
    return [each.key for each in followers if outlived(each, desired, observed, observed, now)]
