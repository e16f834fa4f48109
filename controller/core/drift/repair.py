"""Healing: the actions that put an altered container back in place, where it stands.

An alteration is a difference from what was admitted (``core.drift.drift.alterations``); which of them an
engine can put back is ``core.engine_api.comparable_fields``'s to say. Nothing here restarts a container, and nothing
makes it other than it was admitted. Its restart policy isn't healed here: what it should be
depends on who restarts it (``core.planning.rollout``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from controller.core.drift.actions import ContainerHandle
from controller.core.drift.drift import alterations, foreign_aliases
from controller.model.desired.desired import Service
from controller.model.desired.plan import (
    AnyAction,
    ConnectNetwork,
    DisconnectNetwork,
    RenameContainer,
    StartContainer,
    UnpauseContainer,
    UpdateContainer,
)
from controller.model.errors import Problem, Severity
from controller.model.observed import Container, ContainerState, Settings

#: What an update sends together: the engine refuses a memory above a swap that it isn't told.
_TOGETHER = {
    "memory": ("memory", "memory_swap"),
    "memory_swap": ("memory", "memory_swap"),
    **{
        name: (name,)
        for name in (
            "memory_reservation",
            "nano_cpus",
            "cpu_quota",
            "cpu_period",
            "cpu_shares",
            "pids",
        )
    },
}


def healed_by(action: AnyAction) -> frozenset[str]:
    """Return which alterations of its container an action takes back, by their words."""
    match action:
        case UpdateContainer():
            limits = {name for name in _TOGETHER if getattr(action, name) is not None}
            return frozenset(limits | ({"restart", "restart_max"} if action.restart else set()))
        case UnpauseContainer():
            return frozenset({"paused"})
        case RenameContainer():
            return frozenset({"name"})
        case ConnectNetwork() | DisconnectNetwork():
            return frozenset({"networks", "aliases"})
        case StartContainer():
            return frozenset({"stopped"})
        case _:
            return frozenset()


def heal(
    container: Container,
    *,
    with_alias: bool = True,
    joining: bool = True,
    deferred: Collection[str] = (),
) -> tuple[AnyAction, ...]:
    """Return what puts a container back that ``diff.is_healable``; () for one that is as admitted.

    What isolates it comes first, what an engine is likeliest to refuse last.

    Args:
        container: one that runs or is paused.
        announced: it may answer to its service's name on what it joins; else only where it did, or
            if another of its networks knows it by that.
        joining: its networks are there to be joined; else that part is left for later.
        spared: alterations to be left for now, by their words; a network too many never is.
    """
    admitted = container.admitted
    if admitted is None:
        return ()
    return (
        *_leave(container, admitted),
        *(_thaw(container) if "paused" not in deferred else ()),
        *(_join(container, admitted, with_alias, deferred) if joining else ()),
        *(_rename(container, admitted) if "name" not in deferred else ()),
        *_limit(container, admitted, deferred),
    )


def unknown_members(service: Service, containers: Iterable[Container]) -> tuple[Problem, ...]:
    """Return that the engine shows of a service's containers what nobody here knows, if so."""
    members = sorted({member for container in containers for member in container.unknown})
    if not members:
        return ()
    problem = Problem(
        code="drift.unknown",
        message=f"the engine shows {', '.join(members)} of {service.key.name}, which this version "
        "of trimtab doesn't know: it isn't compared, and left as it is",
        file=service.source.file,
        line=service.source.line,
        remedy="a newer trimtab may know it",
        severity=Severity.WARNING,
        key=service.key,
    )
    return (problem,)


def _leave(container: Container, admitted: Settings) -> Iterator[AnyAction]:
    for network in container.settings.networks:
        if network not in admitted.networks:
            cause = f"{container.name} is in the network {network}, and wasn't admitted to it"
            yield ContainerHandle.of(container).disconnect(network, cause)


def _thaw(container: Container) -> Iterator[AnyAction]:
    if container.state is ContainerState.PAUSED:
        yield ContainerHandle.of(container).unpause(f"{container.name} is paused")


def _join(
    container: Container,
    admitted: Settings,
    with_alias: bool,  # noqa: FBT001 - heal's own
    deferred: Collection[str],
) -> Iterator[AnyAction]:
    handle, name = ContainerHandle.of(container), container.key.name
    known = any(name in asked for _, asked in container.aliases)
    for network in admitted.networks:
        if network not in container.settings.networks and "networks" not in deferred:
            cause = f"{container.name} isn't in its network {network}"
            yield handle.connect(network, (name,) if known or with_alias else (), cause)
    for network, names in foreign_aliases(container) if "aliases" not in deferred else ():
        cause = f"{container.name} answers to {' and '.join(names)} on {network}"
        kept = (name,) if with_alias or name in dict(container.aliases)[network] else ()
        yield handle.disconnect(network, cause)
        yield handle.connect(network, kept, cause)


def _rename(container: Container, admitted: Settings) -> Iterator[AnyAction]:
    if container.name != admitted.name:
        cause = f"{container.name} is called {admitted.name}, and names are final"
        yield ContainerHandle.of(container).rename(admitted.name, cause)


def _limit(
    container: Container, admitted: Settings, deferred: Collection[str]
) -> Iterator[AnyAction]:
    limits = [
        each
        for each in alterations(container)
        if each.what in _TOGETHER and not set(_TOGETHER[each.what]) & set(deferred)
    ]
    if not limits:
        return
    names = {name for each in limits for name in _TOGETHER[each.what]}
    update = UpdateContainer(
        object=container.key,
        target=container.name,
        cause="; ".join(each.why for each in limits),
        slot=container.slot,
        precondition=ContainerHandle.of(container).precondition,
    )
    yield replace(update, **{name: getattr(admitted, name) for name in names})
