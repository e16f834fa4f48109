"""The actions of ``down`` and ``stop``: remove or stop everything of an instance, or of services.

Like the planner, this decides from the observed state. The desired state only gives the teardown
order, as far as it is known. Volumes stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from controller.core.drift.actions import ContainerHandle, stop_and_remove, stop_for_good
from controller.core.drift.classify import ALIVE
from controller.core.encoding import graph
from controller.model.desired.plan import AnyAction, RemoveNetwork
from controller.model.names import Key
from controller.model.observed import Container, ContainerState, Observed
from controller.model.records import Precondition

CAUSE = "the instance is taken down"


def teardown(
    observed: Observed, *, depends: Mapping[Key, Collection[Key]], grace_s: int = 10
) -> tuple[tuple[AnyAction, ...], ...]:
    """Return the actions that remove all containers, and then all networks, of the instance.

    The actions come in waves; each wave begins after the one before. Services precede their
    dependencies, as *depends* has them. Containers within a wave are independent.
    """
    waves = _waves(
        observed.containers, depends, lambda container: _removal(container, grace_s=grace_s)
    )
    networks = sorted((n for n in observed.networks if n.ours), key=lambda n: n.name)
    removals = tuple(
        RemoveNetwork(
            object=Key("Network", network.namespace or "default", network.name),
            target=network.name,
            cause=CAUSE,
            precondition=Precondition(id=network.id),
        )
        for network in networks
    )
    return (*waves, removals)


def services_down(
    observed: Observed,
    keys: Collection[Key],
    *,
    depends: Mapping[Key, Collection[Key]],
    remove: bool,
    cause: str,
) -> list[tuple[AnyAction, ...]]:
    """Return the actions that stop the containers of services for good, or *remove* them, in waves.

    A stop takes the container's own grace period. A stopped container stays down after a restart of
    the engine.
    """
    chosen = [
        container
        for container in observed.containers
        if container.key in keys and container.origin == "controller"
        if container.state is not ContainerState.REMOVING
    ]
    if remove:
        return _waves(chosen, depends, lambda each: stop_and_remove(each, None, cause))
    alive = [container for container in chosen if container.state in ALIVE]
    return _waves(alive, depends, lambda each: stop_for_good(each, None, cause))


def _waves(
    containers: Iterable[Container],
    depends: Mapping[Key, Collection[Key]],
    actions_of: Callable[[Container], Iterable[AnyAction]],
) -> list[tuple[AnyAction, ...]]:
    """Return the actions on containers in waves: services precede their dependencies."""
    ordered = sorted(containers, key=lambda c: (c.key, c.slot, c.name))
    keys = {container.key for container in ordered}
    return [
        tuple(action for each in ordered if each.key in wave for action in actions_of(each))
        for wave in graph.waves({key: depends.get(key, ()) for key in keys})
    ]


def _removal(container: Container, *, grace_s: int) -> Iterator[AnyAction]:
    precondition = Precondition(id=container.id)
    handle = ContainerHandle(container.key, container.name, container.slot, precondition)
    if container.state in ALIVE:
        if container.settings.restart != "no":
            # An engine that restarts between stop and removal must not start the container.
            yield handle.set_restart_policy(("no", 0), CAUSE)
        yield handle.stop(grace_s, CAUSE)
    yield handle.remove(CAUSE)
