"""Changes of a serving container: healing, other limits, and a restart if it is unhealthy.

An update of limits that takes no memory is done at once, in all slots. An update that takes memory
can end processes. Such updates go slot by slot, each after the container before has been available
for ``minHealthy``.
"""

from collections.abc import Iterable

from controller.core.drift.actions import (
    ContainerHandle,
    HandOver,
    heal,
    is_denied,
    stop_for_good,
    with_verdicts,
)
from controller.core.drift.availability import AvailabilityWord
from controller.core.drift.classify import (
    ADDRESSES,
    SlotState,
    alterations,
    misplaced,
    other_limits,
)
from controller.core.engine_api.comparable_fields import describe_limits
from controller.core.engine_api.create_body import aliases_on, joined_networks
from controller.core.planning.context import ServiceContext
from controller.model.desired.plan import AnyAction, ConnectNetwork, Delay
from controller.model.desired.spec.service import RestartPolicy
from controller.model.errors import Problem
from controller.model.names import spelled
from controller.model.observed import Container, ContainerState


def healing_actions(
    container: Container, context: ServiceContext, *, with_alias: bool
) -> tuple[list[AnyAction], tuple[Problem, ...]]:
    """Return the actions to heal a serving container, and problems with networks to join."""
    altered = [alteration.what for alteration in alterations(container)]
    if not altered:
        return [], ()  # nearly all containers
    prerequisites, service = context.prerequisites, context.service
    admitted = container.admitted.networks if container.admitted else ()
    missing = not set(admitted) <= set(container.settings.networks)
    problems = prerequisites.problems(service, creating=False) if missing else ()
    deferred = context.deferred_repairs(container.slot)
    joinable = frozenset() if problems else prerequisites.joinable(service)
    joinable -= context.plan_context.remaking
    actions = list(heal(container, with_alias=with_alias, joinable=joinable, deferred=deferred))
    joins = [i for i, action in enumerate(actions) if isinstance(action, ConnectNetwork)]
    at = joins[0] if joins else len(actions)
    # Networks are created only before the first join: isolation must not wait for them.
    created = prerequisites.missing(service, creating=False) if missing and joins else ()
    reasons = dict.fromkeys(deferred[what] for what in altered if what in deferred)
    delays = [
        Delay(object=service.key, target=container.name, slot=container.slot, cause=reason)
        for reason in reasons
    ]
    return [*actions[:at], *created, *actions[at:], *delays], problems


def _networks_without_alias(
    container: Container, context: ServiceContext, *, former_counts: bool = True
) -> tuple[str, ...]:
    """Return the networks on which a container lacks an alias of its service.

    A container of another revision has the service's name only: further names are unknown. An adopted one
    can have the service's name as a Compose file spells it, with ``_``: that suffices. A moved
    container keeps the former name until its replacement, since a new name would cut connections.
    *former_counts* is False where others of the slot serve under the present name.
    """
    service, base, aliases = context.service, context.prerequisites.names, dict(container.aliases)
    current = container.revision == service.revision
    wanted = {
        network: aliases_on(service, network, base) if current else (context.key.name,)
        for network in joined_networks(service, base)
        if network in aliases
    }
    names = {
        network: {
            *aliases[network],
            *(_by_move(container, aliases[network]) if former_counts else ()),
        }
        for network in wanted
    }
    spellings = {network: {*map(spelled, own)} for network, own in names.items()}
    return tuple(n for n, own in wanted.items() if not {*map(spelled, own)} <= spellings[n])


def _networks_astray(
    container: Container, others: Iterable[Container], context: ServiceContext
) -> tuple[str, ...]:
    """Return the networks in which a container is at the wrong address, unless the repair waits.

    The right one is its slot's, but while one of *others*, of the same slot, is cut off from the network, it
    still has that address, and nobody knows who gets a packet: then any other is right.
    """
    if ADDRESSES in context.deferred_repairs(container.slot):
        return ()
    kept = {network for other in others for network in other.cut_off}
    both = kept & {network for network, _ in {*container.slot_addresses} & {*container.addresses}}
    return (*(n for n, _ in misplaced(container) if n not in kept), *sorted(both))


def hand_over_by(others: Iterable[Container], context: ServiceContext) -> HandOver:
    """Return which containers of a slot make way for its address."""
    prerequisites, others = context.prerequisites, tuple(others)
    leaving = {
        network: [other for other in others if _has_place(other, network)]
        for network in joined_networks(context.service, prerequisites.names)
        if prerequisites.has_slot_addresses(network)
    }
    return {network: found for network, found in leaving.items() if found}


def _has_place(container: Container, network: str) -> bool:
    """Return True if a container has the name of its service or the address of its slot in a network."""
    named = container.key.name in dict(container.aliases).get(network, ())
    address = dict(container.slot_addresses).get(network)
    return named or (address is not None and (network, address) in container.addresses)


def is_in_the_way(container: Container, slot: SlotState) -> bool:
    """Return True if a container is cut off from its networks and no longer needed.

    Such a container still holds its former addresses, and the engine gives them to the next
    container.
    """
    cut_off_everywhere = set(container.cut_off) >= set(container.settings.networks)
    replaceable = any(extra.running and not extra.cut_off for extra in slot.alive)
    return bool(container.cut_off) and (cut_off_everywhere or replaceable)


def displaced_on(container: Container, serving: Iterable[Container]) -> tuple[str, ...]:
    """Return the networks in which a container that is down can't start while others of its slot serve.

    It was created for the address of the slot, and another one has the address.
    """
    held = {address for other in serving for address in other.addresses}
    return tuple(network for network, address in container.chosen if (network, address) in held)


def held_back(
    healing: Iterable[AnyAction], hand_over: HandOver, container: Container
) -> frozenset[str]:
    """Return the networks that a container would join under its service's name, although another
    container of the slot has the address there. They are joined when that one leaves.
    """
    joins = (each for each in healing if isinstance(each, ConnectNetwork) and each.aliases)
    found = frozenset(each.network for each in joins if each.network in hand_over)
    return found - {*container.settings.networks}


def _by_move(container: Container, aliases: tuple[str, ...]) -> tuple[str, ...]:
    """Return the service's present name for a container that answers to the former name."""
    return (container.key.name,) if container.former and container.former in aliases else ()


def needs_health_restart(container: Container, context: ServiceContext) -> bool:
    """Return True if a running container is to be restarted because of its health.

    A container about to rejoin a network is left running: its health check gets another chance once
    the network is back.
    """
    restarts = context.service.spec.restart.policy is not RestartPolicy.NEVER
    unhealthy = context.availability_of(container) is AvailabilityWord.UNHEALTHY
    return restarts and unhealthy and not _is_joined_again(container, context)


def _is_joined_again(container: Container, context: ServiceContext) -> bool:
    """Return True if healing joins a container to a network, and the policy allows it."""
    healing, _ = healing_actions(container, context, with_alias=True)
    actions = with_verdicts(healing, context.judge)
    joins = [action for action in actions if isinstance(action, ConnectNetwork)]
    return any(not is_denied(action) for action in joins)


def restart_actions(container: Container, context: ServiceContext, cause: str) -> list[AnyAction]:
    """Return the actions to stop a container and start it again, with their verdicts."""
    handle = ContainerHandle.of(container)
    stop = stop_for_good(container, context.service, cause)
    restarts = handle.correct_restart_policy("no", context.restart_policy(container.slot))
    return with_verdicts([*stop, handle.start(cause), *restarts], context.judge)


# Limits

#: States with processes that use memory.
_USING = frozenset({ContainerState.RUNNING, ContainerState.PAUSED})


def limit_actions(container: Container, context: ServiceContext) -> list[AnyAction]:
    """Return the update of a container's limits that is due now."""
    if takes_memory(container, context) and not _can_take(container, context):
        return []
    return _updates(container, context)


def later_limit_actions(container: Container, context: ServiceContext) -> list[AnyAction]:
    """Return the update of a container's limits that is due once the container is available."""
    if not takes_memory(container, context) or _is_available(container, context):
        return []
    return [] if container.slot in context.kept_memory else _updates(container, context)


def _updates(container: Container, context: ServiceContext) -> list[AnyAction]:
    limits, admitted = other_limits(container, context.service), container.admitted
    if not limits or admitted is None:
        return []
    return [ContainerHandle.of(container).set_limits(limits, describe_limits(admitted, limits))]


def takes_memory(container: Container, context: ServiceContext) -> bool:
    """Return True if a container with processes has more memory than its document declares."""
    memory, admitted = other_limits(container, context.service).get("memory"), container.admitted
    if not isinstance(memory, int) or admitted is None or container.state not in _USING:
        return False
    return memory < admitted.memory


def _can_take(container: Container, context: ServiceContext) -> bool:
    """Return True if a container is available, and its turn has come."""
    return _is_available(container, context) and container.slot not in context.kept_memory


def _is_available(container: Container, context: ServiceContext) -> bool:
    return context.availability_of(container) is AvailabilityWord.AVAILABLE
