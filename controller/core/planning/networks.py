"""Networks in plans: unused ones are removed, and changed ones are remade.

The remake of a network: an engine changes the settings of a network only by a new network.

All containers leave the network, the network is removed and created as declared, and the containers
join again under their names. The actions form one group (``core.drift.actions.atomic_groups``): the
group begins only if the policy, the retries and the disruption budget allow all of it. After a death
in the middle, the passes of the services connect their containers to the network that exists by
then, and the next pass of the network begins again.

Nothing is disconnected while a container on the network must stay as it is: a container of somebody
else, of a client, of a suspended service, or of an unreadable document. A running job ends first.

Unused networks: networks of the instance that no document, service or container needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from controller.core.drift.actions import (
    ContainerHandle,
    Judge,
    is_denied,
    judged_whole,
    names_at_join,
    stop_for_good,
)
from controller.core.drift.classify import ALIVE
from controller.core.engine_api.create_body import joined_networks
from controller.core.planning.images_networks_volumes import (
    OutdatedNetwork,
    network_creation,
    network_key,
)
from controller.core.planning.service_order import Blocker
from controller.model.desired.desired import Desired
from controller.model.desired.plan import (
    AnyAction,
    Delay,
    DisconnectNetwork,
    RemoveContainer,
    RemoveNetwork,
)
from controller.model.errors import Problem
from controller.model.names import Key, NetworkNames
from controller.model.observed import Container, ContainerState, Observed, ObservedNetwork
from controller.model.records import Precondition

#: How long one request takes, in seconds: a disconnect and a connect for each container.
STEP_S = 0.2
_NAMED = 5


@dataclass(frozen=True, slots=True)
class NetworkRemake:
    """The plan of a remake: actions, a wait, or a problem."""

    actions: list[AnyAction] = field(default_factory=list)
    problem: Problem | None = None

    @property
    def is_complete(self) -> bool:
        """Return True if the actions make the network as declared."""
        return any(isinstance(a, RemoveNetwork) and not is_denied(a) for a in self.actions)


def plan_remake(
    outdated: OutdatedNetwork,
    containers: Iterable[Container],
    *,
    desired: Desired,
    sequence: Mapping[Key, int],
    judge: Judge,
) -> NetworkRemake:
    """Return the plan to remake a network.

    *containers* are all of the instance. *sequence* has the place of each service in start order:
    dependents leave first, and join last.
    """
    name = outdated.observed.name
    ordered = sorted(containers, key=lambda c: (sequence.get(c.key, -1), c.key, c.slot, c.id))
    there = [c for c in ordered if name in c.settings.networks]
    if problem := _obstacle(outdated, there, desired):
        return NetworkRemake(problem=problem)
    members = [c for c in there if c.origin == "controller" and not _is_ended_run(c)]
    if busy := [c for c in members if _must_end_first(c)]:
        return NetworkRemake([_wait(outdated, busy[0], "has ended")])
    if apart := [c for c in ordered if _is_missing_from(name, c)]:
        return NetworkRemake([_wait(outdated, apart[0], f"is on {name} again")])
    leaving = members[::-1]
    # One that the engine is just restarting can leave no network: the service starts it again.
    crashing = [c for c in leaving if c.state is ContainerState.RESTARTING]
    why = f"{name} is remade: {outdated.why}"
    losers = list(dict.fromkeys(c.key.name for c in members if c.state in ALIVE))
    if losers:
        verb = "loses" if len(losers) == 1 else "lose"
        why += f"; {_listed(losers)} {verb} the network for about {_seconds(len(members))} s"
    key = outdated.declared.key
    handles = {c.id: replace(ContainerHandle.of(c), key=key, slot=0) for c in members}
    ends = chain.from_iterable(stop_for_good(c, None, why) for c in crashing)
    actions: list[AnyAction] = [
        *(replace(end, object=key, slot=0) for end in ends),
        *(handles[c.id].disconnect(name, why) for c in leaving),
        RemoveNetwork(
            object=key,
            target=name,
            cause=why,
            precondition=Precondition(id=outdated.observed.id),
        ),
        network_creation(outdated.declared, why),
        *(handles[c.id].connect(name, _names_on(c, name), why) for c in members),
    ]
    return NetworkRemake(judged_whole(actions, judge)[0])


def remake_blocker(outdated: OutdatedNetwork | None) -> Blocker | None:
    """Return the wait of a new container for a network that is to be remade.

    The wait names no other resource, so time ends it: passes of a network wake no service.
    """
    if outdated is None:
        return None
    return Blocker(f"waiting until {outdated.observed.name} is remade: {outdated.why}", ())


def services_cut_off(actions: Iterable[AnyAction], observed: Observed | None) -> frozenset[Key]:
    """Return the services that the actions of a remake disconnect for a while."""
    if observed is None:
        return frozenset()
    left = (a for a in actions if isinstance(a, DisconnectNetwork) and a.object.kind == "Network")
    found = (observed.find(action.precondition.id) for action in left)
    return frozenset(container.key for container in found if container and container.running)


def _listed(names: list[str]) -> str:
    """Return names as a list in words, the first few of many."""
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    *shown, last = [*names[:_NAMED], *more]
    return f"{', '.join(shown)} and {last}" if shown else last


def _names_on(container: Container, network: str) -> tuple[str, ...]:
    """Return the names of a container for the join: all names, or no name as before."""
    asked = dict(container.aliases).get(network, ())
    if not {container.key.name, container.former} & set(asked):
        return ()
    return names_at_join(container, network)


def _seconds(count: int) -> int:
    return math.ceil((2 * count + 2) * STEP_S)


def _is_ended_run(container: Container) -> bool:
    """Return True for the container of an ended run: it never starts again."""
    started = container.state is not ContainerState.CREATED
    return container.key.kind == "Job" and started and container.state not in ALIVE


def _must_end_first(container: Container) -> bool:
    runs = container.key.kind == "Job" and container.state in ALIVE
    return runs or container.state is ContainerState.REMOVING


def _is_missing_from(network: str, container: Container) -> bool:
    """Return True if a running container lacks a network; the service's pass connects the container.

    The gate keeps a network unless its containers left by a counted disconnect.
    """
    admitted = () if container.admitted is None else container.admitted.networks
    mine = container.origin == "controller" and container.state in ALIVE
    return mine and network in admitted and network not in container.settings.networks


def _wait(outdated: OutdatedNetwork, container: Container, condition: str) -> Delay:
    name = outdated.observed.name
    cause = f"{name} is remade once {container.name} {condition}: {outdated.why}"
    return Delay(object=outdated.declared.key, target=name, cause=cause)


def _obstacle(
    outdated: OutdatedNetwork, there: list[Container], desired: Desired
) -> Problem | None:
    """Return why containers on a network must stay as they are; None if all can be reconnected."""
    # A stopped container keeps the id of the removed network, and would not start again.
    clients = [c for c in there if c.origin != "controller"]
    others = outdated.observed.outsiders - sum(c.state in ALIVE for c in clients)
    suspended = {str(c.key) for c in there if c.key in desired.suspended}
    unread = {str(c.key) for c in there if desired.is_unread(c.key)}
    if others > 0 or clients:
        names = sorted(c.name for c in clients)[:_NAMED]
        shown = [*names, *([f"{others} of others"] if others > 0 else [])]
        whose = f"containers that trimtab doesn't supervise are on it ({', '.join(shown)})"
        remedy = f"disconnect them: docker network disconnect {outdated.observed.name} CONTAINER"
    elif suspended:
        whose = f"suspended services are on it: {_listed(sorted(suspended))}"
        remedy = "resume them: trimtab resume NAME"
    elif unread:
        whose = f"services with unreadable documents are on it: {_listed(sorted(unread))}"
        remedy = "correct the documents"
    else:
        return None
    declared = outdated.declared
    return Problem(
        code="network.in-use",
        message=f"{outdated.observed.name} can't be remade ({outdated.why}): {whose}",
        file=declared.source.file,
        line=declared.source.line,
        remedy=f"{remedy}, or give the new network another name",
        key=declared.key,
    )


def unused_networks(
    desired: Desired, observed: Observed, names: NetworkNames, actions: Iterable[AnyAction]
) -> list[ObservedNetwork]:
    """Return the instance's networks that are unused once *actions* are done.

    Leave networks out while a document is blind, or the directory is missing or has no document:
    then the network of an unread service would look unused. With Git sources, that holds for each
    namespace by itself.
    """
    if not desired.scopes and (desired.blind_keys or not desired.whole):
        return []
    needed = {network.engine_name for network in desired.networks}
    for service in desired.workloads:
        needed.update(joined_networks(service, names))
    for released in observed.foreign:
        needed.update(released.networks)
    removed = {
        a.precondition.id for a in actions if isinstance(a, RemoveContainer) and not is_denied(a)
    }
    leaving = [c for c in observed.containers if c.id in removed]
    for container in observed.containers:
        # The engine lists only the running containers of a network. A stopped one needs it, too.
        if container.id not in removed:
            needed.update(container.settings.networks)
    return [
        network
        for network in sorted(observed.networks, key=lambda n: (network_key(n), n.id))
        if network.ours and network.origin == "controller" and network.name not in needed
        # An adopted network existed before, and outlives its document.
        if not network.adopted
        if not desired.scopes or _is_surely_unused(network_key(network), desired)
        if network.containers
        <= sum(network.name in c.settings.networks and c.state in ALIVE for c in leaving)
    ]


def possibly_unused(before: Observed, after: Observed, key: Key) -> tuple[Key, ...]:
    """Return the networks that *key* can have left unused between two snapshots.

    Containers of *key* left them, or a pass of *key* created them for a container that never ran. A document
    or a stopped container can still need such a network: the plan of the network decides.
    """
    left = {name for each in before.of(key) for name in each.settings.networks}
    left -= {name for each in after.of(key) for name in each.settings.networks}
    known = {network.id for network in before.networks}
    return tuple(
        network_key(network)
        for network in after.networks
        if network.ours and not network.containers and network_key(network) != key
        if network.name in left or network.id not in known
    )


def _is_surely_unused(key: Key, desired: Desired) -> bool:
    unread = any(blind.namespace == key.namespace for blind in desired.blind_keys)
    unread = unread or key.namespace in desired.blind_namespaces
    return not unread and all(scope.whole for scope in desired.scopes_of(key))


def removal_of(network: ObservedNetwork) -> RemoveNetwork:
    """Return the action to remove an unused network."""
    return RemoveNetwork(
        object=network_key(network),
        target=network.name,
        cause="no service uses it any more",
        precondition=Precondition(id=network.id),
    )
