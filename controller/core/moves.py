"""Moves: the actions on one container, each with its precondition, and the verdicts on them.

A deliberate stop first takes the restart policy away, so that an engine that restarts between a
stop and the removal doesn't revive what was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from controller.core.diff import ALIVE
from controller.core.translate import stop_timeout_s
from controller.model.desired import Service
from controller.model.names import Key
from controller.model.observed import Container, ContainerState
from controller.model.plan import (
    AnyAction,
    CreateContainer,
    Precondition,
    RemoveContainer,
    StartContainer,
    StopContainer,
    UpdateContainer,
    Verdict,
    Wait,
)

#: The engine's own grace, for a container that was created without one.
DEFAULT_GRACE_S = 10

Judge = Callable[[AnyAction], Verdict]


@dataclass(frozen=True, slots=True)
class Handle:
    """A container that actions act on: one that was observed, or one that the plan creates."""

    key: Key
    name: str
    slot: int
    precondition: Precondition

    @classmethod
    def seen(cls, container: Container) -> Handle:
        """Return the handle of an observed container: acted on by its full id only."""
        precondition = Precondition(id=container.id, revision=container.revision)
        return cls(container.key, container.name, container.slot, precondition)

    @classmethod
    def planned(cls, create: CreateContainer) -> Handle:
        """Return the handle of a container whose id isn't known before it is created."""
        precondition = Precondition(revision=create.service.revision)
        return cls(create.object, create.target, create.slot, precondition)

    def start(self, cause: str) -> StartContainer:
        """Return the action that starts it."""
        return StartContainer(
            object=self.key,
            target=self.name,
            cause=cause,
            slot=self.slot,
            precondition=self.precondition,
        )

    def restart(self, policy: tuple[str, int], cause: str) -> UpdateContainer:
        """Return the action that sets its restart policy."""
        return UpdateContainer(
            object=self.key,
            target=self.name,
            cause=cause,
            slot=self.slot,
            precondition=self.precondition,
            restart=policy[0],
            restart_max=policy[1],
        )

    def stop(self, grace_s: int, cause: str) -> StopContainer:
        """Return the action that stops it."""
        return StopContainer(
            object=self.key,
            target=self.name,
            cause=cause,
            slot=self.slot,
            precondition=self.precondition,
            grace_s=grace_s,
        )

    def remove(self, cause: str) -> RemoveContainer:
        """Return the action that removes it."""
        return RemoveContainer(
            object=self.key,
            target=self.name,
            cause=cause,
            slot=self.slot,
            precondition=self.precondition,
        )


def wait(key: Key, *, target: str, slot: int, cause: str) -> Wait:
    """Return a wait: nothing to call for that slot now."""
    return Wait(object=key, target=target, cause=cause, slot=slot)


def halt(container: Container, service: Service | None, cause: str) -> list[AnyAction]:
    """Return what stops a container for good: an engine that restarts must not revive it."""
    handle, actions = Handle.seen(container), list[AnyAction]()
    if container.settings.restart != "no":
        actions.append(handle.restart(("no", 0), cause))
    if container.state in ALIVE:
        grace_s = container.stop_grace_s
        if grace_s is None:
            grace_s = DEFAULT_GRACE_S if service is None else stop_timeout_s(service.spec)
        actions.append(handle.stop(grace_s, cause))
    return actions


def retire(container: Container, service: Service | None, cause: str) -> list[AnyAction]:
    """Return what stops and removes a container."""
    if container.state is ContainerState.REMOVING:
        cause = f"{container.name} is being removed"
        return [wait(container.key, target=container.name, slot=container.slot, cause=cause)]
    stop = halt(container, service, cause) if container.state in ALIVE else []
    return [*stop, Handle.seen(container).remove(cause)]


def judged(actions: Iterable[AnyAction], judge: Judge) -> list[AnyAction]:
    """Return the actions with their verdicts; a wait mutates nothing, so nobody judges it."""
    return [a if isinstance(a, Wait) else replace(a, verdict=judge(a)) for a in actions]


def denied(action: AnyAction) -> bool:
    """Tell whether policy refuses an action."""
    return action.verdict.decision == "deny"


def until_denied(actions: Sequence[AnyAction]) -> list[AnyAction]:
    """Return a sequence up to and with its first denied action: what follows depends on it."""
    for index, action in enumerate(actions):
        if denied(action):
            return list(actions[: index + 1])
    return list(actions)
