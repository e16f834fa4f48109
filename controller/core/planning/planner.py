"""The planner: all actions from the observed state to the desired state.

Pure: no I/O, no clock, no randomness, no logging. The same inputs, in any order, give the same
plan, byte for byte. The planner assumes that each action succeeds. After a failed action the
executor ends the pass, and the next pass observes and plans again.

A plan never touches a client's container or a suspended service, and removes a volume only if its
last document released the volume. While a document is unreadable, the plan removes no object that
the document could declare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import assert_never

from controller.core.drift.actions import (
    Judge,
    ignored_settings,
    is_denied,
    judged_sequence,
    taken_addresses,
    unknown_members,
    with_verdicts,
)
from controller.core.encoding.json_values import digest
from controller.core.engine_api.translate import update_body
from controller.core.jobs.decision import RolloutRun
from controller.core.jobs.rollout_hooks import HookWord
from controller.core.planning.context import NO_CONTEXT, PendingMove, PlanContext, ServiceContext
from controller.core.planning.deliveries import changed_files
from controller.core.planning.images_networks_volumes import (
    OutdatedNetwork,
    Prerequisites,
    VolumeRule,
    always_refuse,
    network_key,
    unread_problem,
    volume_removals,
    with_image_volumes,
)
from controller.core.planning.job_plan import JobPlan, plan_job
from controller.core.planning.networks import (
    plan_remake,
    remake_blocker,
    removal_of,
    unused_networks,
)
from controller.core.planning.quarantine import (
    NO_QUARANTINE,
    expired_tasks,
    removal_actions,
    renewal_actions,
)
from controller.core.planning.rollout_waves import RolloutPlan, plan_service
from controller.core.planning.service_order import Ordering
from controller.model.desired.desired import Desired, Network, Service, Volume
from controller.model.desired.plan import (
    AnyAction,
    Barrier,
    Blocked,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
    DisconnectNetwork,
    MoveService,
    Plan,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    RenameContainer,
    SignalContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
    Wait,
)
from controller.model.desired.spec.service import JobSpec
from controller.model.errors import Problem
from controller.model.names import Key, NetworkNames
from controller.model.observed import NO_RUNS, Container, Observed

#: The most actions in one plan. Later plans have the rest.
ACTIONS_MAX = 10_000


def keys(desired: Desired, observed: Observed) -> frozenset[Key]:
    """Return every key that a pass could have work for."""
    services = frozenset(service.key for service in desired.workloads)
    resources = frozenset(resource.key for resource in declared_resources(desired))
    return services | resources | _observed_services(observed) | _network_keys(observed)


def orphan_keys(desired: Desired, observed: Observed) -> frozenset[Key]:
    """Return the services with containers but without a document. Unread ones are left out."""
    declared = {service.key for service in desired.workloads}
    return _observed_services(observed) - declared - unread_keys(desired, observed)


def unread_keys(desired: Desired, observed: Observed) -> frozenset[Key]:
    """Return the resources whose document or Compose project can't be read: they stay as they are."""
    if not desired.blind_namespaces:
        return desired.blind_keys
    there = (key for key in _observed_services(observed) if desired.is_unread(key))
    return desired.blind_keys.union(there)


def declared_resources(desired: Desired) -> list[Network | Volume]:
    """Return the declared networks and volumes, by key."""
    resources: list[Network | Volume] = [*desired.networks, *desired.volumes]
    return sorted(resources, key=lambda resource: resource.key)


def _observed_services(observed: Observed) -> frozenset[Key]:
    return observed.services


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
    only: Key | frozenset[Key] | None = None,
    context: PlanContext = NO_CONTEXT,
    volume_rule: VolumeRule = always_refuse,
    moves: tuple[PendingMove, ...] = (),
) -> Plan:
    """Return all actions until convergence.

    Args:
        desired: the desired state, as declared in the files.
        observed: a snapshot; with *only* one key, the containers of the one service are enough.
        networks: the base names of the implied networks.
        judge: returns the policy's verdict on an action; the plan carries the verdicts.
        prunable: services with the prune guard's permission to be removed, scaled to 0 or stopped.
        blocked: removals held back by the prune guard; the plan shows them.
        policy_digest: the digest of the policy behind *judge*.
        only: plan a single key, or these keys; None: plan every key.
        context: knowledge of earlier passes.
        volume_rule: the policy's rule for a VOLUME of an image without a mount.
        moves: the moves to make first, or to wait for. *observed* is the snapshot after the moves.
    """
    chosen = frozenset({only}) if isinstance(only, Key) else only
    pulled = context.pulled
    desired = with_image_volumes(desired, observed, volume_rule, only=chosen, pulled=pulled)
    order = Ordering(
        desired,
        observed,
        context.known_services,
        crash_looping=context.controller_restarts,
        prunable=prunable,
        blocked=frozenset(each.key for each in blocked),
        now=context.now,
    )
    prerequisites = Prerequisites(desired, observed, networks, pulled)
    services = desired.workloads_by_key
    builder = _PlanBuilder(
        desired, services, observed, prerequisites, judge, prunable, context, order
    )
    pending = [move for move in moves if chosen is None or move.service.key in chosen]
    builder.actions += with_verdicts([move.step for move in pending], judge)
    if pending and isinstance(only, Key):
        # A pass makes the move alone, or waits: what follows needs a look at the containers.
        return _sealed(desired, observed, builder.actions, [], blocked, policy_digest)
    for resource in declared_resources(desired):
        if (chosen is None or resource.key in chosen) and resource.key not in desired.blind_keys:
            builder.plan_resource(resource)
    waiting = {move.service.key for move in pending if move.waits}
    unread = observed.unread.keys() if chosen is None else observed.unread.keys() & chosen
    builder.problems += [unread_problem(key, observed, services.get(key)) for key in sorted(unread)]
    untouched = desired.blind_keys | desired.suspended | waiting | unread
    if chosen is None:
        known = services.keys() | _observed_services(observed)
    else:
        known = {key for key in chosen if key in services or observed.of(key)}
    # The order matters between services only.
    sequence = order.sequence(known)
    builder.left.update(key for key in sequence if key not in untouched)
    for key in sequence:
        if key in builder.left:
            builder.left.discard(key)
            builder.plan_key(key)
    gone = [key for key in sorted(prunable) if chosen is None or key in chosen]
    builder.actions += with_verdicts(volume_removals(gone, desired, observed), judge)
    # A volume that stays keeps no network.
    held_back = any(each.key.kind != "Volume" for each in blocked)
    if not held_back and (chosen is None or any(key.kind == "Network" for key in chosen)):
        unused = unused_networks(desired, observed, networks, builder.actions)
        removals = [removal_of(n) for n in unused if chosen is None or network_key(n) in chosen]
        builder.actions += with_verdicts(removals, judge)
    sealed = _sealed(desired, observed, builder.actions, builder.problems, blocked, policy_digest)
    holds = tuple(hold for hold in desired.holds if chosen is None or hold.key in chosen)
    return replace(sealed, holds=holds)


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """The part of a plan about one key."""

    actions: tuple[AnyAction, ...] = ()
    problems: tuple[Problem, ...] = ()


def part(plan: Plan, key: Key) -> KeyPlan:
    """Return the part of a plan about *key*."""
    return KeyPlan(plan.of(key), tuple(problem for problem in plan.problems if problem.key == key))


def joined(plans: Mapping[Key, KeyPlan], blocked: tuple[Blocked, ...]) -> Plan:
    """Return the plan of the parts, without a digest."""
    problems = {problem for plan in plans.values() for problem in plan.problems}
    return Plan(
        actions=tuple(action for key in sorted(plans) for action in plans[key].actions),
        blocked=blocked,
        problems=tuple(sorted(problems, key=problem_order)),
    )


@dataclass(slots=True)
class _PlanBuilder:
    """A plan in the making."""

    desired: Desired
    services: Mapping[Key, Service]
    observed: Observed
    prerequisites: Prerequisites
    judge: Judge
    prunable: frozenset[Key]
    context: PlanContext
    order: Ordering
    #: The keys that are still to be planned.
    left: set[Key] = field(default_factory=set)
    actions: list[AnyAction] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def plan_resource(self, resource: Network | Volume) -> None:
        """Plan the creation of a declared network or volume."""
        problem = self.prerequisites.declared_problem(resource)
        if problem is not None:
            self.problems.append(problem)
            return
        outdated = self.prerequisites.outdated(resource.engine_name)
        if outdated is not None:
            self._plan_remake(outdated)
            return
        for action in judged_sequence(self.prerequisites.declared(resource), self.judge):
            if not is_denied(action):
                self.prerequisites.record_created(action)
            self.actions.append(action)

    def _plan_remake(self, outdated: OutdatedNetwork) -> None:
        keys = {container.key for container in self.observed.containers}
        remake = plan_remake(
            outdated,
            self.observed.containers,
            desired=self.desired,
            sequence={key: place for place, key in enumerate(self.order.sequence(keys))},
            judge=self.judge,
        )
        if remake.problem is not None:
            self.problems.append(remake.problem)
        if remake.is_complete:
            for action in remake.actions:
                self.prerequisites.record_created(action)
        self.actions += remake.actions

    def plan_key(self, key: Key) -> None:
        """Plan one service, declared or not."""
        containers = self.observed.of(key)
        service = self.services.get(key)
        outcome: RolloutPlan | JobPlan = RolloutPlan()
        if blocker := self.order.teardown_blocker(key):
            outcome.actions.append(blocker.wait(key, target=key.name))
        elif service is not None:
            is_job = isinstance(service.spec, JobSpec)
            quarantine = NO_QUARANTINE if is_job else self.context.quarantine
            expired = expired_tasks(service, containers, quarantine)
            self.actions += renewal_actions(expired, self.judge)
            left = tuple(c for c in containers if c not in expired)
            outcome = self._plan_workload(self._service_context(service, left))
            self.problems += unknown_members(service, containers)
            self.problems += ignored_settings(service, containers)
            self.problems += taken_addresses(service, containers)
        elif key in self.prunable and not self.desired.is_blind_for(key):
            outcome.actions += removal_actions(containers, self.judge, self.context.quarantine)
        if service is not None and key.kind != "Job":
            outcome.actions += self._changed_files(service, containers, outcome.actions)
            outcome.actions += [] if outcome.actions else self.order.following(service)
            after = self.order.hook_after(service)
            outcome.actions += [] if after is None else [after]
        self.order.record_planned(key, outcome.actions, outcome.problems)
        self.problems += outcome.problems
        job = None if service is None else self._job_before(service)
        for action in outcome.actions:
            if job is not None and isinstance(action, Barrier) and action.on == (job.job.key,):
                self._plan_run(job)
                job = None
            self.actions.append(action)

    def _job_before(self, service: Service) -> RolloutRun | None:
        """Return the run before a service's rollout, if the plan is to show that run, too."""
        hooks = self.order.hooks
        hook = hooks.before(service)
        if hook is None or hook.word is not HookWord.WAITING or hook.job not in self.left:
            return None
        job = self.services.get(hook.job)
        return None if job is None or hooks.asked(job) else hooks.preview(job, service)

    def _plan_run(self, run: RolloutRun) -> None:
        """Plan a job for the rollout of a service, as soon as the rollout asks for the run."""
        job = self.services[run.job.key]
        self.left.discard(job.key)
        context = self._service_context(job, self.observed.of(job.key))
        memory = self.observed.jobs.get(job.key, NO_RUNS)
        planned = plan_job(context, memory, self.context.now.of(job.key), [run])
        self.order.record_planned(job.key, planned.actions, planned.problems)
        self.actions += planned.actions
        self.problems += planned.problems

    def _changed_files(
        self, service: Service, containers: tuple[Container, ...], planned: list[AnyAction]
    ) -> list[AnyAction]:
        """Return the actions for contents that change in running containers."""
        busy = {action.precondition.id for action in planned}
        calm = [container for container in containers if container.id not in busy]
        made = {(a.kind, a.target) for a in planned if isinstance(a, DeliverFiles)}
        changed = changed_files(service, calm, self.desired, self.observed, made=made)
        return judged_sequence(changed, self.judge)

    def _plan_workload(self, context: ServiceContext) -> RolloutPlan | JobPlan:
        key = context.key
        if key.kind != "Job":
            return plan_service(context)
        memory = self.observed.jobs.get(key, NO_RUNS)
        asked = self.order.hooks.asked(context.service)
        return plan_job(context, memory, self.context.now.of(key), asked)

    def _service_context(
        self, service: Service, containers: tuple[Container, ...]
    ) -> ServiceContext:
        return ServiceContext(
            service=service,
            containers=containers,
            prerequisites=self.prerequisites,
            judge=self.judge,
            prunable=service.key in self.prunable,
            plan_context=self.context,
            blockers=self.order.blockers(service),
            listening=self.observed.listening,
            resource_conflict=self.order.resource_conflict(service),
            unshared=self.order.unshared(service),
            network_remake=remake_blocker(self.prerequisites.outdated_of(service)),
            volume_lost=frozenset(c.id for c in containers if self.order.has_lost_volume(c)),
        )


def _sealed(
    desired: Desired,
    observed: Observed,
    actions: list[AnyAction],
    problems: list[Problem],
    blocked: tuple[Blocked, ...],
    policy_digest: str,
) -> Plan:
    complete = not (desired.blind or desired.blind_keys or desired.blind_namespaces)
    if len(actions) > ACTIONS_MAX:
        # A prefix of a plan is safe: it equals a pass that ended early.
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
    """Return the sort key of a problem: its place, then its text."""
    return (
        problem.file,
        problem.line,
        problem.column,
        problem.code,
        str(problem.key or ""),
        problem.message,
    )


def _essence(action: AnyAction) -> dict[str, object]:
    """Return the digested members of an action: no number, text or time."""
    return {
        "action": action.verb,
        "object": str(action.object),
        "target": action.target,
        "slot": action.slot,
        "precondition": asdict(action.precondition),
        "decision": action.verdict.decision,
        **_particulars(action),
    }


#: Members of actions that are digested as they are.
_DIGESTED: Mapping[type[AnyAction], tuple[str, ...]] = {
    CreateNetwork: (
        *("owner", "internal", "masquerade", "icc", "subnet"),
        *("ipv6_subnet", "macvlan", "ip_range", "gateway"),
    ),
    CreateVolume: ("owner", "size", "remote"),
    DeliverFiles: ("owner", "content"),
    RenameContainer: ("name",),
    DisconnectNetwork: ("network",),
    SignalContainer: ("signal",),
}


def _particulars(action: AnyAction) -> dict[str, object]:
    match action:
        case CreateContainer():
            volumes = action.service.image_volumes
            return {
                "image": action.image,
                "revision": action.service.revision,
                "announced": action.with_alias,
                **({"occasion": action.occasion} if action.occasion else {}),
                **({"volumes": [[v.path, v.keeping] for v in volumes]} if volumes else {}),
            }
        case UpdateContainer():
            return {"body": update_body(action)}
        case StopContainer():
            return {"graceS": action.grace_s}
        case ConnectNetwork():
            return {"network": action.network, "aliases": list(action.aliases)}
        case (
            CreateNetwork()
            | CreateVolume()
            | DeliverFiles()
            | RenameContainer()
            | DisconnectNetwork()
            | SignalContainer()
        ):
            members = {name: getattr(action, name) for name in _DIGESTED[type(action)]}
            # Plans without the later members keep their digests.
            added = {"remote", "subnet", "size", "ipv6_subnet", "macvlan", "ip_range", "gateway"}
            return {name: value for name, value in members.items() if value or name not in added}
        case (
            PullImage()
            | RemoveNetwork()
            | RemoveVolume()
            | StartContainer()
            | UnpauseContainer()
            | RemoveContainer()
            | Wait()
        ):
            return {}
        case MoveService():
            return {"source": str(action.source), "owner": action.owner}
        case _:
            assert_never(action)
