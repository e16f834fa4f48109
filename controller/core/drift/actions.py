"""The actions on one container, with preconditions and verdicts, and those that undo alterations.

Builds the actions on one container, with their preconditions and verdicts.

A deliberate stop first sets the restart policy to ``no``. Otherwise an engine that restarts between
the stop and the removal would start the container again.

Healing: the actions to undo alterations of a running container.

An alteration is a difference from the admitted settings (``core.drift.classify.alterations``).
``core.engine_api.comparable_fields`` has the alterations an engine can undo. Healing never restarts
a container, and never changes it beyond its admitted settings. The restart policy is not healed
here but in ``core.planning.slot_plan``: its value depends on whether the controller or the engine
restarts the container.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from types import MappingProxyType
from typing import TypedDict

from controller.core.drift import classify
from controller.core.engine_api.comparable_fields import LIMITS, REQUIRED_LIMITS, member_text
from controller.core.engine_api.create_body import aliases_on, stop_timeout_s
from controller.model.desired import plan
from controller.model.desired.desired import Service
from controller.model.errors import Problem, Severity
from controller.model.names import Key, NetworkNames
from controller.model.observed import Container, ContainerState, LimitValue, Settings
from controller.model.records import Precondition, Verdict

#: Prefix of the cause of actions that attach the service's alias.
TAKES_NAME = "takes the name"
#: End of the cause of a stop for a successor that takes the slot's address over.
TAKES_ADDRESS = "takes its address"
#: The engine's default stop timeout, for a container created without one.
DEFAULT_GRACE_S = 10

Judge = Callable[[plan.AnyAction], Verdict]


class _OnIt(TypedDict):
    """The common members of all actions on a container."""

    object: Key
    target: str
    cause: str
    slot: int
    precondition: Precondition


@dataclass(frozen=True, slots=True)
class ContainerHandle:
    """The object of actions: a container, observed or still to be created by the plan."""

    key: Key
    name: str
    slot: int
    precondition: Precondition

    @classmethod
    def of(cls, container: Container) -> ContainerHandle:
        """Return the handle of an observed container. Its actions use the full id."""
        precondition = Precondition(id=container.id, revision=container.revision)
        return cls(container.key, container.name, container.slot, precondition)

    @classmethod
    def to_create(cls, create: plan.CreateContainer) -> ContainerHandle:
        """Return the handle of a container that the plan creates. Its id is not known yet."""
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

    def start(self, cause: str) -> plan.StartContainer:
        """Return the action to start the container."""
        return plan.StartContainer(**self._on_it(cause))

    def set_restart_policy(self, policy: tuple[str, int], cause: str) -> plan.UpdateContainer:
        """Return the action to set the container's restart policy and its retries."""
        return plan.UpdateContainer(**self._on_it(cause), restart=policy[0], restart_max=policy[1])

    def correct_restart_policy(
        self, present: str, policy: tuple[str, int]
    ) -> tuple[plan.UpdateContainer, ...]:
        """Return the action to set the restart policy, none if the container has it already."""
        cause = f"restart policy is {present}, want {policy[0]}"
        return (self.set_restart_policy(policy, cause),) if present != policy[0] else ()

    def set_limits(self, limits: Mapping[str, LimitValue], cause: str) -> plan.UpdateContainer:
        """Return the action to set limits of the container, by their names in ``Settings``."""
        return plan.UpdateContainer(**self._on_it(cause), limits=limits)

    def stop(self, grace_s: int, cause: str) -> plan.StopContainer:
        """Return the action to stop the container."""
        return plan.StopContainer(**self._on_it(cause), grace_s=grace_s)

    def send_signal(self, signal: str, cause: str) -> plan.SignalContainer:
        """Return the action to send the container a signal."""
        return plan.SignalContainer(**self._on_it(cause), signal=signal)

    def unpause(self, cause: str) -> plan.UnpauseContainer:
        """Return the action to unpause the container."""
        return plan.UnpauseContainer(**self._on_it(cause))

    def rename(self, name: str, cause: str) -> plan.RenameContainer:
        """Return the action to restore the container's own name."""
        return plan.RenameContainer(**self._on_it(cause), name=name)

    def connect(self, network: str, aliases: tuple[str, ...], cause: str) -> plan.ConnectNetwork:
        """Return the action to connect the container to a network."""
        return plan.ConnectNetwork(**self._on_it(cause), network=network, aliases=aliases)

    def disconnect(self, network: str, cause: str) -> plan.DisconnectNetwork:
        """Return the action to disconnect the container from a network."""
        return plan.DisconnectNetwork(**self._on_it(cause), network=network)

    def remove(self, cause: str) -> plan.RemoveContainer:
        """Return the action to remove the container."""
        return plan.RemoveContainer(**self._on_it(cause))


#: The containers that make way for the address of their slot, by network.
HandOver = Mapping[str, Sequence[Container]]
NO_HAND_OVER: HandOver = MappingProxyType({})


def names_at_join(container: Container, network: str) -> tuple[str, ...]:
    """Return the service's name, and the further ones to which a container was admitted on a network.

    A moved container answers to its earlier names until it joins a network again: they aren't its own
    any more, and the gate refuses them.
    """
    further = () if container.former else dict(container.admitted_aliases).get(network, ())
    return (container.key.name, *further)


def attach_service_alias(
    handle: ContainerHandle,
    service: Service,
    networks: Iterable[str],
    base: NetworkNames,
    hand_over: HandOver = NO_HAND_OVER,
    *,
    absent: Collection[str] = (),
) -> list[plan.AnyAction]:
    """Return the actions to give a container its service's names as aliases on *networks*.

    The engine accepts an alias only at connect, so each network is disconnected and connected
    again. The container isn't in the networks of *absent*. With the service's name comes the address of
    the slot, so the containers of *hand_over* leave before, and are joined again at another address: they
    need a network to end in good order. A container without a place in the network can't leave: it keeps
    its interface and its address until its end, and this one gets another address until then. One that
    the engine is just restarting can't leave either: it serves nobody, and is stopped.
    """
    actions, stopped = list[plan.AnyAction](), set[str]()
    for network in networks:
        cause, leaving = f"{TAKES_NAME} {service.key.name} on {network}", list[Container]()
        for other in hand_over.get(network, ()):
            if network not in other.cut_off:
                cause = (
                    f"{TAKES_NAME} {service.key.name} and the address of {other.name} on {network}"
                )
                if other.state is not ContainerState.RESTARTING:
                    leaving.append(other)
                elif other.id not in stopped:
                    stopped.add(other.id)
                    actions += stop_for_good(other, service, cause)
        actions += (ContainerHandle.of(other).disconnect(network, cause) for other in leaving)
        if network not in absent:
            actions.append(handle.disconnect(network, cause))
        actions.append(handle.connect(network, aliases_on(service, network, base), cause))
        again = f"{handle.name} {TAKES_ADDRESS}, and it has a network until its end"
        actions += (ContainerHandle.of(other).connect(network, (), again) for other in leaving)
    return actions


def stop_for_good(
    container: Container, service: Service | None, cause: str
) -> list[plan.AnyAction]:
    """Return the actions to stop a container, safe from a restart by the engine."""
    handle, actions = ContainerHandle.of(container), list[plan.AnyAction]()
    if container.settings.restart != "no":
        actions.append(handle.set_restart_policy(("no", 0), cause))
    if container.state in classify.ALIVE:
        grace_s = container.stop_grace_s
        if grace_s is None:
            grace_s = DEFAULT_GRACE_S if service is None else stop_timeout_s(service.spec)
        actions.append(handle.stop(grace_s, cause))
    return actions


def stop_and_remove(
    container: Container, service: Service | None, cause: str
) -> list[plan.AnyAction]:
    """Return the actions to stop and remove a container."""
    if container.state is ContainerState.REMOVING:
        cause = f"{container.name} is being removed"
        return [
            plan.Delay(
                object=container.key, target=container.name, slot=container.slot, cause=cause
            )
        ]
    stop = stop_for_good(container, service, cause) if container.state in classify.ALIVE else []
    return [*stop, ContainerHandle.of(container).remove(cause)]


def atomic_groups(actions: Iterable[plan.AnyAction]) -> list[tuple[plan.AnyAction, ...]]:
    """Return a sequence of actions cut into groups. An executor performs a group as a whole, or not
    at all.

    A stop and the start of its replacement form one group, and so do a disconnect and the connect
    of the container that takes the address over, and all actions of a network's remake.
    An interruption in between would leave no container serving, with no guarantee of a next pass.
    """
    rest, groups = list(actions), list[tuple[plan.AnyAction, ...]]()
    while rest:
        count = _bound(rest)
        groups.append(tuple(rest[:count]))
        rest = rest[count:]
    return groups


def _bound(rest: Sequence[plan.AnyAction]) -> int:
    """Return the size of the group at the start of *rest*."""
    first = rest[0]
    match first:
        case plan.DisconnectNetwork() | plan.RemoveNetwork() if first.object.kind == "Network":
            mine = takewhile(lambda action: action.object == first.object, rest)
            return sum(not isinstance(action, plan.Wait) for action in mine)
        case plan.DisconnectNetwork():
            count = len([*takewhile(lambda action: _leaves(action, first), rest)])
            joins = (_joins_again(action, first) for action in rest[count : count + 1])
            return count + 1 if any(joins) else 1
        case plan.UpdateContainer(restart="no") if any(
            isinstance(a, plan.StopContainer) and a.target == first.target for a in rest[1:2]
        ):
            return max(2, _until_start(rest))
        case plan.StopContainer():
            return _until_start(rest)
        case _:
            return 1


def _leaves(action: plan.AnyAction, first: plan.DisconnectNetwork) -> bool:
    """Return True if an action makes way in the same network, for the same slot."""
    same = (action.object, action.slot) == (first.object, first.slot)
    return same and isinstance(action, plan.DisconnectNetwork) and action.network == first.network


def _joins_again(action: plan.AnyAction, left: plan.DisconnectNetwork) -> bool:
    same = (action.object, action.slot) == (left.object, left.slot)
    return same and isinstance(action, plan.ConnectNetwork) and action.network == left.network


def _until_start(rest: Sequence[plan.AnyAction]) -> int:
    """Return the number of actions until the slot of the first one is started again; 1 if never."""
    for index, action in enumerate(rest):
        if action.object != rest[0].object or isinstance(action, plan.Wait):
            return 1
        if isinstance(action, plan.StartContainer) and action.slot == rest[0].slot:
            given_back = (
                isinstance(after, plan.UpdateContainer) and after.target == action.target
                for after in rest[index + 1 : index + 2]
            )
            return index + 1 + any(given_back)
    return 1


def with_verdicts(actions: Iterable[plan.AnyAction], judge: Judge) -> list[plan.AnyAction]:
    """Return independent actions with their verdicts. A wait changes nothing, so it gets no verdict."""
    return [a if isinstance(a, plan.Wait) else replace(a, verdict=judge(a)) for a in actions]


def judged_sequence(actions: Iterable[plan.AnyAction], judge: Judge) -> list[plan.AnyAction]:
    """Return a sequence of actions with their verdicts, up to and including the first denied action.

    Later actions depend on the denied one.
    """
    return until_denied(with_verdicts(actions, judge))


def judged_whole(
    actions: Iterable[plan.AnyAction], judge: Judge
) -> tuple[list[plan.AnyAction], bool]:
    """Return actions that are useful only together, with their verdicts, and True if all are allowed.

    If any is denied, only the denied ones are returned.
    """
    judged = with_verdicts(actions, judge)
    refused = [action for action in judged if is_denied(action)]
    return refused or judged, not refused


def is_denied(action: plan.AnyAction) -> bool:
    """Return True if the policy denies an action."""
    return action.verdict.decision == "deny"


def refusals(actions: Iterable[plan.AnyAction]) -> list[plan.AnyAction]:
    """Return the denied actions, without repetitions.

    Actions whose findings have places in a document come first. An action is left out if the same
    rules already denied another action on the same object: the pull of an image after the create,
    for example.
    """
    denied = sorted(filter(is_denied, actions), key=lambda action: not action.verdict.problems)
    shown_rules: dict[Key, set[str]] = {}
    result: list[plan.AnyAction] = []
    for action in denied:
        rules, before = set(action.verdict.rules), shown_rules.setdefault(action.object, set())
        if not rules or not rules <= before:
            result.append(action)
        before |= rules
    return result


def until_denied(actions: Sequence[plan.AnyAction]) -> list[plan.AnyAction]:
    """Return a sequence up to and including its first denied action. Later actions depend on it."""
    for index, action in enumerate(actions):
        if is_denied(action):
            return list(actions[: index + 1])
    return list(actions)


#: Limits that an update sends together: the engine refuses a memory limit above the swap limit.
_TOGETHER = frozenset({"memory", "memory_swap"})


def healed_by(action: plan.AnyAction) -> frozenset[str]:
    """Return the alterations undone by an action, by ``Alteration.what``."""
    match action:
        case plan.UpdateContainer():
            return frozenset(
                [*action.limits, *(("restart", "restart_max") if action.restart else ())]
            )
        case plan.UnpauseContainer():
            return frozenset({"paused"})
        case plan.RenameContainer():
            return frozenset({"name"})
        case plan.ConnectNetwork() | plan.DisconnectNetwork():
            return frozenset({"networks", "aliases", classify.ADDRESSES})
        case plan.StartContainer():
            return frozenset({"stopped"})
        case _:
            return frozenset()


def heal(
    container: Container,
    *,
    with_alias: bool = True,
    joinable: Collection[str] | None = None,
    deferred: Collection[str] = (),
) -> tuple[plan.AnyAction, ...]:
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
    members = sorted({name for each in containers for name in classify.still_ignored(each)})
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


def _leave(container: Container, admitted: Settings) -> Iterator[plan.AnyAction]:
    for network in container.settings.networks:
        if network not in admitted.networks:
            cause = f"{container.name} is in the network {network}, and wasn't admitted to it"
            yield ContainerHandle.of(container).disconnect(network, cause)


def _thaw(container: Container) -> Iterator[plan.AnyAction]:
    if container.state is ContainerState.PAUSED:
        yield ContainerHandle.of(container).unpause(f"{container.name} is paused")


def _join(
    container: Container,
    admitted: Settings,
    with_alias: bool,  # noqa: FBT001 - heal's own
    joinable: Collection[str] | None,
    deferred: Collection[str],
) -> Iterator[plan.AnyAction]:
    handle, name = ContainerHandle.of(container), container.key.name
    known = any(name in asked for _, asked in container.aliases)
    networks = [n for n in admitted.networks if joinable is None or n in joinable]
    for network in networks:
        if network not in container.settings.networks and "networks" not in deferred:
            cause = f"{container.name} isn't in its network {network}"
            own = names_at_join(container, network) if known or with_alias else ()
            yield handle.connect(network, own, cause)
    for network, names in classify.foreign_aliases(container) if "aliases" not in deferred else ():
        if network not in networks:
            continue
        cause = f"{container.name} answers to {' and '.join(names)} on {network}"
        named = with_alias or name in dict(container.aliases)[network]
        yield handle.disconnect(network, cause)
        yield handle.connect(network, names_at_join(container, network) if named else (), cause)


def _rename(container: Container, admitted: Settings) -> Iterator[plan.AnyAction]:
    if container.name != admitted.name:
        cause = f"{container.name} is called {admitted.name}, and names are final"
        yield ContainerHandle.of(container).rename(admitted.name, cause)


def _limit(
    container: Container, admitted: Settings, deferred: Collection[str]
) -> Iterator[plan.AnyAction]:
    limits = [
        each
        for each in classify.alterations(container)
        if each.what in LIMITS and not _sent_with(each.what) & set(deferred)
    ]
    if not limits:
        return
    changed = frozenset().union(*(_sent_with(each.what) for each in limits))
    yield plan.UpdateContainer(
        object=container.key,
        target=container.name,
        cause="; ".join(each.why for each in limits),
        slot=container.slot,
        precondition=ContainerHandle.of(container).precondition,
        limits={name: getattr(admitted, name) for name in LIMITS if name in changed},
    )


def _sent_with(limit: str) -> frozenset[str]:
    return _TOGETHER if limit in _TOGETHER else frozenset({limit})
