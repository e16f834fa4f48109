"""Healing: the actions to undo alterations of a running container.

An alteration is a difference from the admitted settings (``core.drift.classify.alterations``).
``core.engine_api.comparable_fields`` has the alterations an engine can undo. Healing never restarts
a container, and never changes it beyond its admitted settings. The restart policy is not healed
here but in ``core.planning.slot_plan``: its value depends on whether the controller or the engine
restarts the container.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from controller.core.drift.actions import ContainerHandle
from controller.core.drift.classify import ADDRESSES, alterations, foreign_aliases, still_ignored
from controller.core.engine_api.comparable_fields import LIMITS, REQUIRED_LIMITS, member_text
from controller.model.desired import plan as actions
from controller.model.desired.desired import Service
from controller.model.errors import Problem, Severity
from controller.model.observed import Container, ContainerState, Settings

#: Limits that an update sends together: the engine refuses a memory limit above the swap limit.
_TOGETHER = frozenset({"memory", "memory_swap"})


def healed_by(action: actions.AnyAction) -> frozenset[str]:
    """Return the alterations undone by an action, by ``Alteration.what``."""
    match action:
        case actions.UpdateContainer():
            return frozenset(
                [*action.limits, *(("restart", "restart_max") if action.restart else ())]
            )
        case actions.UnpauseContainer():
            return frozenset({"paused"})
        case actions.RenameContainer():
            return frozenset({"name"})
        case actions.ConnectNetwork() | actions.DisconnectNetwork():
            return frozenset({"networks", "aliases", ADDRESSES})
        case actions.StartContainer():
            return frozenset({"stopped"})
        case _:
            return frozenset()


def heal(
    container: Container,
    *,
    with_alias: bool = True,
    joinable: Collection[str] | None = None,
    deferred: Collection[str] = (),
) -> tuple[actions.AnyAction, ...]:
    """Return the actions to heal a container, if ``is_healable`` is true; () without alterations.

    Disconnects come first, because they isolate the container. Updates come last, because an engine
    is most likely to refuse them.

    Args:
        container: a running or paused container.
        with_alias: the container may answer to its service's name on every network it joins.
            Otherwise only where it did before, or if another of its networks has the alias.
        joinable: the networks that exist or will exist; None for all. A container of an earlier
            revision may miss a network that nobody creates any more: joining it would fail in each
            pass, and the replacement of the container would never be reached.
        deferred: alterations to skip, by ``Alteration.what``. An extra network is never skipped.
    """
    admitted = container.admitted
    if admitted is None:
        return ()
    return (
        *_leave(container, admitted),
        *(_thaw(container) if "paused" not in deferred else ()),
        *_join(container, admitted, with_alias, joinable, deferred),
        *(_rename(container, admitted) if "name" not in deferred else ()),
        *_limit(container, admitted, deferred),
    )


def unknown_members(service: Service, containers: Iterable[Container]) -> tuple[Problem, ...]:
    """Return a problem if the engine shows container members unknown to this version."""
    members = sorted({member for container in containers for member in container.unknown})
    if not members:
        return ()
    message = (
        f"the engine shows {', '.join(members)} of {service.key.name}, which this version "
        "of trimtab doesn't know: it isn't compared, and left as it is"
    )
    return (_warning(service, "drift.unknown", message, "a newer trimtab may know it"),)


def ignored_settings(service: Service, containers: Iterable[Container]) -> tuple[Problem, ...]:
    """Return a problem if the engine dropped settings of a service's containers.

    Not of a limit that every container gets: the policy lets the engine ignore it.
    """
    members = sorted({name for each in containers for name in still_ignored(each)})
    members = [name for name in members if all(name not in m for m in REQUIRED_LIMITS.values())]
    if not members:
        return ()
    message = (
        f"the engine ignores {', '.join(map(member_text, members))} of "
        f"{service.key.name}: its containers run without"
    )
    remedy = "leave it out; or use an engine and a kernel that keep it, and restart the service"
    return (_warning(service, "engine.ignores", message, remedy),)


def taken_addresses(service: Service, containers: Iterable[Container]) -> tuple[Problem, ...]:
    """Return a problem for each container of others at the address of a slot that runs elsewhere."""
    problems = []
    for container in containers:
        for network, address, holder in container.holders if container.running else ():
            message = (
                f"the container {holder} has {address} on {network}, the address of slot "
                f"{container.slot} of {service.key.name}: {container.name} has another one"
            )
            remedy = (
                f"remove {holder}, or run it without --ip: clients that know the address reach it, "
                "until the slot takes its address back"
            )
            problems.append(_warning(service, "address.taken", message, remedy))
    return tuple(problems)


def _warning(service: Service, code: str, message: str, remedy: str) -> Problem:
    """Return a warning at the document of a service."""
    return Problem(
        code=code,
        message=message,
        file=service.source.file,
        line=service.source.line,
        remedy=remedy,
        severity=Severity.WARNING,
        key=service.key,
    )


def _leave(container: Container, admitted: Settings) -> Iterator[actions.AnyAction]:
    for network in container.settings.networks:
        if network not in admitted.networks:
            cause = f"{container.name} is in the network {network}, and wasn't admitted to it"
            yield ContainerHandle.of(container).disconnect(network, cause)


def _thaw(container: Container) -> Iterator[actions.AnyAction]:
    if container.state is ContainerState.PAUSED:
        yield ContainerHandle.of(container).unpause(f"{container.name} is paused")


def _join(
    container: Container,
    admitted: Settings,
    with_alias: bool,  # noqa: FBT001 - heal's own
    joinable: Collection[str] | None,
    deferred: Collection[str],
) -> Iterator[actions.AnyAction]:
    handle, name = ContainerHandle.of(container), container.key.name
    known = any(name in asked for _, asked in container.aliases)
    further = dict(container.admitted_aliases)
    networks = [n for n in admitted.networks if joinable is None or n in joinable]
    for network in networks:
        if network not in container.settings.networks and "networks" not in deferred:
            cause = f"{container.name} isn't in its network {network}"
            own = (name, *further.get(network, ())) if known or with_alias else ()
            yield handle.connect(network, own, cause)
    for network, names in foreign_aliases(container) if "aliases" not in deferred else ():
        if network not in networks:
            continue
        cause = f"{container.name} answers to {' and '.join(names)} on {network}"
        named = with_alias or name in dict(container.aliases)[network]
        yield handle.disconnect(network, cause)
        yield handle.connect(network, (name, *further.get(network, ())) if named else (), cause)


def _rename(container: Container, admitted: Settings) -> Iterator[actions.AnyAction]:
    if container.name != admitted.name:
        cause = f"{container.name} is called {admitted.name}, and names are final"
        yield ContainerHandle.of(container).rename(admitted.name, cause)


def _limit(
    container: Container, admitted: Settings, deferred: Collection[str]
) -> Iterator[actions.AnyAction]:
    limits = [
        each
        for each in alterations(container)
        if each.what in LIMITS and not _sent_with(each.what) & set(deferred)
    ]
    if not limits:
        return
    changed = frozenset().union(*(_sent_with(each.what) for each in limits))
    yield actions.UpdateContainer(
        object=container.key,
        target=container.name,
        cause="; ".join(each.why for each in limits),
        slot=container.slot,
        precondition=ContainerHandle.of(container).precondition,
        limits={name: getattr(admitted, name) for name in LIMITS if name in changed},
    )


def _sent_with(limit: str) -> frozenset[str]:
    return _TOGETHER if limit in _TOGETHER else frozenset({limit})
