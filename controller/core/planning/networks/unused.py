"""Unused networks: networks of the instance that no document, service or container needs."""

from __future__ import annotations

from collections.abc import Iterable

from controller.core.drift.actions import is_denied
from controller.core.drift.classify import ALIVE
from controller.core.engine_api.create_body import joined_networks
from controller.core.planning.images_networks_volumes import network_key
from controller.model.desired.desired import Desired
from controller.model.desired.plan import AnyAction, RemoveContainer, RemoveNetwork
from controller.model.names import Key, NetworkNames
from controller.model.observed import Observed, ObservedNetwork
from controller.model.records import Precondition


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
