"""The plan of one slot: start, heal, restart or replace its container; keep the older one meanwhile.

A serving container is stopped only for its replacement, and as late as possible. Before the stop,
the replacement is admitted by the policy and created, with its image present. With StartFirst the
replacement is also available (``core.drift.availability``), and only then gets the service's DNS
name.

A denied action is shown in the plan; actions with a dependency on a denied action are left out.

The predecessor: a slot's older container, kept alive until its replacement is available.

A running predecessor is healed, or restarted if it keeps failing. If none runs, the last good one
is started again. A replacement that is available at once needs no predecessor.

The next container of a slot: its name, and its create action.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from itertools import chain

from controller.core.drift import contention
from controller.core.drift.actions import (
    ContainerHandle,
    attach_service_alias,
    is_denied,
    judged_sequence,
    judged_whole,
    stop_and_remove,
    stop_for_good,
    until_denied,
    with_verdicts,
)
from controller.core.drift.availability import AvailabilityWord
from controller.core.drift.classify import (
    ALIVE,
    Drift,
    ReplicaState,
    SlotState,
    alterations,
    cause_of,
    is_finished,
    is_healable,
    restart_of,
    unhealthy_cause,
    why_ordered,
)
from controller.core.drift.contention import ENDED
from controller.core.drift.failures import explain
from controller.core.engine_api.create_body import engine_restart, joined_networks
from controller.core.planning import serving_container
from controller.core.planning.context import ServiceContext, order_of
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.core.planning.serving_container import (
    _is_joined_again,
    _networks_astray,
    _networks_without_alias,
    displaced_on,
    hand_over_by,
    healing_actions,
    held_back,
    is_in_the_way,
    later_limit_actions,
    limit_actions,
    needs_health_restart,
    restart_actions,
    takes_memory,
)
from controller.model.desired.desired import Service
from controller.model.desired.plan import (
    AnyAction,
    Barrier,
    ConnectNetwork,
    CreateContainer,
    Delay,
    PullImage,
    StopContainer,
)
from controller.model.desired.spec.service import Order
from controller.model.errors import Problem
from controller.model.names import CONTAINER_NAME_MAX, FOREIGN, container_name
from controller.model.observed import Container, ContainerState
from controller.model.quantities import format_duration_ms
from controller.model.records import Precondition


def next_name(service: Service, slot: int, containers: Iterable[Container]) -> str:
    """Return the name of a slot's next container.

    The number follows the highest attempt among *containers* of the same slot and revision. With a
    stale snapshot the create then fails with a name conflict, instead of making a second container.
    """
    everyone = tuple(containers)
    stem = container_name(
        service.key.namespace, service.key.name, slot=slot, revision=service.revision
    )
    taken = {name for container in everyone for name in _names_of(container)}
    mine = [c for c in everyone if c.slot == slot and c.revision == service.revision]
    attempts = [_attempt(name, stem) for container in mine for name in _names_of(container)]
    first = max([len(mine), *attempts]) + 1
    # Numbers start again only if they no longer fit into a name.
    for attempt in chain(range(first, first + len(taken) + 1), range(1, len(taken) + 2)):
        name = stem if attempt == 1 else f"{stem}.{attempt}"
        if name not in taken and len(name) <= CONTAINER_NAME_MAX:
            return name
    raise AssertionError(f"no name is left for slot {slot} of {service.key}")


def _names_of(container: Container) -> set[str]:
    # A renamed container has two names: its current one, and its admitted one.
    return {container.name, *([container.admitted.name] if container.admitted else [])}


def _attempt(name: str, stem: str) -> int:
    if name == stem:
        return 1
    digits = name.removeprefix(f"{stem}.")
    return int(digits) if digits != name and digits.isascii() and digits.isdigit() else 0


def create_of(
    service: Service,
    prerequisites: Prerequisites,
    *,
    slot: int,
    containers: Iterable[Container],
    cause: str,
    with_alias: bool = True,
) -> CreateContainer:
    """Return the create action of a slot's next container.

    *with_alias*: the container answers to its service's name as soon as it runs.
    """
    name = next_name(service, slot, containers)
    return CreateContainer(
        object=service.key,
        target=name,
        cause=cause,
        slot=slot,
        precondition=Precondition(absent=name),
        service=service,
        image=prerequisites.images.of(service),
        with_alias=with_alias,
    )


def hypothetical_create(
    service: Service, prerequisites: Prerequisites, *, slot: int = 1
) -> CreateContainer:
    """Return the create action of a slot's first container, as input for a policy verdict."""
    return create_of(service, prerequisites, slot=slot, containers=(), cause="as declared")


#: Settings that trimtab itself changes at each stop and start.
RESTARTS = frozenset({"restart", "restart_max"})


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """The actions for a slot, before and after its barrier. A pass ends at the barrier."""

    slot: int
    #: Actions up to the barrier.
    before: list[AnyAction]
    #: Opens when the slot's container is available. None if it is available already.
    barrier: Barrier | None = None
    #: Actions behind the barrier.
    after: list[AnyAction] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    #: True if these actions do not make the slot serve.
    blocked: bool = False

    @property
    def pending(self) -> bool:
        """Return True if the slot does not serve as declared yet, and so uses up parallelism."""
        return self.blocked or self.barrier is not None


def plan_current(slot: SlotState, context: ServiceContext) -> SlotPlan:
    """Plan one slot: make its container run as declared, then remove the extra ones."""
    current, service = slot.current, context.service
    if current is None:
        for extra in slot.extra:
            # The new container would get the same name, port and addresses.
            if extra.state is ContainerState.REMOVING and extra.revision == service.revision:
                return blocked_plan(slot, context, f"{extra.name} is being removed", extra.name)
        return replace_slot(slot, context)
    controller_restarts = context.is_restarted_by_controller(slot.number)
    if current.running and needs_health_restart(current, context):
        return _restart_unhealthy(slot, current, context)
    if has_process(current):
        return _plan_running(slot, current, context)
    if is_finished(current, service, controller_restarts=controller_restarts):
        # A finished task is not restarted. Its own restart policy is restored.
        updates = _restart_policy_actions(current, service, restart_of(service))
        before = judged_sequence(updates, context.judge)
        return SlotPlan(slot.number, before, after=_cleanup_actions(slot, context))
    if current.state is ContainerState.RESTARTING:
        policy = context.restart_policy(slot.number)
        updates = [
            *_restart_policy_actions(current, service, policy),
            *limit_actions(current, context),
        ]
        actions = judged_sequence(updates, context.judge)
        cause = context.backoff_reason(slot.number) or slot.why
        blocked = blocked_plan(slot, context, cause, current.name)
        return replace(blocked, before=[*actions, *blocked.before])
    return replace_slot(slot, context)


def has_process(container: Container) -> bool:
    """Return True if a container serves, or will serve once it is unpaused."""
    return container.running or container.state is ContainerState.PAUSED


def blocked_plan(slot: SlotState, context: ServiceContext, cause: str, target: str) -> SlotPlan:
    """Return a plan to leave a slot alone in this pass, with the reason *cause*."""
    action = Delay(object=context.key, target=target, slot=slot.number, cause=cause)
    return SlotPlan(slot.number, [action], blocked=True)


def container_name_in(slot: SlotState, context: ServiceContext) -> str:
    """Return the name of a slot's container, present or next."""
    if slot.current is not None:
        return slot.current.name
    return next_name(context.service, slot.number, context.containers)


# A container that runs


def is_as_declared(slot: SlotState, context: ServiceContext) -> bool:
    """Return True if a slot's container runs as declared, so that nothing is planned for the slot."""
    current = slot.current
    return (
        current is not None
        and current.running
        # Neither altered, nor unhealthy, nor with other limits.
        and slot.drift is Drift.IN_SYNC
        and not slot.extra
        and context.availability_of(current) is AvailabilityWord.AVAILABLE
        and current.settings.restart == context.restart_policy(slot.number)[0]
        and not _networks_without_alias(current, context)
    )


def _plan_running(slot: SlotState, current: Container, context: ServiceContext) -> SlotPlan:
    """Plan a slot with a running container: heal, attach the service's name, remove the rest."""
    service, judge = context.service, context.judge
    base = context.prerequisites.names
    policy = context.restart_policy(slot.number)
    # If no other container serves, an unready one under the service's name is better than none.
    is_only_one = not any(extra.running for extra in slot.alive)
    available = context.availability_of(current) is AvailabilityWord.AVAILABLE
    healing, problems = healing_actions(current, context, with_alias=is_only_one or available)
    hand_over = hand_over_by(slot.alive, context)
    absent = held_back(healing, hand_over, current)
    healing = [a for a in healing if not (isinstance(a, ConnectNetwork) and a.network in absent)]
    limits = limit_actions(current, context)
    before = _restart_policy_actions(
        current, service, policy, context.deferred_repairs(slot.number)
    )
    rejoined = {a.network for a in healing if isinstance(a, ConnectNetwork) and a.aliases}
    nameless = _networks_without_alias(current, context, former_counts=is_only_one)
    wanting = dict.fromkeys([*absent, *nameless, *_networks_astray(current, slot.alive, context)])
    networks = [n for n in wanting if n not in rejoined | context.plan_context.remaking]
    handle = ContainerHandle.of(current)
    alias = attach_service_alias(handle, service, networks, base, hand_over, absent=absent)
    # What the engine is just restarting serves again soon: it isn't stopped for an unready one.
    at_once = is_only_one and not any(isinstance(action, StopContainer) for action in alias)
    if at_once:
        before += alias
    later = with_verdicts(later_limit_actions(current, context), judge)
    settles = not available or (bool(limits) and takes_memory(current, context))
    seen = slot if not available else replace(slot, current=None)
    barrier = _available_barrier(seen, current.name, context) if settles else None
    after = [] if at_once else with_verdicts(alias, judge)
    cleanup = _cleanup_actions(slot, context, ended_by=after)
    return SlotPlan(
        slot.number,
        # Repairs are independent: a denied one does not stop the others.
        [
            *with_verdicts([*healing, *limits], judge),
            *judged_sequence(before, judge),
        ],
        barrier=barrier,
        after=until_denied([*after, *later, *cleanup]),
        problems=problems,
    )


def _available_barrier(slot: SlotState, target: str, context: ServiceContext) -> Barrier:
    current, spec = slot.current, context.service.spec
    availability = None if current is None else context.plan_context.availability.get(current.id)
    if availability is not None and availability.why:
        cause = availability.why
    else:
        word = "healthy" if spec.healthcheck is not None else "up"
        needed = spec.rollout.min_healthy
        cause = f"must be {word}" + (f" for {format_duration_ms(needed)}" if needed else "")
    return Barrier(object=context.key, target=target, slot=slot.number, cause=cause)


def _restart_policy_actions(
    container: Container,
    service: Service,
    policy: tuple[str, int],
    deferred: Collection[str] = (),
) -> list[AnyAction]:
    # Only the names are compared: engines differ in the retry count that they show.
    altered = any(alteration.what in RESTARTS for alteration in alterations(container))
    if altered and RESTARTS & set(deferred):
        return []
    if container.settings.restart == policy[0] and not altered:
        return []
    if container.settings.restart == "no" and "RestartPolicy" in container.ignored:
        return []  # the engine drops it, and the controller starts the container again
    cause = f"restart policy is {container.settings.restart}, want {policy[0]}"
    if service.is_boot_ordered and not altered:
        cause += f": {why_ordered(service)}"
    return [ContainerHandle.of(container).set_restart_policy(policy, cause)]


# Restarts


def _restart_unhealthy(slot: SlotState, current: Container, context: ServiceContext) -> SlotPlan:
    """Plan the restart of an unhealthy container, unless its slot is in backoff.

    A sidecar is left running without a container to share with: its start would fail.
    """
    backoff = context.backoff_reason(slot.number)
    if backoff is not None:
        return blocked_plan(slot, context, backoff, current.name)
    if (unshared := context.unshared.get(slot.number)) is not None:
        wait = unshared.wait(context.key, target=current.name, slot=slot.number)
        return SlotPlan(slot.number, [wait], blocked=True)
    restart = restart_actions(current, context, cause_of(ReplicaState(current, context.service)))
    if refused := [action for action in restart if is_denied(action)]:
        return SlotPlan(slot.number, refused, blocked=True)
    # An altered container is healed before the start.
    healing, _ = healing_actions(current, context, with_alias=True)
    return SlotPlan(
        slot.number,
        [
            *with_verdicts([*healing, *limit_actions(current, context)], context.judge),
            *restart,
        ],
        barrier=_available_barrier(replace(slot, current=None), current.name, context),
        after=_cleanup_actions(slot, context),
    )


# Replacements


@dataclass(frozen=True, slots=True)
class _NextContainer:
    """The next container of a slot: a new one, or the slot's stopped container."""

    handle: ContainerHandle
    #: Pull the image, create networks and volumes, create the container.
    prepare: list[AnyAction]
    start: list[AnyAction]
    #: Give it the service's name. Empty if it is created with the name.
    attach_alias: list[AnyAction]


def replace_slot(slot: SlotState, context: ServiceContext) -> SlotPlan:
    """Plan the replacement of a slot's container, or the start of its stopped container.

    Order: prepare the next container; stop the containers that cannot run at the same time; start
    the next container; barrier until it is available; attach the service's name; remove the rest.
    If the policy denies any of these actions, the plan has only the denied ones: no image is pulled
    and no container stopped for a replacement that cannot finish.
    """
    blocked = _blocked_replacement(slot, context)
    if blocked is not None:
        return blocked
    service = context.service
    stop_first = _containers_to_stop_first(slot, context)
    overlaps = len(stop_first) < len(slot.alive)
    leftovers = _leftovers(slot, service)
    surplus = _surplus_replacements(slot, context, stop_first)
    staying = [other for other in slot.alive if other not in (*stop_first, *surplus)]
    new = _next_container(slot, context, staying, overlaps=overlaps)
    before = [
        *new.prepare,
        *(ContainerHandle.of(c).remove(_removal_cause(c, slot, context)) for c in leftovers),
        *(
            a
            for c in stop_first
            for a in stop_for_good(c, service, _removal_cause(c, slot, context))
        ),
        *(
            a
            for c in surplus
            for a in stop_and_remove(c, service, _removal_cause(c, slot, context))
        ),
        *new.start,
        # Only a running container gets the name: a stopped one without a network can't be healed.
        *([] if overlaps else new.attach_alias),
    ]
    alias = new.attach_alias if overlaps else []
    judged, is_allowed = judged_whole([*before, *alias], context.judge)
    if not is_allowed:
        return SlotPlan(slot.number, judged, blocked=True)
    before, after = judged[: len(before)], judged[len(before) :]
    if slot.current is None and overlaps and service.image_volumes is None:
        # Two containers must not write to a volume that the image declares. Until the image is
        # pulled, its volumes are unknown, so only the prerequisites (slot 0) are made.
        cause = f"which volumes {service.spec.image} declares is known once it is here"
        unknown = Delay(object=context.key, target=new.handle.name, slot=slot.number, cause=cause)
        shared = [action for action in before if action.slot == 0]
        return SlotPlan(slot.number, [*shared, unknown], blocked=True)
    removed = (*leftovers, *surplus)
    cleanup = _cleanup_actions(
        slot, context, ended_by=[*before, *new.attach_alias], removed=removed
    )
    return SlotPlan(
        slot.number,
        before,
        barrier=_available_barrier(replace(slot, current=None), new.handle.name, context),
        after=[*after, *cleanup],
    )


def _blocked_replacement(slot: SlotState, context: ServiceContext) -> SlotPlan | None:
    """Return a plan without a replacement, if one is impossible now; None otherwise.

    Reasons, in this order: a missing prerequisite, backoff, a port or volume in use by another
    service, no container to share namespaces with, a network to be remade, a host port in use by
    another program.
    """
    service, current = context.service, slot.current
    problems = context.prerequisites.problems(service, creating=current is None)
    if problems:
        return SlotPlan(slot.number, [], problems=problems, blocked=True)
    name = container_name_in(slot, context)
    backoff = context.backoff_reason(slot.number)
    if backoff is not None:
        return blocked_plan(slot, context, backoff, name)
    remake = context.network_remake if current is None or context.is_remaking else None
    unshared = context.unshared.get(slot.number)
    if (conflict := context.resource_conflict or unshared or remake) is not None:
        action = conflict.wait(context.key, target=name, slot=slot.number)
        return SlotPlan(slot.number, [action], blocked=True)
    port = contention.port_taken(service, context.containers, context.listening)
    if port is not None and slot.alive:
        cause = f"port {port.port} on {port.address} is taken by another program"
        return blocked_plan(slot, context, cause, name)
    return None


def _next_container(
    slot: SlotState, context: ServiceContext, staying: list[Container], *, overlaps: bool
) -> _NextContainer:
    """Return how a slot gets its container. *overlaps*: older containers, *staying*, serve meanwhile."""
    service, current, base = context.service, slot.current, context.prerequisites.names
    prepare = list(context.prerequisites.missing(service, creating=current is None))
    if current is not None:
        handle, restart = ContainerHandle.of(current), current.settings.restart
        # A container that is down has no connections, so it gets its service's present name.
        networks = _networks_without_alias(current, context, former_counts=False)
        displaced = displaced_on(current, staying)
        prepare += _moves_away(handle, displaced, slot.number)
        networks = (*networks, *displaced)
    else:
        create = create_of(
            service,
            context.prerequisites,
            slot=slot.number,
            containers=context.containers,
            cause=slot.why,
            with_alias=not overlaps,
        )
        prepare.append(create)
        handle = ContainerHandle.to_create(create)
        restart = engine_restart(service)[0]
        networks = joined_networks(service, base) if overlaps else ()
    hand_over = hand_over_by(staying, context)
    alias = attach_service_alias(handle, service, networks, base, hand_over)
    return _NextContainer(handle, prepare, _start_actions(slot, context, handle, restart), alias)


def _moves_away(
    handle: ContainerHandle, displaced: Iterable[str], slot: int
) -> Iterable[AnyAction]:
    """Yield the actions that give a stopped container other addresses: its own are in use."""
    why = f"another container of slot {slot} has its address"
    for network in displaced:
        yield handle.disconnect(network, why)
        yield handle.connect(network, (), why)


def _start_actions(
    slot: SlotState, context: ServiceContext, handle: ContainerHandle, restart: str
) -> list[AnyAction]:
    """Return the start of a container with the restart policy *restart*."""
    current = slot.current
    controller_restarts = context.is_restarted_by_controller(slot.number)
    policy = context.restart_policy(slot.number)
    cause = slot.why
    restarts = controller_restarts and not context.service.is_boot_ordered
    if current is not None and restarts and current.state is ContainerState.EXITED:
        cause = f"{current.name} {explain(current)}, and the controller restarts it"
    # A container that is down gets its limits before its start.
    limits = [] if current is None else limit_actions(current, context)
    # Set after the start: otherwise a stopped task with exit code 0 would count as finished.
    return [*limits, handle.start(cause), *handle.correct_restart_policy(restart, policy)]


def _containers_to_stop_first(slot: SlotState, context: ServiceContext) -> tuple[Container, ...]:
    """Return the containers to stop before the next container starts.

    With StopFirst: all of them. With StartFirst: only unhealthy and cut-off ones, and those at the next
    container's address.
    """
    if order_of(context.service) is Order.STOP_FIRST:
        return slot.alive
    return tuple(
        extra
        for extra in slot.alive
        if is_in_the_way(extra, slot)
        or (
            context.availability_of(extra) is AvailabilityWord.UNHEALTHY
            # The health check of a cut-off container gets another chance after the rejoin.
            and not _is_joined_again(extra, context)
        )
    )


def _surplus_replacements(
    slot: SlotState, context: ServiceContext, stop_first: tuple[Container, ...]
) -> tuple[Container, ...]:
    """Return the containers to remove before the next one starts: all but the best.

    Example: a second edit during a rollout makes the container of the first edit surplus. Without
    the removal, edits in a row would pile up running containers. While the best container is
    paused, a running surplus container stays: no other container may be answering.
    """
    alive = [extra for extra in by_rank(slot, context) if extra not in stop_first]
    surplus = alive[1:]
    if alive and not alive[0].running:
        surplus = [extra for extra in surplus if not extra.running]
    return tuple(surplus)


def by_rank(slot: SlotState, context: ServiceContext) -> list[Container]:
    """Return the extra containers with a process, the best first."""
    wanted = set(joined_networks(context.service, context.prerequisites.names))

    def rank(extra: Container) -> tuple[bool, bool, bool, bool, str, str]:
        cut_off = not wanted <= set(extra.settings.networks)
        nameless = bool(_networks_without_alias(extra, context))
        unready = context.availability_of(extra) is not AvailabilityWord.AVAILABLE
        return (cut_off, nameless, unready, not extra.running, extra.started_at, extra.id)

    return sorted(slot.alive, key=rank)


def _leftovers(slot: SlotState, service: Service) -> tuple[Container, ...]:
    """Return the remains of earlier attempts: down, of the current revision, not to be started."""
    down = (ContainerState.CREATED, ContainerState.EXITED, ContainerState.DEAD)
    return tuple(c for c in slot.extra if c.revision == service.revision and c.state in down)


def _cleanup_actions(
    slot: SlotState,
    context: ServiceContext,
    *,
    ended_by: Iterable[AnyAction] = (),
    removed: tuple[Container, ...] = (),
) -> list[AnyAction]:
    """Return the removals of a slot's extra containers.

    *ended_by* and *removed*: actions that the plan has taken by then, and containers that it removed.
    """
    actions: list[AnyAction] = []
    stopped = {action.target for action in ended_by if isinstance(action, StopContainer)}
    for extra in slot.extra:
        if extra in removed:
            continue
        cause = _removal_cause(extra, slot, context)
        if extra.name in stopped:
            removal: list[AnyAction] = [ContainerHandle.of(extra).remove(cause)]
        else:
            removal = stop_and_remove(extra, context.service, cause)
        actions += judged_sequence(removal, context.judge)
    return actions


def _removal_cause(extra: Container, slot: SlotState, context: ServiceContext) -> str:
    reason = context.plan_context.replace_reasons.get(extra.id, "")
    replica = ReplicaState(extra, context.service, replace_reason=reason)
    if replica.drift in (Drift.STALE, Drift.ALTERED):
        return cause_of(replica)
    return f"slot {slot.number} is filled by {slot.current.name}" if slot.current else slot.why


def plan_slot(slot: SlotState, context: ServiceContext) -> SlotPlan:
    """Plan one slot, and keep its predecessor alive until the slot serves as declared."""
    current, plan = slot.current, plan_current(slot, context)
    if current is not None and not plan.pending:
        return plan
    settling = current is not None and has_process(current)
    if not settling and not _takes_long(plan, context):
        return plan
    alive = [*slot.alive, *([current] if current is not None and current.state in ALIVE else [])]
    restart = [] if settling else _restart_failing(slot, context, plan)
    if any(not _is_given_up(container, context) for container in alive):
        keep_alive = keep_alive_actions(slot, context)
        return replace(plan, before=[*keep_alive, *restart, *plan.before])
    return _plan_fallback(slot, context) or replace(plan, before=[*restart, *plan.before])


def _is_given_up(container: Container, context: ServiceContext) -> bool:
    """Return True if a container of a paused rollout is unhealthy and another can run next to it."""
    paused = context.key in context.plan_context.paused
    overlaps = order_of(context.service) is Order.START_FIRST
    unhealthy = context.availability_of(container) is AvailabilityWord.UNHEALTHY
    return paused and overlaps and unhealthy


def _takes_long(plan: SlotPlan, context: ServiceContext) -> bool:
    """Return True if a slot's replacement will not be available at once, as far as is known."""
    pulls = any(isinstance(action, PullImage) for action in plan.before)
    failed = context.key in context.plan_context.last_pass_failed
    return plan.blocked or pulls or failed or context.key in context.plan_context.paused


def _restart_failing(slot: SlotState, context: ServiceContext, plan: SlotPlan) -> list[AnyAction]:
    """Return the restart of an unhealthy predecessor, if its replacement makes no progress."""
    failed = context.key in context.plan_context.last_pass_failed
    if not (plan.blocked or failed) or not slot.alive:
        return []
    predecessor = by_rank(slot, context)[0]
    failing = predecessor.id in context.plan_context.failing_predecessors and all(
        context.availability_of(extra) is AvailabilityWord.UNHEALTHY for extra in slot.alive
    )
    if not failing or not serving_container.needs_health_restart(predecessor, context):
        return []
    actions = serving_container.restart_actions(predecessor, context, unhealthy_cause(predecessor))
    # The policy may deny the start. A container that it denies is not stopped.
    refused = any(is_denied(action) for action in (*actions, *plan.before))
    return [] if refused else actions


def keep_alive_actions(slot: SlotState, context: ServiceContext) -> list[AnyAction]:
    """Return the actions to heal the serving container until its replacement serves."""
    predecessors = by_rank(slot, context)[:1]  # the others are removed as soon as possible
    deferred = context.deferred_repairs(slot.number)
    if not predecessors or not is_healable(predecessors[0], deferred):
        return []
    # Some container must answer to the service's name. A cut-off one has lost the alias.
    alive = [*slot.alive, *([slot.current] if slot.current is not None else [])]
    named = any(context.key.name in aliases for c in alive for _, aliases in c.aliases)
    healing, _ = serving_container.healing_actions(predecessors[0], context, with_alias=not named)
    return [action for action in with_verdicts(healing, context.judge) if not is_denied(action)]


def has_fallback(slot: SlotState, context: ServiceContext) -> bool:
    """Return True if nothing runs in a slot, and a stopped predecessor can be started again."""
    is_down = slot.current is None and not slot.alive
    return is_down and _startable_predecessor(slot, context) is not None


def _plan_fallback(slot: SlotState, context: ServiceContext) -> SlotPlan | None:
    """Return a plan to start the predecessor and then go on; None without a startable one.

    Actions behind its barrier are planned as if the predecessor ran already.
    """
    predecessor = _startable_predecessor(slot, context)
    contended = ENDED & set(context.deferred_repairs(slot.number))
    if predecessor is None or contended:
        return None
    handle, policy = ContainerHandle.of(predecessor), restart_of(context.service)
    healing, _ = serving_container.healing_actions(predecessor, context, with_alias=True)
    next_name = container_name_in(slot, context)
    # A replacement that is given up runs on, at the address that the predecessor was created with.
    alive = [*slot.alive, *([slot.current] if slot.current and slot.current.state in ALIVE else [])]
    displaced = displaced_on(predecessor, alive)
    start: list[AnyAction] = [*healing, *_moves_away(handle, displaced, slot.number)]
    start.append(handle.start(f"it serves until {next_name} can"))
    start += handle.correct_restart_policy(predecessor.settings.restart, policy)
    hand_over, base = hand_over_by(alive, context), context.prerequisites.names
    start += attach_service_alias(handle, context.service, displaced, base, hand_over)
    start, is_allowed = judged_whole(start, context.judge)
    if not is_allowed:
        return None
    running = replace(predecessor, state=ContainerState.RUNNING)
    extra = tuple(running if each is predecessor else each for each in slot.extra)
    if paused := context.plan_context.paused.get(context.key):
        blocked = blocked_plan(slot, context, paused, next_name)
        return replace(blocked, before=[*start, *blocked.before])
    plan = plan_current(replace(slot, extra=extra), context)
    cause = "must be up first"
    up = Barrier(object=context.key, target=predecessor.name, slot=slot.number, cause=cause)
    return replace(plan, before=[*start, *([] if plan.blocked else [up]), *plan.before])


def _startable_predecessor(slot: SlotState, context: ServiceContext) -> Container | None:
    """Return the stopped container of an older revision to start again; None without any.

    The last good revision is preferred, then the container that was started last.
    """
    if context.resource_conflict is not None and context.resource_conflict.code == FOREIGN:
        return None
    service, last_good = context.service, context.plan_context.last_good.get(context.key, "")
    candidates = [
        extra
        for extra in slot.extra
        if extra.state is ContainerState.EXITED
        and extra.revision != service.revision
        and extra.id not in context.volume_lost
        and not _has_lost_namespaces(extra, context)
        and not (extra.violation or ReplicaState(extra, service).is_finished)
        # A container that was altered while it was down is healed before its start.
        and all(each.in_place or each.what in RESTARTS for each in alterations(extra))
    ]
    candidates.sort(key=lambda extra: (extra.revision == last_good, extra.started_at, extra.id))
    return candidates[-1] if candidates else None


def _has_lost_namespaces(container: Container, context: ServiceContext) -> bool:
    """Return True if the container whose namespaces a container shares doesn't run, as far as is known."""
    shared = context.service.spec.shares is not None and container.slot not in context.unshared
    is_lost = not shared or container.id in context.plan_context.replace_reasons
    return container.shares != () and is_lost
