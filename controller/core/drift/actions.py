"""Moves: the actions on one container, each with its precondition, and the verdicts on them.

A deliberate stop first takes the restart policy away, so that an engine that restarts between a
stop and the removal doesn't revive what was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from controller.core.drift.drift import ALIVE
from controller.core.engine_api.translate import stop_timeout_s
from controller.model.desired.desired import Service
from controller.model.desired.plan import (
    AnyAction,
    Barrier,
    ConnectNetwork,
    CreateContainer,
    Delay,
    DisconnectNetwork,
    Precondition,
    RemoveContainer,
    RenameContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
    Verdict,
    Wait,
)
from controller.model.names import Key
from controller.model.observed import Container, ContainerState

#: How the causes begin of the steps that make a container answer to its service's name.
TAKES_NAME = "takes the name"
#: The engine's own grace, for a container that was created without one.
DEFAULT_GRACE_S = 10

Judge = Callable[[AnyAction], Verdict]


class _OnIt(TypedDict):
    """What all actions on one container have in common."""

    object: Key
    target: str
    cause: str
    slot: int
    precondition: Precondition


@dataclass(frozen=True, slots=True)
class ContainerHandle:
    """A container that actions act on: one that was observed, or one that the plan creates."""

    key: Key
    name: str
    slot: int
    precondition: Precondition

    @classmethod
    def of(cls, container: Container) -> ContainerHandle:
        """Return the handle of an observed container: acted on by its full id only."""
        precondition = Precondition(id=container.id, revision=container.revision)
        return cls(container.key, container.name, container.slot, precondition)

    @classmethod
    def to_create(cls, create: CreateContainer) -> ContainerHandle:
        """Return the handle of a container whose id isn't known before it is created."""
        precondition = Precondition(revision=create.service.revision)
        return cls(create.object, create.target, create.slot, precondition)

    def _on_it(self, cause: str) -> _OnIt:
        return {
            "object": self.key,
            "target": self.name,
            "cause": cause,
            "slot": self.slot,
            "precondition": self.precondition,
        }

    def start(self, cause: str) -> StartContainer:
        """Return the action that starts it."""
        return StartContainer(**self._on_it(cause))

    def set_restart_policy(self, policy: tuple[str, int], cause: str) -> UpdateContainer:
        """Return the action that sets its restart policy."""
        return UpdateContainer(**self._on_it(cause), restart=policy[0], restart_max=policy[1])

    def stop(self, grace_s: int, cause: str) -> StopContainer:
        """Return the action that stops it."""
        return StopContainer(**self._on_it(cause), grace_s=grace_s)

    def unpause(self, cause: str) -> UnpauseContainer:
        """Return the action that thaws it."""
        return UnpauseContainer(**self._on_it(cause))

    def rename(self, name: str, cause: str) -> RenameContainer:
        """Return the action that gives it its own name back."""
        return RenameContainer(**self._on_it(cause), name=name)

    def connect(self, network: str, aliases: tuple[str, ...], cause: str) -> ConnectNetwork:
        """Return the action that joins it to a network."""
        return ConnectNetwork(**self._on_it(cause), network=network, aliases=aliases)

    def disconnect(self, network: str, cause: str) -> DisconnectNetwork:
        """Return the action that takes it off a network."""
        return DisconnectNetwork(**self._on_it(cause), network=network)

    def remove(self, cause: str) -> RemoveContainer:
        """Return the action that removes it."""
        return RemoveContainer(**self._on_it(cause))


def delay(key: Key, *, target: str, slot: int, cause: str) -> Delay:
    """Return an action that leaves *slot* alone in this pass."""
    return Delay(object=key, target=target, cause=cause, slot=slot)


def barrier(key: Key, *, target: str, slot: int, cause: str) -> Barrier:
    """Return a barrier that opens when *target* is available."""
    return Barrier(object=key, target=target, cause=cause, slot=slot)


def attach_service_alias(
    handle: ContainerHandle, service: Service, networks: Iterable[str]
) -> list[AnyAction]:
    """Return what makes a container answer to its service's name on *networks*.

    An alias is only taken at joining, so that it leaves each and joins it again.
    """
    actions: list[AnyAction] = []
    for network in networks:
        cause = f"{TAKES_NAME} {service.key.name} on {network}"
        actions.append(handle.disconnect(network, cause))
        actions.append(handle.connect(network, (service.key.name,), cause))
    return actions


def stop_for_good(container: Container, service: Service | None, cause: str) -> list[AnyAction]:
    """Return what stops a container for good: an engine that restarts must not revive it."""
    handle, actions = ContainerHandle.of(container), list[AnyAction]()
    if container.settings.restart != "no":
        actions.append(handle.set_restart_policy(("no", 0), cause))
    if container.state in ALIVE:
        grace_s = container.stop_grace_s
        if grace_s is None:
            grace_s = DEFAULT_GRACE_S if service is None else stop_timeout_s(service.spec)
        actions.append(handle.stop(grace_s, cause))
    return actions


def stop_and_remove(container: Container, service: Service | None, cause: str) -> list[AnyAction]:
    """Return what stops and removes a container."""
    if container.state is ContainerState.REMOVING:
        cause = f"{container.name} is being removed"
        return [delay(container.key, target=container.name, slot=container.slot, cause=cause)]
    stop = stop_for_good(container, service, cause) if container.state in ALIVE else []
    return [*stop, ContainerHandle.of(container).remove(cause)]


def atomic_groups(actions: Iterable[AnyAction]) -> list[tuple[AnyAction, ...]]:
    """Return a sequence cut into stretches, each of which is done whole or not begun.

    What goes down for something that comes up in its slot is one stretch with it, and so is a
    container's leaving of a network with its joining it again: ended in between, nothing would
    serve, and nobody might be there or be allowed to go on.
    """
    rest, found = list(actions), list[tuple[AnyAction, ...]]()
    while rest:
        count = _bound(rest)
        found.append(tuple(rest[:count]))
        rest = rest[count:]
    return found


def _bound(rest: Sequence[AnyAction]) -> int:
    """Return how many actions the first one of *rest* is bound to, itself counted."""
    first = rest[0]
    match first:
        case DisconnectNetwork():
            joins = (_joins_again(action, first) for action in rest[1:2])
            return 2 if any(joins) else 1
        case UpdateContainer(restart="no") if any(_stops(a, first.target) for a in rest[1:2]):
            return max(2, _until_start(rest))
        case StopContainer():
            return _until_start(rest)
        case _:
            return 1


def _joins_again(action: AnyAction, left: DisconnectNetwork) -> bool:
    same = action.target == left.target and action.object == left.object
    return same and isinstance(action, ConnectNetwork) and action.network == left.network


def _stops(action: AnyAction, target: str) -> bool:
    return isinstance(action, StopContainer) and action.target == target


def _until_start(rest: Sequence[AnyAction]) -> int:
    """Return how many actions it takes until the slot of the first one is started again."""
    for index, action in enumerate(rest):
        if action.object != rest[0].object or isinstance(action, Wait):
            return 1
        if isinstance(action, StartContainer) and action.slot == rest[0].slot:
            given_back = (
                isinstance(after, UpdateContainer) and after.target == action.target
                for after in rest[index + 1 : index + 2]
            )
            return index + 1 + any(given_back)
    return 1


def with_verdicts(actions: Iterable[AnyAction], judge: Judge) -> list[AnyAction]:
    """Return the actions with their verdicts; a wait mutates nothing, so nobody judges it."""
    return [a if isinstance(a, Wait) else replace(a, verdict=judge(a)) for a in actions]


def is_denied(action: AnyAction) -> bool:
    """Tell whether policy refuses an action."""
    return action.verdict.decision == "deny"


def refusals(actions: Iterable[AnyAction]) -> list[AnyAction]:
    """Return the denied actions that say something of their own.

    Those whose findings have places in a document come first; one that is denied by the same rules
    for the same object (the pull of an image, beside the create) is left out.
    """
    found = sorted(filter(is_denied, actions), key=lambda action: not action.verdict.problems)
    told: dict[Key, set[str]] = {}
    result: list[AnyAction] = []
    for action in found:
        rules, before = set(action.verdict.rules), told.setdefault(action.object, set())
        if not rules or not rules <= before:
            result.append(action)
        before |= rules
    return result


def until_denied(actions: Sequence[AnyAction]) -> list[AnyAction]:
    """Return a sequence up to and with its first denied action: what follows depends on it."""
    for index, action in enumerate(actions):
        if is_denied(action):
            return list(actions[: index + 1])
    return list(actions)
