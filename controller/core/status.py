"""Status: what is reported of each resource, in the shape of `trimtab status --json`.

Pure: `since` comes from the report before as long as a condition's status is the same. Nothing
here is ever read as input for a decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

from controller.core.diff import ALIVE, Drift, Replica, Slot, ailment, drift_of, slot_of, why
from controller.core.exits import explain
from controller.core.moves import denied
from controller.core.order import FAILED
from controller.core.planner import declared_resources, orphan_keys
from controller.core.succession import order_of, why_order
from controller.core.supplies import Supplies, network_name, volume_name
from controller.core.text import blocked_json, problem_json
from controller.model.desired import Desired, Hold, Network, Release, Service, Volume
from controller.model.errors import Act, Problem, Severity
from controller.model.names import Key, NetworkNames
from controller.model.observed import Container, Observed
from controller.model.plan import AnyAction, Plan, Verdict, Wait, at_rest, hopeless
from controller.model.spec import RunState

State = Literal["True", "False", "Unknown"]
#: Always reported, in this order; the others only while they hold.
ALWAYS = ("Ready", "Progressing", "Degraded", "Stalled")
Report = dict[str, object]
#: What helps a rollout that failed on.
PAUSED_REMEDY = "change its document, or let it be tried again with `trimtab resume`"


@dataclass(frozen=True, slots=True)
class Failure:
    """How the last pass of a key ended, where it didn't end well."""

    act: Act
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class World:
    """What a report is made from.

    ``observed`` is None while the engine can't be looked at. ``generations`` has the counter of
    accepted spec changes of a key and the last one fully acted on. ``violations`` are the verdicts
    on services that the policy doesn't admit any more, or only for now (``audit-deny``). ``causes``
    say why slots failed the last time. ``problems`` are the controller's own.
    """

    desired: Desired
    observed: Observed | None
    plan: Plan
    networks: NetworkNames
    generations: Mapping[Key, tuple[int, int]] = field(default_factory=dict)
    looping: frozenset[tuple[Key, int]] = frozenset()
    contended: Mapping[tuple[Key, int], tuple[str, ...]] = field(default_factory=dict)
    causes: Mapping[tuple[Key, int], str] = field(default_factory=dict)
    failed: Mapping[Key, str] = field(default_factory=dict)  # rollouts, and why
    failures: Mapping[Key, Failure] = field(default_factory=dict)
    progress: Mapping[Key, str] = field(default_factory=dict)  # of what takes long, and runs now
    violations: Mapping[Key, Verdict] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement about a resource, with its reason."""

    type: str
    status: State
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one resource."""

    key: Key
    owner: str
    desired: int
    ready: int
    serving: int = 0
    earlier: int = 0  # slots where another revision serves, while the declared one isn't there yet
    revision: str = ""
    image: str = ""
    slots: tuple[Report, ...] = ()
    unhealthy: tuple[str, ...] = ()
    declared: bool = True
    resting: int = 0  # replicas that run and shouldn't
    failed: tuple[str, ...] = ()  # tasks that ended badly and aren't started again
    rollout: Report = field(default_factory=dict)  # in what order a replica is replaced, and why


def report(world: World, *, previous: Report | None, now: str) -> Report:
    """Return the report: every resource by key, and every problem.

    *previous* is the report before, *now* the instant of this one as RFC 3339.
    """
    before = _conditions_before(previous)
    resources = [_resource(facts, world, before, now) for facts in _all_facts(world)]
    ready = {str(r["key"]) for r in resources if _is_ready(r)}
    for release in world.desired.releases:
        facts = _release_facts(release, ready)
        resources.append(_resource(facts, world, before, now))
    resources.sort(key=lambda resource: Key.parse(str(resource["key"])))
    for resource in resources:
        del resource["key"]
    problems = dict.fromkeys((*world.problems, *world.desired.problems, *world.plan.problems))
    return {
        "resources": resources,
        "problems": [
            *(blocked_json(blocked) for blocked in world.plan.blocked),
            *(problem_json(problem) for problem in problems),
        ],
    }


def all_ready(value: Report) -> bool:
    """Tell whether every resource of a report is Ready."""
    resources = value["resources"]
    assert isinstance(resources, list), "a report's resources are a list"
    return all(_is_ready(resource) for resource in resources)


def _is_ready(resource: Report) -> bool:
    conditions = resource["conditions"]
    assert isinstance(conditions, list), "a resource's conditions are a list"
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _all_facts(world: World) -> Iterator[Facts]:
    desired = world.desired
    for service in desired.services:
        yield _service_facts(service, world.observed)
    for resource in declared_resources(desired):
        yield _supply_facts(resource, world)
    if world.observed is None:
        return
    declared = {service.key for service in desired.services}
    there = {c.key for c in world.observed.containers if c.origin == "controller"}
    for key in orphan_keys(desired, world.observed) | (there & desired.blind_keys) - declared:
        yield _orphan_facts(key, world.observed.of(key))
    for key in desired.suspended - declared - there:
        # Nothing is left of it but that it is to be left so.
        yield Facts(key, "", desired=0, ready=0, declared=False)


def _service_facts(service: Service, observed: Observed | None) -> Facts:
    resting = service.spec.state is RunState.STOPPED
    wanted = 0 if resting else service.spec.replicas
    containers = () if observed is None else observed.of(service.key)
    by_slot: dict[int, tuple[Container, ...]] = {}
    for container in containers:
        by_slot[container.slot] = (*by_slot.get(container.slot, ()), container)
    slots = [
        slot_of(number, by_slot.get(number, ()), service)
        for number in range(1, service.spec.replicas + 1)
    ]
    kept = [] if resting else [slot.keep for slot in slots if slot.keep is not None]
    replicas = [Replica(container, service) for container in kept]
    finished = [r.container for r in replicas if r.finished]
    done = [c for c in finished if c.exit_code == 0]
    running = [c for c in kept if c.running and c.health in ("", "healthy")]
    serving = {c.slot for c in containers if c.running and not Replica(c, service).spare}
    earlier = {
        c.slot
        for c in containers
        if c.running and Replica(c, service).stale and c.health in ("", "healthy")
    }
    ill = [
        ailment(c)
        for c in containers
        if c.running and c.health == "unhealthy" and Replica(c, service).stale
        if c.slot in serving and c.slot not in earlier | {k.slot for k in running}
    ]
    spares = sorted({c.slot for c in containers if Replica(c, service).spare})
    shown = () if observed is None else (*slots, *(_spare(n, by_slot[n]) for n in spares))
    return Facts(
        key=service.key,
        owner=service.owner,
        desired=wanted,
        ready=len(running) + len(done),
        serving=len(serving | {c.slot for c in done}),
        earlier=len((earlier & serving) - {c.slot for c in running}),
        revision=service.revision,
        image=service.spec.image,
        slots=tuple(_slot_report(slot) for slot in shown),
        unhealthy=(*(why(r) for r in replicas if drift_of(r) is Drift.UNHEALTHY), *ill),
        resting=sum(c.state in ALIVE for c in containers) if resting else 0,
        failed=tuple(f"{c.name} {explain(c)}" for c in finished if c.exit_code),
        rollout={"order": order_of(service).value, "why": why_order(service)},
    )


def _spare(number: int, containers: tuple[Container, ...]) -> Slot:
    return Slot(number, None, containers, Drift.ORPHAN, "")


def _slot_report(slot: Slot) -> Report:
    """Return one row: the container that fills the slot now, else the first of those in it."""
    fills = slot.keep if slot.keep and slot.keep.running else None
    alive = next(iter(slot.alive), None)
    container = fills or alive or slot.keep or next(iter(slot.others), None)
    if container is None:
        return {
            "slot": slot.number,
            "container": "",
            "state": "missing",
            "health": "",
            "restarts": 0,
        }
    return {
        "slot": slot.number,
        "container": container.name,
        "state": container.state.value,
        "health": container.health,
        "restarts": container.restart_count,
        **_seen(container),
    }


def _seen(container: Container) -> Report:
    """Return why it is down, and what the broker saw of it in the kernel, as far as it looked."""
    seen = {
        "cause": explain(container),
        "effective": container.effective,
        "violation": container.violation,
    }
    return {name: value for name, value in seen.items() if value}


def _recalled(row: Report, key: Key, world: World) -> Report:
    """Return a slot's row with why it failed the last time, where it isn't down for a cause now."""
    cause = world.causes.get((key, int(str(row["slot"]))), "")
    return {"cause": cause, **row} if cause else row


def _supply_facts(resource: Network | Volume, world: World) -> Facts:
    ready = 0
    if world.observed is not None:
        supplies = Supplies(world.desired, world.observed, world.networks)
        there = (
            {network.name for network in world.observed.networks}
            if isinstance(resource, Network)
            else {volume.name for volume in world.observed.volumes}
        )
        name = network_name(resource) if isinstance(resource, Network) else volume_name(resource)
        ready = int(name in there and supplies.declared_problem(resource) is None)
    return Facts(resource.key, resource.owner, desired=1, ready=ready, serving=ready)


def _orphan_facts(key: Key, containers: tuple[Container, ...]) -> Facts:
    running = sum(container.running for container in containers)
    slots: dict[int, tuple[Container, ...]] = {}
    for container in containers:
        slots[container.slot] = (*slots.get(container.slot, ()), container)
    return Facts(
        key=key,
        owner=containers[0].owner,
        desired=0,
        ready=running,
        revision=containers[0].revision,
        image=containers[0].image,
        slots=tuple(_slot_report(_spare(n, slots[n])) for n in sorted(slots)),
        declared=False,
    )


def _release_facts(release: Release, ready: set[str]) -> Facts:
    count = sum(str(member) in ready for member in release.members)
    return Facts(
        release.key, release.owner, desired=len(release.members), ready=count, serving=count
    )


def _resource(
    facts: Facts, world: World, before: Mapping[tuple[str, str], Report], now: str
) -> Report:
    key = facts.key
    generation, observed_generation = world.generations.get(key, (0, 0))
    conditions = []
    for condition in _conditions(facts, world):
        was = before.get((str(key), condition.type))
        same = was is not None and was.get("status") == condition.status
        conditions.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "since": was["since"] if was is not None and same else now,
            }
        )
    return {
        "key": str(key),
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "owner": facts.owner,
        "desired": facts.desired,
        "ready": facts.ready,
        "revision": facts.revision,
        "image": facts.image,
        "digest": _digest(facts, world.observed),
        "generation": generation,
        "observedGeneration": observed_generation,
        **({"earlier": facts.earlier} if facts.earlier else {}),
        **({"rollout": facts.rollout} if facts.rollout else {}),
        "conditions": conditions,
        "slots": [_recalled(row, key, world) for row in facts.slots],
    }


def _digest(facts: Facts, observed: Observed | None) -> str:
    """Return what the reference was resolved to: a digest, or the id of a local image."""
    if observed is None:
        return ""
    image = observed.pins.get(facts.revision) or observed.images.get(facts.image)
    return "" if image is None else image.digest or image.id


def _conditions_before(previous: Report | None) -> dict[tuple[str, str], Report]:
    found: dict[tuple[str, str], Report] = {}
    resources = (previous or {}).get("resources")
    for resource in resources if isinstance(resources, list) else ():
        key = f"{resource['kind']}/{resource['namespace']}/{resource['name']}"
        found |= {(key, condition["type"]): condition for condition in resource["conditions"]}
    return found


def _conditions(facts: Facts, world: World) -> list[Condition]:
    stalled = _stalled(facts, world)
    held = [_held(hold) for hold in world.desired.holds if hold.key == facts.key]
    suspended = [condition for condition in held if condition.type == "Suspended"][:1]
    possible = (
        _paused(facts, world),
        _crash_loop(facts, world),
        _contended(facts, world),
        _violation(facts, world),
        _quarantined(facts, world),
    )
    named = [condition for condition in possible if condition is not None]
    pending = [
        Condition("PrunePending", "True", blocked.code, f"{blocked.reason} ({blocked.remedy})")
        for blocked in world.plan.blocked
        if blocked.key == facts.key
    ][:1]
    progressing = _progressing(facts, world)
    ready = _ready(facts, world, [*suspended, *pending, *stalled, *named, *progressing])
    return [
        ready,
        *(progressing or [Condition("Progressing", "False", "NothingToDo")]),
        _degraded(facts, world),
        *(stalled or [Condition("Stalled", "False", "NothingToDo")]),
        *pending,
        *named,
        *suspended,
        *(condition for condition in held if condition.type == "RolledBack"),
    ]


def _held(hold: Hold) -> Condition:
    kind = "Suspended" if hold.word == "suspended" else "RolledBack"
    return Condition(kind, "True", hold.code, f"{hold.reason} ({hold.remedy})")


def _ready(facts: Facts, world: World, hindrances: Iterable[Condition]) -> Condition:
    """Return whether it is as declared; if not, the gravest of *hindrances* says why."""
    if facts.key in world.desired.blind_keys:
        message = "its document can't be read: it is left as it is"
        return Condition("Ready", "Unknown", "Blind", message)
    if world.observed is None and facts.key.kind != "Release":
        return Condition(
            "Ready", "Unknown", "EngineUnavailable", "what the engine shows isn't known now"
        )
    count = f"{facts.ready} of {facts.desired}"
    if facts.declared and facts.ready == facts.desired and not facts.resting:
        return Condition("Ready", "True", "AsDeclared", f"{count} ready" if facts.desired else "")
    if (kept := _quarantined(facts, world)) is not None:
        return Condition("Ready", "True", "Quarantined", kept.message)
    for hindrance in hindrances:
        return Condition("Ready", "False", hindrance.reason, hindrance.message)
    if facts.failed:
        return Condition("Ready", "False", "Failed", "; ".join(facts.failed))
    if not facts.declared:
        return Condition("Ready", "False", "NotDeclared", "nothing declares it any more")
    if facts.resting:
        message = f"{facts.resting} still up, state Stopped is declared"
        return Condition("Ready", "False", "NotStopped", message)
    return Condition("Ready", "False", "NotReady", f"{count} ready")


def _progressing(facts: Facts, world: World) -> list[Condition]:
    pending = (a for a in world.plan.of(facts.key) if not at_rest(a) and not hopeless(a))
    actions = [action for action in pending if not denied(action)]
    now = takewhile(lambda action: not (isinstance(action, Wait) and action.gate), actions)
    acting = [action for action in now if not isinstance(action, Wait)]
    pulling = world.progress.get(facts.key)
    if pulling is not None:
        return [Condition("Progressing", "True", "Pulling", pulling)]
    failure = world.failures.get(facts.key)
    if failure is not None and failure.act is not Act.STALLED:
        word = "Retrying" if failure.act is Act.RETRY else "Waiting"
        return [Condition("Progressing", "True", word, f"{failure.code}: {failure.message}")]
    if acting:
        return [Condition("Progressing", "True", "Acting", _next(acting[0]))]
    if actions:
        return [Condition("Progressing", "True", "Waiting", actions[0].cause)]
    return []


def _next(action: AnyAction) -> str:
    return f"{action.verb} {action.target}: {action.cause}"


def _degraded(facts: Facts, world: World) -> Condition:
    if world.observed is None or facts.key in world.desired.blind_keys:
        return Condition("Degraded", "Unknown", "NotSeen")
    if facts.serving < facts.desired:
        told = [f"{facts.serving} of {facts.desired} serve", *facts.failed]
        return Condition("Degraded", "True", "TooFew", "; ".join(told))
    if facts.unhealthy:
        return Condition("Degraded", "True", "Unhealthy", "; ".join(facts.unhealthy))
    return Condition("Degraded", "False", "AsDeclared")


def _stalled(facts: Facts, world: World) -> list[Condition]:
    """Return why a person must act, if so."""
    problems = (*world.desired.problems, *world.plan.problems)
    for problem in problems:
        if problem.key == facts.key and problem.severity is Severity.ERROR:
            message = f"{problem.message} ({problem.remedy})" if problem.remedy else problem.message
            return [Condition("Stalled", "True", problem.code, message)]
    for action in world.plan.of(facts.key):
        if denied(action):
            return [Condition("Stalled", "True", *_of(action.verdict))]
    failure = world.failures.get(facts.key)
    if failure is not None and failure.act is Act.STALLED and failure.code != FAILED:
        return [Condition("Stalled", "True", failure.code, failure.message)]
    # Told by the plan, which knows whether it is so still.
    for wait in filter(hopeless, world.plan.of(facts.key)):
        return [Condition("Stalled", "True", FAILED, wait.cause)]
    if why := world.failed.get(facts.key):
        return [Condition("Stalled", "True", "rollout.failed", f"{why} ({PAUSED_REMEDY})")]
    return []


def _paused(facts: Facts, world: World) -> Condition | None:
    why = world.failed.get(facts.key)
    return None if why is None else Condition("Paused", "True", "rollout.failed", why)


def _contended(facts: Facts, world: World) -> Condition | None:
    """Return that somebody else alters what is healed, again and again."""
    told = [
        f"slot {slot}: {', '.join(name.replace('_', ' ') for name in names)}"
        for (key, slot), names in sorted(world.contended.items())
        if key == facts.key
    ]
    if not told:
        return None
    remedy = "look who changes it beside trimtab; it is healed after growing pauses"
    message = f"altered again and again: {'; '.join(told)} ({remedy})"
    return Condition("Contended", "True", "AlteredAgain", message)


def _crash_loop(facts: Facts, world: World) -> Condition | None:
    slots = sorted(slot for key, slot in world.looping if key == facts.key)
    if not slots or not facts.desired:
        return None
    told = [
        f"slot {slot} keeps failing{_why(world.causes.get((facts.key, slot)))}" for slot in slots
    ]
    return Condition("CrashLoop", "True", "KeepsFailing", "; ".join(told))


def _why(cause: str | None) -> str:
    return f": it {cause}" if cause else ""


def _violation(facts: Facts, world: World) -> Condition | None:
    """Return that the policy doesn't admit it (any more); what runs keeps running."""
    verdict = world.violations.get(facts.key)
    refused = [action.verdict for action in world.plan.of(facts.key) if denied(action)]
    if verdict is None and refused:
        verdict = refused[0]
    for slot in facts.slots if verdict is None else ():
        if record := slot.get("violation"):
            reason = f"{slot['container']} was stopped, since it didn't run as admitted"
            remedy = f"see 'trimtab journal show {record}', then remove the container"
            return Condition(
                "PolicyViolation", "True", "effective.violated", f"{reason} ({remedy})"
            )
    if verdict is None:
        return None
    # Let through for now by the rule's mode: a warning, and nothing is held back for it.
    kind = "PolicyViolation" if verdict.decision == "deny" else "PolicyWarning"
    return Condition(kind, "True", *_of(verdict))


def _quarantined(facts: Facts, world: World) -> Condition | None:
    """Return that it was put away, and until when it is kept."""
    actions = world.plan.of(facts.key)
    if not actions or not all(map(at_rest, actions)):
        return None
    return Condition("Quarantined", "True", "Pruned", actions[0].cause)


def _of(verdict: Verdict) -> tuple[str, str]:
    remedy = f" ({verdict.remedy})" if verdict.remedy else ""
    return (", ".join(verdict.rules) or "denied", f"{verdict.reason}{remedy}")
