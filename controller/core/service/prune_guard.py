"""The prune guard: permits the teardown of services, or holds it back for an approval.

A service is taken down when its document disappears, or says replicas 0 or Stopped. All three pass
through the guard. The guard compares with running containers, not with earlier documents. So a
controller with an empty directory at its start is blocked as well.

The guard counts as the gate does (``core.enforcement.disruption_budget``): the gate's budget has
room for every removal allowed by the guard.

An operator's approval overrides the count rules, and the rules for an empty or exchanged directory.
It never overrides blindness: an unreadable file could declare anything, and a missing directory
counts as unreadable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from controller.core.drift.drift import ALIVE
from controller.core.enforcement import disruption_budget
from controller.model.desired.desired import Desired, Service, SourceIdentity
from controller.model.desired.plan import Blocked
from controller.model.desired.spec import RunState
from controller.model.names import Key
from controller.model.observed import ContainerState, Observed

CODE = "PrunePending"
#: A removal needs a second, equal observation after this many seconds.
SETTLE_S = 2.0
#: The window, in seconds, in which removals are counted.
WINDOW_S = disruption_budget.WINDOW_S
#: The longest time, in seconds, for which a leaving service waits for its dependents to leave.
FAREWELL_S = 300.0

APPROVE = "look at `trimtab plan`, then approve it with `trimtab approve`"
REMOVED = "would be removed"
KEEP = "to keep it, put its document back"


@dataclass(frozen=True, slots=True)
class PruneMemory:
    """The guard's memory between observations. The controller stores it."""

    #: The filesystem of the directory when all was well.
    device: int = 0
    #: The new candidates of the last observation.
    settling: frozenset[Key] = frozenset()
    #: When these candidates first appeared.
    settling_since: float = 0.0
    #: Services that may go and are not gone yet.
    going: frozenset[Key] = frozenset()
    #: Those of ``going`` that were still declared (scaled to 0, or Stopped). The removal of
    #: their documents is not allowed yet.
    standing: frozenset[Key] = frozenset()
    #: When each service of the window was allowed.
    passed: tuple[tuple[Key, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PruneDecision:
    """The guard's decision."""

    #: Services that may go now.
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
    def identity(self) -> SourceIdentity:
        """The identity of the directory now."""
        return self.desired.identity

    @property
    def recent(self) -> frozenset[Key]:
        """The services allowed within the window, gone or not."""
        return frozenset(key for key, _ in self.memory.passed)


def _unreadable(observation: PruneObservation) -> str:
    return (
        "a file or document can't be read, and may declare it" if observation.desired.blind else ""
    )


def _missing(observation: PruneObservation) -> str:
    return (
        ""
        if observation.identity.present
        else f"the directory {observation.identity.path} isn't there"
    )


def _empty(observation: PruneObservation) -> str:
    if observation.identity.documents > 0:
        return ""
    return f"the directory {observation.identity.path} is without any document"


def _exchanged(observation: PruneObservation) -> str:
    if observation.memory.device in (0, observation.identity.device):
        return ""
    return f"the directory {observation.identity.path} is on another filesystem than before"


def _too_many(observation: PruneObservation) -> str:
    # Stopped services do not count at the gate, so running ones have a limit of their own.
    for services, word in (
        (observation.services, "services"),
        (observation.running, "running services"),
    ):
        new = observation.new & services
        going, total = len(observation.recent | new), len(services | observation.recent)
        if new and going > (limit := disruption_budget.max_unavailable(total)):
            return f"{going} of {total} {word} would go within 10 minutes, more than {limit}"
    return ""


#: No service goes while one of these holds, approved or not.
BLIND_RULES: tuple[tuple[Callable[[PruneObservation], str], str], ...] = (
    (_unreadable, "repair what `trimtab status` names"),
    (_missing, "bring the directory back, or take all down with `trimtab down`"),
)
#: New candidates wait for an approval while one of these holds.
COUNT_RULES: tuple[Callable[[PruneObservation], str], ...] = (_empty, _exchanged, _too_many)


def guard(
    desired: Desired,
    observed: Observed,
    memory: PruneMemory,
    *,
    now: float,
    approved: bool,
    looked: bool = True,
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
    gone = _candidates(desired, observed)
    candidates = frozenset(gone)
    declared = frozenset(key for key, words in gone.items() if words != REMOVED)
    going = (memory.going & candidates) - (memory.standing - declared)
    memory = replace(memory, going=going, standing=memory.standing & going)
    mine = [c for c in observed.containers if c.origin == "controller"]
    observation = PruneObservation(
        desired,
        memory,
        services=frozenset(c.key for c in mine),
        running=frozenset(c.key for c in mine if c.state is ContainerState.RUNNING),
        candidates=candidates,
        new=candidates - memory.going,
    )

    for rule, remedy in BLIND_RULES:
        if reason := rule(observation):
            # A blind observation restarts the settling.
            blocked = dict.fromkeys(candidates, (reason, remedy))
            memory = replace(memory, settling=frozenset(), settling_since=0.0)
            return PruneDecision(frozenset(), _blocked(blocked, gone), memory)

    blocked = {} if approved else _held_back(observation)
    free = observation.new - blocked.keys()
    since = memory.settling_since if free == memory.settling else now
    if approved or (looked and now - since >= SETTLE_S):
        passing, settling = free, frozenset[Key]()
    else:
        passing, settling = frozenset[Key](), free
    memory = PruneMemory(
        device=_device(observation, approved=approved),
        settling=settling,
        settling_since=since if settling else 0.0,
        going=memory.going | passing,
        standing=memory.standing | (passing & declared),
        passed=_passed(memory, passing, now),
    )
    return PruneDecision(
        prunable=memory.going,
        blocked=_blocked(blocked, gone),
        memory=memory,
        recheck_at=_recheck_at(memory, observation, blocked=bool(blocked)),
        settling=settling,
    )


def overdue(memory: PruneMemory, *, now: float) -> frozenset[Key]:
    """Return the leaving services whose teardown waits for dependents no more: it was allowed long
    ago.
    """
    passed = dict(memory.passed)
    return frozenset(key for key in memory.going if now - passed.get(key, 0.0) >= FAREWELL_S)


def _candidates(desired: Desired, observed: Observed) -> dict[Key, str]:
    """Return the services to take down, each with a phrase for the reason."""
    services = {service.key: service for service in desired.services}
    left_alone = desired.blind_keys | desired.suspended
    gone: dict[Key, str] = {}
    for container in observed.containers:
        key = container.key
        if container.origin != "controller" or key in left_alone:
            continue
        service = services.get(key)
        if service is None:
            gone[key] = REMOVED
        elif service.spec.replicas == 0:
            gone[key] = "would be scaled to 0"
        elif service.spec.state is RunState.STOPPED and container.state in ALIVE:
            gone[key] = "would be stopped"
    return gone


def _held_back(observation: PruneObservation) -> dict[Key, tuple[str, str]]:
    """Return the services in need of an approval, with reason and remedy."""
    for rule in COUNT_RULES:
        if reason := rule(observation):
            return dict.fromkeys(observation.new, (reason, APPROVE))
    # A service scaled to 0 or stopped is declared, but does not occupy its namespace.
    down = {s.key for s in observation.desired.services if _is_down(s)} & observation.recent
    left = {service.key for service in observation.desired.services} - observation.candidates - down
    occupied = {key.namespace for key in left | observation.desired.blind_keys}
    held: dict[Key, tuple[str, str]] = {}
    for namespace in {key.namespace for key in observation.new} - occupied:
        new = {key for key in observation.new if key.namespace == namespace}
        # Files can disappear one after another: removals within the window count together.
        count = len(new | {key for key in observation.recent if key.namespace == namespace})
        if count > 1:
            reason = f"nothing would be left of the {count} services of namespace {namespace}"
            held |= dict.fromkeys(new, (reason, APPROVE))
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


def _device(observation: PruneObservation, *, approved: bool) -> int:
    """Return the filesystem to expect from now on. While a removal is new, a new filesystem is
    refused.
    """
    if approved or not observation.memory.device or not observation.new:
        return (
            observation.identity.device
            if observation.identity.documents or approved
            else observation.memory.device
        )
    return observation.memory.device


def _aged(memory: PruneMemory, now: float) -> PruneMemory:
    # An instant in the future is from before the clock was set back: it counts as now.
    passed = tuple((key, min(at, now)) for key, at in memory.passed if now - at < WINDOW_S)
    return replace(memory, passed=passed, settling_since=min(memory.settling_since, now))


def _passed(
    memory: PruneMemory, passing: frozenset[Key], now: float
) -> tuple[tuple[Key, float], ...]:
    return tuple(sorted((dict(memory.passed) | dict.fromkeys(passing, now)).items()))


def _recheck_at(
    memory: PruneMemory, observation: PruneObservation, *, blocked: bool
) -> float | None:
    times = [memory.settling_since + SETTLE_S] if memory.settling else []
    if blocked and observation.memory.passed:
        # The count falls when the oldest removal leaves the window.
        times.append(min(at for _, at in observation.memory.passed) + WINDOW_S)
    return min(times, default=None)


def to_json(memory: PruneMemory) -> dict[str, object]:
    """Return a memory as JSON, in whole milliseconds."""
    return {
        "device": memory.device,
        "settling": [str(key) for key in sorted(memory.settling)],
        "settlingSinceMs": round(memory.settling_since * 1000),
        "going": [str(key) for key in sorted(memory.going)],
        "standing": [str(key) for key in sorted(memory.standing)],
        "passed": [[str(key), round(at * 1000)] for key, at in memory.passed],
    }


def from_json(value: Mapping[str, object]) -> PruneMemory:
    """Parse the output of ``to_json``.

    Raises:
        ValueError: *value* is not a memory.
    """
    match value:
        case {
            "device": int(device),
            "settling": list(settling),
            "settlingSinceMs": int(since_ms),
            "going": list(going),
            "standing": list(standing),
            "passed": list(passed),
        }:
            return PruneMemory(
                device=device,
                settling=_keys(settling),
                settling_since=since_ms / 1000,
                going=_keys(going),
                standing=_keys(standing),
                passed=tuple(sorted(_entry(entry) for entry in passed)),
            )
        case _:
            raise ValueError(f"not the prune guard's memory: {value!r}")


def _keys(texts: list[object]) -> frozenset[Key]:
    return frozenset(Key.parse(str(text)) for text in texts)


def _entry(entry: object) -> tuple[Key, float]:
    match entry:
        case [str(text), int(at_ms)]:
            return Key.parse(text), at_ms / 1000
        case _:
            raise ValueError(f"not an entry of the prune guard's memory: {entry!r}")
