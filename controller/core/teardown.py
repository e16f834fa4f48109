"""What ``down`` does: everything of the instance goes, except volumes.

A decision like the planner's, on what is observed alone: there is no desired state in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.model.names import Key
from controller.model.observed import Container, ContainerState, Observed
from controller.model.plan import (
    AnyAction,
    Precondition,
    RemoveContainer,
    RemoveNetwork,
    StopContainer,
    UpdateContainer,
)

CAUSE = "the instance is taken down"
#: States in which the engine has a process to stop.
ALIVE = (ContainerState.RUNNING, ContainerState.RESTARTING, ContainerState.PAUSED)


def teardown(observed: Observed, *, grace_s: int = 10) -> tuple[AnyAction, ...]:
    """Return the actions that remove all containers, and then all networks, that are ours."""
    containers = sorted(observed.containers, key=lambda c: (c.key, c.slot, c.name))
    networks = sorted((n for n in observed.networks if n.ours), key=lambda n: n.name)
    actions: list[AnyAction] = []
    for container in containers:
        actions += _removal(container, grace_s=grace_s)
    for network in networks:
        actions.append(
            RemoveNetwork(
                object=Key("Network", network.namespace or "default", network.name),
                target=network.name,
                cause=CAUSE,
                precondition=Precondition(id=network.id),
            )
        )
    return tuple(actions)


def _removal(container: Container, *, grace_s: int) -> Iterator[AnyAction]:
    precondition = Precondition(id=container.id)
    if container.state in ALIVE:
        if container.settings.restart != "no":
            # Or an engine that restarts between stop and removal would start it again.
            yield UpdateContainer(
                object=container.key,
                target=container.name,
                cause=CAUSE,
                slot=container.slot,
                precondition=precondition,
                restart="no",
            )
        yield StopContainer(
            object=container.key,
            target=container.name,
            cause=CAUSE,
            slot=container.slot,
            precondition=precondition,
            grace_s=grace_s,
        )
    yield RemoveContainer(
        object=container.key,
        target=container.name,
        cause=CAUSE,
        slot=container.slot,
        precondition=precondition,
    )
