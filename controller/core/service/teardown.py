"""The actions of ``down``: remove everything of the instance except volumes.

Like the planner, this decides from the observed state. The desired state only gives the teardown
order, as far as it is known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from controller.core.drift.actions import ContainerHandle
from controller.core.drift.classify import ALIVE
from controller.core.encoding import graph
from controller.model.desired.plan import AnyAction, RemoveNetwork
from controller.model.names import Key
from controller.model.observed import Container, Observed
from controller.model.records import Precondition

CAUSE = "the instance is taken down"


def teardown(
    observed: Observed, *, depends: Mapping[Key, Collection[Key]], grace_s: int = 10
) -> tuple[tuple[AnyAction, ...], ...]:
    """Return the actions that remove all containers, and then all networks, of the instance.

    The actions come in waves; each wave begins after the one before. Services precede their
    dependencies, as *depends* has them. Containers within a wave are independent.
    """
    keys = {container.key for container in observed.containers}
    containers = sorted(observed.containers, key=lambda c: (c.key, c.slot, c.name))
    waves = [
        tuple(a for c in containers if c.key in wave for a in _removal(c, grace_s=grace_s))
        for wave in graph.waves({key: depends.get(key, ()) for key in keys})
    ]
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


def _removal(container: Container, *, grace_s: int) -> Iterator[AnyAction]:
    precondition = Precondition(id=container.id)
    handle = ContainerHandle(container.key, container.name, container.slot, precondition)
    if container.state in ALIVE:
        if container.settings.restart != "no":
            # An engine that restarts between stop and removal must not start the container.
            yield handle.set_restart_policy(("no", 0), CAUSE)
        yield handle.stop(grace_s, CAUSE)
    yield handle.remove(CAUSE)
