"""The prune guard: permits the teardown of services and volumes, or holds it back for an approval.

A service is taken down when its document disappears, or says replicas 0 or Stopped. All three pass
through the guard. The guard compares with running containers, not with earlier documents. So a
controller with an empty directory at its start is blocked as well.

The guard counts as the gate does (``core.disruption``): the gate's budget has
room for every removal allowed by the guard.

An operator's approval overrides the count rules, and the rules for an empty or exchanged directory.
It never overrides blindness: an unreadable file could declare anything, and a missing directory
counts as unreadable.

With Git sources, DIR and each source are judged apart: what one of them lacks holds back only its own
services. A service belongs to the source that declared it last; a service of an unknown source
belongs to all that may declare it. The count rules are common to all.

The prune guard's memory, and its form in the controller's saved state.

Released volumes: the documents said ``retain: false``, and are gone now.

A volume is removed only after a dump, by an approved plan, and once no container has it. The controller
remembers which documents said so; a lost memory costs no data. Nothing is concluded while an unread
document possibly declares the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import PlainSerializer

from controller.core import disruption
from controller.core.drift.classify import ALIVE
from controller.core.planning.context import claimed_keys
from controller.core.planning.planner import unread_keys
from controller.model.desired.desired import (
    Declared,
    Desired,
    Network,
    Service,
    SourceScope,
    Volume,
)
from controller.model.desired.plan import Blocked
from controller.model.desired.spec.service import RunState
from controller.model.names import Key, qualified
from controller.model.observed import Container, ContainerState, Observed, ObservedVolume

#: Keys, in JSON as a sorted list of texts.
_Keys = Annotated[frozenset[Key], PlainSerializer(lambda keys: [*map(str, sorted(keys))])]


@dataclass(frozen=True, slots=True)
class PruneMemory:
    """The guard's memory between observations. The controller stores it."""

    #: The filesystem of the directory when all was well.
    device: int = 0
    #: The new candidates of the last observation.
    settling: _Keys = frozenset()
    #: When these candidates first appeared.
    settling_since: float = 0.0
    #: Services that may go and are not gone yet.
    going: _Keys = frozenset()
    #: Those of ``going`` that were still declared (scaled to 0, or Stopped). The removal of
    #: their documents is not allowed yet.
    standing: _Keys = frozenset()
    #: When each service of the window was allowed.
    passed: tuple[tuple[Key, float], ...] = ()
    #: The filesystem of each Git source when all was well.
    devices: tuple[tuple[str, int], ...] = ()
    #: The source of each resource, '' for DIR. Empty without Git sources.
    sources: tuple[tuple[Key, str], ...] = ()
    #: The volumes whose last document said ``retain: false``.
    released: _Keys = frozenset()
    #: Those of ``released`` whose removal is approved.
    removing: _Keys = frozenset()


RELEASE_CODE = "PrunePending"


@dataclass(frozen=True, slots=True)
class ReleasedVolumes:
    """The released volumes to remove now, and the waiting ones."""

    going: frozenset[Key]
    blocked: tuple[Blocked, ...]
    memory: PruneMemory


def decide_releases(
    desired: Desired, observed: Observed, memory: PruneMemory, *, approved: bool
) -> ReleasedVolumes:
    """Return the volumes to remove, the blocked volumes, and the new memory."""
    volumes = _volumes_by_key(desired, observed, memory)
    kept = {one.key for one in desired.volumes if one.spec.retain}
    declared = {one.key for one in desired.volumes}
    unread = {key for key in memory.released if desired.is_blind_for(key)}
    remembered = declared - kept | (memory.released - declared) & (volumes.keys() | unread)
    leaving = sorted(remembered - declared - unread)
    dumped = {key for key in leaving if volumes[key].dumped and not _users(observed, volumes[key])}
    going = frozenset(dumped if approved else dumped & memory.removing)
    blocked = tuple(
        _release_blocked(key, volumes[key], observed) for key in leaving if key not in going
    )
    memory = replace(memory, released=frozenset(remembered), removing=going)
    return ReleasedVolumes(going, blocked, memory)


def _volumes_by_key(
    desired: Desired, observed: Observed, memory: PruneMemory
) -> dict[Key, ObservedVolume]:
    named = {qualified(key.namespace, key.name): key for key in memory.released}
    bound = {one.engine_name for one in desired.volumes}
    return {
        named[volume.name]: volume
        for volume in observed.volumes
        if volume.name in named.keys() - bound
        # What an operator adopted, what a client made, or what moved away isn't the documents'.
        and volume.ours
        and volume.origin == "controller"
        and not volume.belongs_to
    }


def _users(observed: Observed, volume: ObservedVolume) -> list[str]:
    return sorted(each.name for each in observed.containers if volume.name in each.writes)


def _release_blocked(key: Key, volume: ObservedVolume, observed: Observed) -> Blocked:
    users = _users(observed, volume)
    if users:
        reason, remedy = f"{users[0]} has it", "wait until its containers are removed"
    elif not volume.dumped:
        reason = "it was never dumped"
        remedy = f"run `trimtab volume dump {volume.name} -o FILE`"
    else:
        reason = f"its data was dumped at {volume.dumped} and needs an approval to go"
        remedy = "look at `trimtab plan`, then approve it with `trimtab approve`"
    message = f"the volume {volume.name} would be removed with its data, but {reason}"
    return Blocked(key, RELEASE_CODE, message, f"{remedy}; to keep it, put its document back")


CODE = RELEASE_CODE
#: A removal needs a second, equal observation after this many seconds.
SETTLE_S = 2.0
#: The window, in seconds, in which removals are counted.
WINDOW_S = disruption.WINDOW_S
#: The longest time, in seconds, for which a leaving service waits for its dependents to leave.
DEPENDENTS_WAIT_S = 300.0

APPROVE = "look at `trimtab plan`, then approve it with `trimtab approve`"
REMOVED = "would be removed"
KEEP = "to keep it, put its document back"


@dataclass(frozen=True, slots=True)
class PruneDecision:
    """The guard's decision."""

    #: Services, and released volumes, that may go now.
    prunable: frozenset[Key]
    blocked: tuple[Blocked, ...]
    memory: PruneMemory
    #: When another observation could allow more; None if time does not help.
    recheck_at: float | None = None
    #: Services that may go if the next observation is equal. ``plan`` shows them as leaving.
    settling: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class PruneObservation:
    """An observation of the services about to be taken down."""

    desired: Desired
    memory: PruneMemory
    #: Observed services of the controller.
    services: frozenset[Key]
    #: Those with a running container.
    running: frozenset[Key]
    #: Those that would go.
    candidates: frozenset[Key]
    #: Candidates that were not allowed before.
    new: frozenset[Key]

    @property
    def recent(self) -> frozenset[Key]:
        """The services allowed within the window, gone or not."""
        return frozenset(key for key, _ in self.memory.passed)


@dataclass(frozen=True, slots=True)
class ScopeObservation:
    """DIR or a Git source, as the rules see it."""

    scope: SourceScope
    #: Its filesystem when all was well; 0 if unknown.
    device: int

    @property
    def place(self) -> str:
        """The name of the directory in a reason."""
        if self.scope.name:
            return f"Source {self.scope.name}"
        return f"the directory {self.scope.identity.path}"


def _unreadable(observation: ScopeObservation) -> str:
    scope = observation.scope
    if not scope.blind or (scope.name and not scope.identity.present):
        return ""
    if scope.declared is Declared.BROKEN:
        return f"the document of Source {scope.name} can't be read"
    if scope.declared is Declared.REMOVED:
        return f"a file or document can't be read, and may declare Source {scope.name}"
    of = f" of Source {scope.name}" if scope.name else ""
    return f"a file or document{of} can't be read, and may declare it"


def _missing(observation: ScopeObservation) -> str:
    scope = observation.scope
    if scope.identity.present:
        return ""
    if scope.name:
        return f"Source {scope.name} has no readable commit"
    return f"the directory {scope.identity.path} isn't there"


def _removed(observation: ScopeObservation) -> str:
    removed = observation.scope.declared is Declared.REMOVED
    return f"the document of {observation.place} was removed" if removed else ""


def _suspended(observation: ScopeObservation) -> str:
    suspended = observation.scope.declared is Declared.SUSPENDED
    return f"{observation.place} is suspended" if suspended else ""


def _empty(observation: ScopeObservation) -> str:
    if observation.scope.identity.documents > 0:
        return ""
    return f"{observation.place} is without any document"


def _exchanged(observation: ScopeObservation) -> str:
    if observation.device in (0, observation.scope.identity.device):
        return ""
    return f"{observation.place} is on another filesystem than before"


def _too_many(observation: PruneObservation) -> str:
    # Stopped services do not count at the gate, so running ones have a limit of their own.
    for services, word in (
        (observation.services, "services"),
        (observation.running, "running services"),
    ):
        new = observation.new & services
        going, total = len(observation.recent | new), len(services | observation.recent)
        if new and going > (limit := disruption.max_unavailable(total)):
            return f"{going} of {total} {word} would go within 10 minutes, more than {limit}"
    return ""


REPAIR = "repair what `trimtab status` names"
#: No service of a source goes while one of these holds, approved or not.
BLIND_RULES: tuple[tuple[Callable[[ScopeObservation], str], str], ...] = (
    (_unreadable, REPAIR),
    (_missing, "bring the directory back, or take all down with `trimtab down`"),
)
#: New candidates of a source wait for an approval while one of these holds.
SCOPE_RULES: tuple[Callable[[ScopeObservation], str], ...] = (
    _removed,
    _suspended,
    _empty,
    _exchanged,
)


def guard(
    desired: Desired,
    observed: Observed,
    memory: PruneMemory,
    *,
    now: float,
    approved: bool,
    looked: bool = True,
) -> PruneDecision:
    """Return what ``guard_services`` decides, together with the decision on released volumes."""
    decision = guard_services(desired, observed, memory, now=now, approved=approved, looked=looked)
    volumes = decide_releases(desired, observed, decision.memory, approved=approved)
    return replace(
        decision,
        prunable=decision.prunable | volumes.going,
        blocked=(*decision.blocked, *volumes.blocked),
        memory=volumes.memory,
    )


def guard_services(
    desired: Desired,
    observed: Observed,
    memory: PruneMemory,
    *,
    now: float,
    approved: bool,
    looked: bool,
) -> PruneDecision:
    """Return the services permitted to go, the blocked ones with reasons, and the new memory.

    Args:
        desired: the desired state.
        observed: the observed state.
        memory: the result of the guard before.
        now: seconds since the epoch, on a clock without jumps while the controller runs. After a
            restart it can differ from the clock before.
        approved: an operator approved everything pending at this observation. No second observation
            is needed then.
        looked: *observed* is fresh. If only the files were read again, *observed* can be old and lack
            services with an earlier turn. Then no new service is allowed.
    """
    memory = _aged(memory, now)
    memory = replace(memory, sources=_sources(desired, observed, looked=looked))
    gone = _candidates(desired, observed)
    candidates = frozenset(gone)
    declared = frozenset(key for key, words in gone.items() if words != REMOVED)
    going = (memory.going & candidates) - (memory.standing - declared)
    memory = replace(memory, going=going, standing=memory.standing & going)
    unseen = _blind(desired, memory, candidates)
    if all(scope.blind or not scope.identity.present for scope in desired.all_scopes):
        # A blind observation restarts the settling.
        memory = replace(memory, settling=frozenset(), settling_since=0.0)
        return PruneDecision(frozenset(), _blocked(unseen, gone), memory)
    mine = [c for c in observed.containers if c.origin == "controller"]
    observation = PruneObservation(
        desired,
        memory,
        services=frozenset(c.key for c in mine),
        running=frozenset(c.key for c in mine if c.state is ContainerState.RUNNING),
        candidates=candidates,
        new=candidates - memory.going - unseen.keys(),
    )
    held = {} if approved else _held_back(observation)
    free = observation.new - held.keys()
    since = memory.settling_since if free == memory.settling else now
    if approved or (looked and now - since >= SETTLE_S):
        passing, settling = free, frozenset[Key]()
    else:
        passing, settling = frozenset[Key](), free
    memory = replace(
        _with_devices(observation, approved=approved),
        settling=settling,
        settling_since=since if settling else 0.0,
        going=memory.going | passing,
        standing=memory.standing | (passing & declared),
        passed=tuple(sorted((dict(memory.passed) | dict.fromkeys(passing, now)).items())),
    )
    return PruneDecision(
        prunable=memory.going - unseen.keys(),
        blocked=_blocked({**held, **unseen}, gone),
        memory=memory,
        recheck_at=_recheck_at(memory, observation, blocked=bool(held)),
        settling=settling,
    )


def overdue(memory: PruneMemory, *, now: float) -> frozenset[Key]:
    """Return the leaving services whose teardown waits for dependents no more: it was allowed long
    ago.
    """
    passed = dict(memory.passed)
    return frozenset(key for key in memory.going if now - passed.get(key, 0.0) >= DEPENDENTS_WAIT_S)


def is_undecided(
    key: Key, desired: Desired, observed: Observed, memory: PruneMemory, decided: frozenset[Key]
) -> bool:
    """Return True if *key* is to be taken down, and the guard has not seen its containers yet.

    A container can appear after the last decision, for example at the end of a pass that outlasts its
    document. *decided* are the prunable and the blocked keys of that decision.
    """
    if key in decided or key in memory.settling:
        return False
    service = desired.workload(key)
    return any(_takedown(service, each) for each in observed.of(key)) and (
        key not in _left_alone(desired, observed)
    )


def _candidates(desired: Desired, observed: Observed) -> dict[Key, str]:
    """Return the services to take down, each with a phrase for the reason."""
    left_alone = _left_alone(desired, observed)
    gone: dict[Key, str] = {}
    for container in observed.containers:
        key = container.key
        if key not in left_alone and (words := _takedown(desired.workload(key), container)):
            gone[key] = words
    return gone


def _left_alone(desired: Desired, observed: Observed) -> frozenset[Key]:
    # Containers that go on under a new name of their service don't go.
    claimed = desired.suspended | claimed_keys(desired, observed)
    return claimed | unread_keys(desired, observed)


def _takedown(service: Service | None, container: Container) -> str:
    """Return why a container is to be taken down, as a phrase; '' if the container stays."""
    if container.origin != "controller":
        return ""
    if service is None:
        return REMOVED
    if service.spec.replicas == 0:
        return "would be scaled to 0"
    if service.spec.state is RunState.STOPPED and container.state in ALIVE:
        return "would be stopped"
    return ""


def _held_back(observation: PruneObservation) -> dict[Key, tuple[str, str]]:
    """Return the services in need of an approval, with reason and remedy."""
    held = _held_by_scope(observation)
    if len(held) == len(observation.new):
        return held
    if reason := _too_many(observation):
        return {**dict.fromkeys(observation.new, (reason, APPROVE)), **held}
    # A service scaled to 0 or stopped is declared, but does not occupy its namespace.
    down = {s.key for s in observation.desired.services if _is_down(s)} & observation.recent
    left = (
        {service.key for service in observation.desired.workloads} - observation.candidates - down
    )
    occupied = {key.namespace for key in left | observation.desired.blind_keys}
    for namespace in {key.namespace for key in observation.new} - occupied:
        new = {key for key in observation.new if key.namespace == namespace}
        # Files can disappear one after another: removals within the window count together.
        count = len(new | {key for key in observation.recent if key.namespace == namespace})
        if count > 1:
            reason = f"nothing would be left of the {count} services of namespace {namespace}"
            held = {**dict.fromkeys(new, (reason, APPROVE)), **held}
    return held


def _held_by_scope(observation: PruneObservation) -> dict[Key, tuple[str, str]]:
    """Return the services in need of an approval because of their source."""
    held: dict[Key, tuple[str, str]] = {}
    for key in observation.new:
        for rule in SCOPE_RULES:
            reasons = (rule(scope) for scope in _scopes_of(observation, key))
            if reason := next(filter(None, reasons), ""):
                held[key] = reason, APPROVE
                break
    return held


def _is_down(service: Service) -> bool:
    return service.spec.replicas == 0 or service.spec.state is RunState.STOPPED


def _blocked(
    reasons: Mapping[Key, tuple[str, str]], words: Mapping[Key, str]
) -> tuple[Blocked, ...]:
    return tuple(
        Blocked(
            key=key, code=CODE, reason=f"{words[key]}, but {reason}", remedy=f"{remedy}; {KEEP}"
        )
        for key, (reason, remedy) in sorted(reasons.items())
    )


def _blind(
    desired: Desired, memory: PruneMemory, candidates: frozenset[Key]
) -> dict[Key, tuple[str, str]]:
    """Return the services of blind sources, with reason and remedy."""
    found: dict[Key, tuple[str, str]] = {}
    for key in sorted(candidates):
        scopes = [ScopeObservation(s, _device_of(memory, s)) for s in desired.scopes_of(key)]
        for rule, remedy in BLIND_RULES:
            blind = next((s for s in scopes if rule(s)), None)
            if blind is not None:
                found[key] = rule(blind), REPAIR if blind.scope.name else remedy
                break
    return found


def _scopes_of(observation: PruneObservation, key: Key) -> list[ScopeObservation]:
    memory, scopes = observation.memory, observation.desired.scopes_of(key)
    return [ScopeObservation(scope, _device_of(memory, scope)) for scope in scopes]


def _device_of(memory: PruneMemory, scope: SourceScope) -> int:
    return dict(memory.devices).get(scope.name, 0) if scope.name else memory.device


def _with_devices(observation: PruneObservation, *, approved: bool) -> PruneMemory:
    """Return the memory with the filesystems to expect from now on.

    While a removal is new, a new filesystem of its source is refused.
    """
    memory, devices = observation.memory, dict[str, int]()
    changing = {
        scope.name for key in observation.new for scope in observation.desired.scopes_of(key)
    }
    for scope in observation.desired.all_scopes:
        known, identity = _device_of(memory, scope), scope.identity
        is_free = approved or not known or scope.name not in changing
        if is_free and (identity.documents or approved) and identity.present and not scope.blind:
            known = identity.device
        devices[scope.name] = known
    device = devices.pop("", memory.device)
    return replace(
        memory, device=device, devices=tuple(sorted((n, d) for n, d in devices.items() if d))
    )


def _sources(desired: Desired, observed: Observed, *, looked: bool) -> tuple[tuple[Key, str], ...]:
    """Return the source of each resource that is declared, runs, or may be declared unread.

    An old observation can lack a service that runs by now, so it makes no source forgotten.
    """
    kept = desired.blind_keys | {container.key for container in observed.containers}
    kept |= {one.key for one in desired.workloads} | {one.key for one in desired.networks}
    kept |= {one.key for one in desired.volumes} | {one.key for one in desired.releases}
    kept |= {one.key for one in desired.notifications}
    known = {
        key: scope.name
        for scope in desired.scopes
        for key in scope.keys
        if scope.blind or key in kept or not looked
    }
    # Without any source left, all belongs to DIR again.
    return tuple(sorted(known.items())) if desired.sources or any(known.values()) else ()


def _aged(memory: PruneMemory, now: float) -> PruneMemory:
    # An instant in the future is from before the clock was set back: it counts as now.
    passed = tuple((key, min(at, now)) for key, at in memory.passed if now - at < WINDOW_S)
    return replace(memory, passed=passed, settling_since=min(memory.settling_since, now))


def _recheck_at(
    memory: PruneMemory, observation: PruneObservation, *, blocked: bool
) -> float | None:
    times = [memory.settling_since + SETTLE_S] if memory.settling else []
    if blocked and observation.memory.passed:
        # The count falls when the oldest removal leaves the window.
        times.append(min(at for _, at in observation.memory.passed) + WINDOW_S)
    return min(times, default=None)


DeclaredResource = Service | Network | Volume


@dataclass(frozen=True, slots=True)
class DesiredView:
    """The desired state with overrides applied, and the prune guard's decision on exactly this state."""

    desired: Desired = field(default_factory=Desired)
    prunable: frozenset[Key] = frozenset()
    blocked: tuple[Blocked, ...] = ()

    def goal(self, key: Key) -> tuple[object, ...]:
        """Return the parts of the desired state that a pass of *key* works towards."""
        desired = self.desired
        left_alone = (key in desired.suspended, desired.is_unread(key))
        service = desired.workload(key)
        if service is None:
            return left_alone
        spec = service.spec
        if key.kind == "Job":
            return (*left_alone, service.revision, spec)
        slots = (service.revision, service.limits, spec.state, spec.replicas)
        return (*left_alone, *slots, service.restarting, service.deliveries)

    def able(self, keys: Iterable[Key]) -> frozenset[Key]:
        """Return the keys whose passes can act: not the suspended, blind and held back ones."""
        declared, suspended = self.resources(), self.desired.suspended
        return frozenset(
            key
            for key in keys
            if (key in declared or key in self.prunable or key.kind == "Network")
            and key not in self.desired.blind_keys
            and key not in suspended
        )

    def resources(self) -> dict[Key, DeclaredResource]:
        """Return the declared services, networks and volumes."""
        resources: tuple[DeclaredResource, ...] = (
            *self.desired.workloads,
            *self.desired.networks,
            *self.desired.volumes,
        )
        return {resource.key: resource for resource in resources}
