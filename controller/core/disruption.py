"""The disruption budget: which services are down because of the controller, and whether one more may go.

A service counts as down from the intent of a controller's mutation that can take a slot of it down,
until a slot of it has run, unaltered, for 5 s.

Such mutations are called takedowns: stop, kill, restart, pause and removal of a container, an update
to less than half of a limit, and a disconnect from an admitted network. A slot is unaltered if its
container has no outstanding takedown. A start, an unpause, a raised limit or a connect with the
service's name ends closed takedowns; a takedown in progress stays outstanding. A service that does
not come back stops counting ten minutes after the broker knew that its container was down, or was
started again.

Pure. The state is folded from the broker's own records alone. A container that a look at the engine
does not show as running keeps no service up, so an old look lets no more pass. One thing becomes
freer by a look: to halt a container that the engine shows as down, or as being restarted by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final, Literal, assert_never

from controller.core.engine_api.requests import Finding
from controller.model.inventory import TAKEN_MAX, Capacity, RecordTime, Replica, TakenDown, without
from controller.model.mutations import Mutation

RULE: Final = "blast.radius"
#: A slot keeps its service up once it has run, unaltered, for this long, in seconds.
RUN_S: Final = 5.0
#: How long a service counts that does not come back, in seconds from the moment it was down.
WINDOW_S: Final = 600.0
#: This many services may always be down, and in larger installations 30 % of all.
FREE: Final = 3
PERCENT: Final = 30
_SHOWN_MAX = 5

#: The mutations that end or freeze a container.
HALTS: Final = frozenset(
    {
        Mutation.CONTAINER_STOP,
        Mutation.CONTAINER_KILL,
        Mutation.CONTAINER_RESTART,
        Mutation.CONTAINER_PAUSE,
        Mutation.CONTAINER_REMOVE,
    }
)

#: The scope of a takedown: '' if nothing goes down, a slot of a service that stays up, or the whole
#: service.
RemovalScope = Literal["", "slot", "service"]
#: Returns the age of a record in seconds.
AgeOf = Callable[[RecordTime], float]


@dataclass(frozen=True, slots=True)
class Budget:
    """The counted state: the controller's containers, and the takedowns that are outstanding."""

    replicas: Mapping[str, Replica] = field(default_factory=dict)  # by the container's id
    taken: Mapping[str, TakenDown] = field(default_factory=dict)  # by the intent's id


@dataclass(frozen=True, slots=True)
class Call:
    """A controller's request to change a container."""

    container: str
    route: str
    #: Of a disconnect.
    network: str = ""
    #: Of an update: the limits that would apply.
    capacity: Capacity | None = None
    #: Those that a container without a set of CPUs has; 0 if unknown.
    host_cpus: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """What the engine shows. It may be older than the state."""

    #: The containers that have run for ``RUN_S``.
    running: frozenset[str] = frozenset()
    #: The container of the call runs or is paused, or a start of it is in progress.
    target_runs: bool = True
    #: How long ago the engine was asked, in seconds.
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BudgetDecision:
    """The decision on a call; with a finding the call exceeds the budget."""

    takes: RemovalScope
    finding: Finding | None = None


# Events


@dataclass(frozen=True, slots=True)
class Created:
    """A container of the controller's was created, or adopted."""

    replica: Replica


@dataclass(frozen=True, slots=True)
class Begun:
    """The intent of a mutation that takes a container down was recorded."""

    taken: TakenDown


@dataclass(frozen=True, slots=True)
class Closed:
    """The mutation of an intent ended."""

    intent: str
    #: down: the container is down, or the change took effect. nothing: the engine refused the
    #: request. unknown: the effect may still come.
    effect: Literal["down", "nothing", "unknown"]


@dataclass(frozen=True, slots=True)
class Halted:
    """A container was stopped, by whomever."""

    container: str


@dataclass(frozen=True, slots=True)
class Ran:
    """A container was started, restarted or unpaused."""

    container: str
    #: The number of the intent's record: later takedowns stay outstanding.
    seq: int
    #: An unpause ends nothing but a pause.
    unpaused: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """The limits of a container were changed."""

    container: str
    seq: int  # of the intent, as in ``Ran``
    capacity: Capacity
    #: The controller changed them. Others grant nothing: the controller puts their changes back.
    is_granted: bool = True


@dataclass(frozen=True, slots=True)
class Joined:
    """A container was connected to a network."""

    container: str
    seq: int  # of the intent, as in ``Ran``
    network: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A container exists no more."""

    container: str


Event = Created | Begun | Closed | Halted | Ran | Changed | Joined | Gone


def fold(budget: Budget, event: Event, now: RecordTime) -> Budget:
    """Return the state after an event; *now* is the event's record."""
    match event:
        case Created(replica):
            return _with_replica(budget, replica)
        case Begun(taken):
            return _begin(budget, taken)
        case Closed(intent, effect):
            return _close(budget, intent, effect, now)
        case Halted(container):
            return _halt(budget, container)
        case Ran(container, seq, unpaused):
            routes = {Mutation.CONTAINER_PAUSE} if unpaused else HALTS
            return _end(budget, container, now, lambda t: t.route in routes and t.seq <= seq)
        case Changed():
            return _change(budget, event, now)
        case Joined(container, seq, network):
            return _end(
                budget,
                container,
                now,
                lambda t: t.network == network and t.seq <= seq,
                runs=False,
            )
        case Gone(container):
            return _forget(budget, container, now)
        case _:
            assert_never(event)


def _with_replica(budget: Budget, replica: Replica) -> Budget:
    return replace(budget, replicas={**budget.replicas, replica.container: replica})


def _halt(budget: Budget, container: str) -> Budget:
    replica = budget.replicas.get(container)
    return budget if replica is None else _with_replica(budget, replace(replica, up=None))


def _begin(budget: Budget, taken: TakenDown) -> Budget:
    """Count a takedown. Beyond the limit drop the one that was down first.

    ``admit`` admits no more than the limit at a time, so the dropped one is expired.
    """
    kept = {**budget.taken, taken.intent: taken}
    while len(kept) > TAKEN_MAX:
        del kept[min(kept, key=lambda key: _down_order(kept[key]))]
    return replace(budget, taken=kept)


def _down_order(taken: TakenDown) -> tuple[bool, str]:
    return taken.down_since is None, "" if taken.down_since is None else taken.down_since.time


def _close(budget: Budget, intent: str, effect: str, now: RecordTime) -> Budget:
    taken = budget.taken.get(intent)
    if taken is None:
        return budget
    kept = dict(budget.taken)
    if effect == "nothing":
        del kept[intent]
        return replace(budget, taken=kept)
    for key in _superseded(budget, taken):
        del kept[key]
    since = now if effect == "down" else taken.down_since
    kept[intent] = replace(taken, closed=True, down_since=since)
    return replace(budget, taken=kept)


def _superseded(budget: Budget, taken: TakenDown) -> list[str]:
    """Return the earlier takedowns that *taken* replaces, so that the state stays small.

    These are closed takedowns of the same container and kind, and closed takedowns of removed
    containers of the service.
    """

    def is_same(each: TakenDown) -> bool:
        kinds = [(one.container, one.route, one.network, one.approved) for one in (each, taken)]
        return kinds[0] == kinds[1]

    def is_past(each: TakenDown) -> bool:
        same = each.service == taken.service and not taken.approved
        return same and each.container not in budget.replicas

    return [
        key
        for key, each in budget.taken.items()
        if each.closed and key != taken.intent and (is_same(each) or is_past(each))
    ]


def _of(budget: Budget, container: str) -> list[tuple[str, TakenDown]]:
    """Return the takedowns of a container, with their keys."""
    return [pair for pair in budget.taken.items() if pair[1].container == container]


def _end(
    budget: Budget,
    container: str,
    now: RecordTime,
    is_ended: Callable[[TakenDown], bool],
    *,
    runs: bool = True,
) -> Budget:
    """End closed takedowns of a container: it is unaltered by them, and its time begins again.

    Their services count on until the container, or another slot, has run for ``RUN_S``.
    """
    ended = {
        key: replace(each, ended=True, down_since=now)
        for key, each in _of(budget, container)
        if each.closed and not each.ended and is_ended(each)
    }
    replica = budget.replicas.get(container)
    if replica is not None and (runs or (ended and replica.up is not None)):
        budget = _with_replica(budget, replace(replica, up=now))
    return replace(budget, taken={**budget.taken, **ended}) if ended else budget


def _change(budget: Budget, event: Changed, now: RecordTime) -> Budget:
    replica = budget.replicas.get(event.container)
    if replica is None:
        return budget
    granted = replica.granted
    if event.is_granted:
        granted = granted.largest(event.capacity)
    replica = replace(replica, capacity=event.capacity, granted=granted)
    budget = _with_replica(budget, replica)
    if event.capacity.is_below_half_of(granted):
        return budget
    update = Mutation.CONTAINER_UPDATE
    return _end(
        budget,
        event.container,
        now,
        lambda taken: taken.route == update and taken.seq <= event.seq,
        runs=False,
    )


def _forget(budget: Budget, container: str, now: RecordTime) -> Budget:
    """Forget a container. Its service counts on, unless an operator approved the removal."""
    taken = dict(budget.taken)
    for key, each in _of(budget, container):
        if each.approved:
            del taken[key]
        else:
            taken[key] = replace(each, closed=True, down_since=each.down_since or now)
    return Budget(without(budget.replicas, container), taken)


# Decisions


def can_take_down(budget: Budget, call: Call) -> bool:
    """Return True if a call can take its container down."""
    replica = budget.replicas.get(call.container)
    if replica is None:
        return False
    if call.route == Mutation.CONTAINER_UPDATE:
        assert call.capacity is not None, "an update has limits"
        # Also if it changes nothing now: the engine may carry it out after a later update.
        return call.capacity.is_below_half_of(replica.granted, host_cpus=call.host_cpus)
    if call.route == Mutation.NETWORK_DISCONNECT:
        return call.network in replica.networks
    return call.route in HALTS


def admit(
    budget: Budget, call: Call, look: Look, age_s: AgeOf, *, approved: bool = False
) -> BudgetDecision:
    """Judge a call. An *approved* one is admitted beyond the budget, and isn't counted."""
    if not can_take_down(budget, call):
        return BudgetDecision("")
    is_down = not look.target_runs and look.age_s < RUN_S  # so it hasn't run for ``RUN_S``
    if is_down and call.route in HALTS:  # limits and networks last beyond the next start
        return BudgetDecision("")
    replica = budget.replicas[call.container]
    outstanding = [each for each in budget.taken.values() if expires_in_s(each, age_s) > 0]
    up = _up(budget, outstanding, look, age_s)
    if len(outstanding) >= TAKEN_MAX:  # else a counted takedown would be dropped for this one
        return BudgetDecision("service", _too_many())
    if any(each != call.container and up[each] == replica.service for each in up):
        return BudgetDecision("slot")
    if approved:
        return BudgetDecision("service")
    down = down_services(outstanding, frozenset(up.values()), age_s)
    return BudgetDecision(
        "service", judge_service(replica.service, down=down, available=up.values())
    )


def _up(
    budget: Budget, outstanding: Iterable[TakenDown], look: Look, age_s: AgeOf
) -> dict[str, str]:
    """Return the service of each container with an unaltered run of at least ``RUN_S``."""
    altered = {each.container for each in outstanding if not each.ended}
    return {
        each.container: each.service
        for each in budget.replicas.values()
        if each.up is not None
        # Seen by the look, and long enough before it: an older look shows an earlier run.
        and age_s(each.up) - look.age_s >= RUN_S
        and each.container in look.running
        and each.container not in altered
    }


def down_services(
    outstanding: Iterable[TakenDown], available: frozenset[str], age_s: AgeOf
) -> dict[str, float]:
    """Return the services that count as down, each with the seconds until it counts no more.

    Infinite for a service that counts until it is up again.
    """
    down: dict[str, float] = {}
    for each in outstanding:
        if not each.approved and each.service not in available:
            down[each.service] = max(expires_in_s(each, age_s), down.get(each.service, 0.0))
    return down


def expires_in_s(taken: TakenDown, age_s: AgeOf) -> float:
    """Return the seconds until a takedown counts no more if its service stays down.

    Infinite while the container can still go down because of it.
    """
    if not taken.closed or taken.down_since is None:
        return inf
    # A record of the future counts as of now: the clock was set back.
    return max(0.0, WINDOW_S - max(0.0, age_s(taken.down_since)))


def max_unavailable(total: int) -> int:
    """Return how many of *total* services may be down at a time."""
    return max(FREE, total * PERCENT // 100)


def judge_service(
    service: str, *, down: Mapping[str, float], available: Iterable[str]
) -> Finding | None:
    """Return the finding if taking *service* down as well exceeds the budget, else None.

    *down* are the services that count as down, each with the seconds until it counts no more.
    *available* are the services that are up.
    """
    others = {name: left_s for name, left_s in down.items() if name != service}
    total = len({*available, *others, service})
    most = max_unavailable(total)
    if len(others) + 1 <= most:
        return None
    names = sorted(others)
    shown = ", ".join(names[:_SHOWN_MAX])
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    reason = (
        f"the disruption budget is used up: {service} would be one more of {total} services that "
        f"are down because of the controller ({shown}{more}), and at most {most} may be"
    )
    return Finding(RULE, "", reason, "; or ".join(_ways_out(free_in_s(others, total=total))))


def free_in_s(down: Mapping[str, float], *, total: int) -> float:
    """Return the seconds until one more service may go down, if none of *down* comes back."""
    soonest_first = sorted(down.values())
    for expired, left_s in enumerate(soonest_first, 1):
        if len(soonest_first) - expired + 1 <= max_unavailable(total - expired):
            return left_s
    return 0.0


def _ways_out(wait_s: float) -> Iterator[str]:
    yield f"wait until one of them has run for {RUN_S:g} s"
    if wait_s < inf:
        yield f"wait {max(1, round(wait_s))} s"
    yield "look at `trimtab plan` and approve it with `trimtab approve`"


def _too_many() -> Finding:
    reason = f"the controller took down {TAKEN_MAX} containers within 10 minutes"
    return Finding(RULE, "", reason, "wait until the first of them is 10 minutes ago")
