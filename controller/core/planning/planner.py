"""The planner: from what is declared and what is observed to every action until they agree.

Pure: no I/O, no clock, no randomness, no logging; the same inputs in any order give the same plan,
byte for byte. It plans as if each action succeeds; an executor that meets another world ends its
pass, and the next look plans again.

Never planned: anything on a container that a client made or of a service that is suspended, the
removal of a volume, and, while part of the desired state is blind, the removal of whatever that
part may declare.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import assert_never

from controller.core.drift.actions import Judge, denied, judged, until_denied
from controller.core.drift.drift import ALIVE
from controller.core.drift.repair import unknown_members
from controller.core.encoding.canonical_json import digest
from controller.core.engine_api.translate import update_body
from controller.core.planning.context import NOTHING, PlanContext
from controller.core.planning.image_volumes import VolumeRule, always_refuse, with_image_volumes
from controller.core.planning.ordering import Ordering
from controller.core.planning.prerequisites import (
    Prerequisites,
    image_of,
    image_references,
    network_key,
    network_name,
    wanted_networks,
)
from controller.core.planning.quarantine import expired_tasks, removal_actions, renewal_actions
from controller.core.planning.rollout import RolloutPlan, plan_service
from controller.core.planning.slot import ServiceContext
from controller.core.planning.successor import hypothetical_create
from controller.model import observed as seen
from controller.model.desired.desired import Desired, Network, Volume
from controller.model.desired.plan import (
    AnyAction,
    Blocked,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    Plan,
    Precondition,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RenameContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
    Verdict,
    Wait,
)
from controller.model.errors import Problem
from controller.model.names import Key, NetworkNames
from controller.model.observed import Container, Observed

__all__ = [
    "ACTIONS_MAX",
    "declared_resources",
    "image_of",
    "image_references",
    "keys",
    "orphan_keys",
    "plan",
    "violations",
    "wanted_networks",
]

#: A plan has at most this many actions; what is beyond them comes with the next one.
ACTIONS_MAX = 10_000


def keys(desired: Desired, observed: Observed) -> frozenset[Key]:
    """Return every key that may need a pass."""
    services = frozenset(service.key for service in desired.services)
    others = frozenset(resource.key for resource in declared_resources(desired))
    return services | others | _observed_services(observed) | _network_keys(observed)


def orphan_keys(desired: Desired, observed: Observed) -> frozenset[Key]:
    """Return the services that have containers of the controller's and that nothing declares.

    What a blind document may declare isn't among them.
    """
    declared = {service.key for service in desired.services}
    return _observed_services(observed) - declared - desired.blind_keys


def declared_resources(desired: Desired) -> list[Network | Volume]:
    """Return the declared networks and volumes, by key."""
    resources: list[Network | Volume] = [*desired.networks, *desired.volumes]
    return sorted(resources, key=lambda resource: resource.key)


def _observed_services(observed: Observed) -> frozenset[Key]:
    return frozenset(c.key for c in observed.containers if c.origin == "controller")


def _network_keys(observed: Observed) -> frozenset[Key]:
    ours = (n for n in observed.networks if n.ours and n.origin == "controller")
    return frozenset(network_key(network) for network in ours)


def plan(  # noqa: PLR0913 - the seam that loop and command line share, each input by name
    desired: Desired,
    observed: Observed,
    *,
    networks: NetworkNames,
    judge: Judge,
    prunable: frozenset[Key],
    blocked: tuple[Blocked, ...],
    policy_digest: str,
    only: Key | None = None,
    context: PlanContext = NOTHING,
    volume_rule: VolumeRule = always_refuse,
) -> Plan:
    """Return all actions to convergence, for *only* one key where given.

    Args:
        desired: what the files ask for.
        observed: one snapshot; with *only* a service's key, its containers suffice.
        networks: the base names of the implied networks.
        judge: the policy's verdict on an action; it is put onto each.
        prunable: the services that may be removed, scaled to 0 or stopped: the prune guard's word.
        blocked: what the guard holds back; shown with the plan.
        policy_digest: that of the policy that *judge* speaks for.
        only: plan this key alone.
        past: what earlier looks and passes say.
        volume_rule: what the policy does where an image declares a VOLUME that no mount covers.
    """
    desired = with_image_volumes(desired, observed, volume_rule, only=only)
    prerequisites = Prerequisites(desired, observed, networks)
    actions: list[AnyAction] = []
    problems: list[Problem] = []

    for resource in declared_resources(desired):
        if only in (None, resource.key) and resource.key not in desired.blind_keys:
            made, problem = _declared(resource, prerequisites, judge)
            actions += made
            problems += [problem] if problem else []

    services = {service.key: service for service in desired.services}
    left_alone = desired.blind_keys | desired.suspended
    order = Ordering(
        desired,
        observed,
        context.known_services,
        crash_looping=context.controller_restarts,
        prunable=prunable,
        blocked=frozenset(each.key for each in blocked),
    )
    for key in order.sequence(services.keys() | _observed_services(observed)):
        if only not in (None, key) or key in left_alone:
            continue
        outcome, containers = RolloutPlan(), observed.of(key)
        if teardown_blocker := order.teardown_blocker(key):
            outcome.actions.append(teardown_blocker.wait(key, target=key.name))
        elif key in services:
            put_away = expired_tasks(services[key], containers, context.quarantine)
            actions += renewal_actions(put_away, judge)
            service_context = ServiceContext(
                service=services[key],
                containers=tuple(c for c in containers if c not in put_away),
                prerequisites=prerequisites,
                judge=judge,
                prunable=key in prunable,
                plan_context=context,
                blockers=order.blockers(services[key]),
                listening=observed.listening,
                resource_conflict=order.resource_conflict(services[key]),
                volume_lost=frozenset(c.id for c in containers if order.is_kept(c)),
            )
            outcome = plan_service(service_context)
            problems += unknown_members(services[key], containers)
        elif key in prunable and not desired.blind:
            outcome.actions += removal_actions(containers, judge, context.quarantine)
        order.note(key, outcome.actions, outcome.problems)
        actions += outcome.actions
        problems += outcome.problems

    if not blocked:
        unused = _unused_networks(desired, observed, networks, actions)
        removals = [_removal(n) for n in unused if only in (None, network_key(n))]
        actions += judged(removals, judge)
    sealed = _sealed(desired, observed, actions, problems, blocked, policy_digest)
    return replace(sealed, holds=tuple(h for h in desired.holds if only in (None, h.key)))


def violations(
    desired: Desired, observed: Observed, *, networks: NetworkNames, judge: Judge
) -> dict[Key, Verdict]:
    """Return the verdicts on the services that the policy wouldn't create now.

    They keep running and aren't stale; they aren't started again.
    """
    prerequisites = Prerequisites(desired, observed, networks)
    verdicts = {s.key: judge(hypothetical_create(s, prerequisites)) for s in desired.services}
    return {key: verdict for key, verdict in verdicts.items() if verdict.decision == "deny"}


def _declared(
    resource: Network | Volume, prerequisites: Prerequisites, judge: Judge
) -> tuple[list[AnyAction], Problem | None]:
    problem = prerequisites.declared_problem(resource)
    if problem is not None:
        return [], problem
    actions = until_denied(judged(prerequisites.declared(resource), judge))
    for action in actions:
        if not denied(action):
            prerequisites.note(action)
    return actions, None


def _unused_networks(
    desired: Desired, observed: Observed, names: NetworkNames, actions: Iterable[AnyAction]
) -> list[seen.ObservedNetwork]:
    """Return the networks of ours that nothing needs once *actions* are done.

    None while anything is blind, or the directory is missing or without a document: a network that
    an unread service needs looks unused too.
    """
    if desired.blind_keys or not desired.whole:
        return []
    needed = {network_name(network) for network in desired.networks}
    for service in desired.services:
        needed.update(wanted_networks(service, names))
    removed = {
        a.precondition.id for a in actions if isinstance(a, RemoveContainer) and not denied(a)
    }
    going = [c for c in observed.containers if c.id in removed]
    for container in observed.containers:
        # The engine lists a network's running containers only; a stopped one needs it too.
        if container.id not in removed:
            needed.update(container.settings.networks)
    return [
        network
        for network in sorted(observed.networks, key=lambda n: (network_key(n), n.id))
        if network.ours and network.origin == "controller" and network.name not in needed
        if network.containers <= _attached(network, going)
    ]


def _attached(network: seen.ObservedNetwork, containers: Iterable[Container]) -> int:
    return sum(network.name in c.settings.networks and c.state in ALIVE for c in containers)


def _removal(network: seen.ObservedNetwork) -> RemoveNetwork:
    return RemoveNetwork(
        object=network_key(network),
        target=network.name,
        cause="nothing joins it any more",
        precondition=Precondition(id=network.id),
    )


def _sealed(
    desired: Desired,
    observed: Observed,
    actions: list[AnyAction],
    problems: list[Problem],
    blocked: tuple[Blocked, ...],
    policy_digest: str,
) -> Plan:
    complete = not desired.blind and not desired.blind_keys
    if len(actions) > ACTIONS_MAX:
        # A prefix is safe: it is a pass that ended early.
        problems.append(
            Problem(
                code="plan.too-large",
                message=f"the plan has {len(actions)} actions, and shows the first {ACTIONS_MAX}",
                remedy="nothing to do: the rest follows once these are done",
            )
        )
        actions, complete = actions[:ACTIONS_MAX], False
    result = Plan(
        actions=tuple(actions),
        blocked=tuple(sorted(blocked, key=lambda b: (b.key, b.code, b.reason))),
        problems=tuple(sorted({*desired.problems, *problems}, key=problem_order)),
        complete=complete,
    )
    sealed = {
        "instance": observed.instance,
        "desired": desired.digest,
        "policy": policy_digest,
        "actions": [_essence(action) for action in result.actions],
    }
    return replace(result, digest=digest(sealed))


def problem_order(problem: Problem) -> tuple[str, int, int, str, str, str]:
    """Return what problems are sorted by: their place, then what they say."""
    return (
        problem.file,
        problem.line,
        problem.column,
        problem.code,
        str(problem.key or ""),
        problem.message,
    )


def _essence(action: AnyAction) -> dict[str, object]:
    """Return what makes an action this one: no sequence number, no text, no time."""
    return {
        "action": action.verb,
        "object": str(action.object),
        "target": action.target,
        "slot": action.slot,
        "precondition": asdict(action.precondition),
        "decision": action.verdict.decision,
        **_particulars(action),
    }


def _volumes(action: CreateContainer) -> dict[str, object]:
    found = action.service.image_volumes or ()
    return {"volumes": [[each.path, each.keeping] for each in found]} if found else {}


def _particulars(action: AnyAction) -> dict[str, object]:
    match action:
        case CreateContainer():
            return {
                "image": action.image,
                "revision": action.service.revision,
                "announced": action.announced,
                **_volumes(action),
            }
        case CreateNetwork():
            return {
                "owner": action.owner,
                "internal": action.internal,
                "masquerade": action.masquerade,
                "icc": action.icc,
            }
        case CreateVolume():
            return {"owner": action.owner}
        case UpdateContainer():
            return {"body": update_body(action)}
        case StopContainer():
            return {"graceS": action.grace_s}
        case RenameContainer():
            return {"name": action.name}
        case ConnectNetwork():
            return {"network": action.network, "aliases": list(action.aliases)}
        case DisconnectNetwork():
            return {"network": action.network}
        case (
            PullImage()
            | RemoveNetwork()
            | StartContainer()
            | UnpauseContainer()
            | RemoveContainer()
            | Wait()
        ):
            return {}
        case _:
            assert_never(action)
