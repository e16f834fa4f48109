"""Effects of closing records on the inventory's containers, and who ended a container's last run.

Each effect takes the inventory and a closing record, and returns the new inventory. A record about
an unknown container changes nothing.

Endings: who ended a container's last run, or removed the container.

The broker folds endings from its records. The controller reads them with the inventory. There is
no ending for a program that exits by itself. For a stop past the gate the journal has none either:
the controller adds it to a snapshot if the engine's events showed the stop (``with_asked``).

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Literal

from controller.core import disruption
from controller.core.addresses import moved_addresses
from controller.core.encoding.identifiers import repository_of
from controller.core.encoding.json_values import fields_of
from controller.core.engine_api.comparable_fields import LIMITS
from controller.core.engine_api.translate import timestamp_seconds
from controller.core.jobs import memory as jobs
from controller.core.jobs.memory import REMOVED_RUN, UNSTARTED_RUN, RunEnd
from controller.core.records import parts
from controller.core.records.inventory_json import aliases_from_json, replica_of
from controller.model import names
from controller.model.inventory import (
    PINS_MAX,
    USED,
    Capacity,
    ContainerItem,
    ContainerItems,
    Inventory,
    PinnedImage,
    RecordTime,
    TakenDown,
    moving,
    without,
)
from controller.model.mutations import Mutation
from controller.model.names import Key
from controller.model.observed import (
    HOOKS_PENDING,
    NO_RUNS,
    Container,
    ContainerState,
    Ending,
    JobRun,
    Observed,
    Settings,
)
from controller.model.records import Record

#: The number of endings to keep; beyond it the oldest is dropped.
ENDINGS_MAX = 256
REASON_MAX = 300
#: The role of an ending past the gate, which no record has.
OUTSIDE = "outside"
#: The grace period of a container without one of its own.
_GRACE_S = 10
#: Seconds between the end of a run and its record or event: the times are of several places.
_APART_S = 2.0
#: Mutations that end a run, with the word for each in messages.
_ENDS: Mapping[str, str] = {
    Mutation.CONTAINER_STOP: "stopped",
    Mutation.CONTAINER_KILL: "killed",
    Mutation.CONTAINER_REMOVE: "removed",
}
_BEGINS = frozenset({Mutation.CONTAINER_START, Mutation.CONTAINER_RESTART})
#: Signals of a kill that ask a program to end.
_FATAL = frozenset({"", "KILL", "9", "TERM", "15", "INT", "2", "QUIT", "3"})


def update_ending(
    endings: Mapping[str, Ending], ending: Ending, *, signal: object = ""
) -> Mapping[str, Ending]:
    """Return the endings after an applied mutation.

    *ending* describes the mutation: it counts only if the mutation ends a run. A start removes the
    container's ending. The broker's own stop after a violation does not replace the violation.
    """
    known = endings.get(ending.container)
    if ending.route in _BEGINS:
        return _without(endings, ending.container) if known is not None else endings
    name = str(signal or "").upper().removeprefix("SIG")
    if ending.route not in _ENDS or name not in _FATAL:
        return endings
    if ending.role == "broker" and known is not None:
        return endings
    return add_ending(endings, ending)


def is_sure(signal: str) -> bool:
    """Return True if a signal ends a container whatever its program does with signals."""
    return signal.upper().removeprefix("SIG") in {"", "KILL", "9"}


def is_asked(action: str, signal: str) -> bool:
    """Return True if an event of the engine shows that somebody asked a container to end.

    *signal* is the number in the event of a kill. A program that ends by itself only dies.
    """
    return action == "stop" or (action == "kill" and signal != "" and signal in _FATAL)


def with_asked(observed: Observed, asked: Mapping[str, int]) -> Observed:
    """Return a snapshot with an ending for each container that ended as *asked* past the gate.

    *asked* is the time of the last such event by the container's id, in nanoseconds since the epoch.
    """
    stop = Mutation.CONTAINER_STOP
    ended = {
        each.id: replace(each, ending=Ending(each.id, stop, OUTSIDE, -1, each.finished_at))
        for each in observed.containers
        if each.id in asked
        and _ended_as_asked(each, asked[each.id] / 1e9, observed.endings.get(each.id))
    }
    if not ended:
        return observed
    containers = tuple(ended.get(each.id, each) for each in observed.containers)
    return replace(observed, containers=containers)


def _ended_as_asked(container: Container, asked: float, recorded: Ending | None) -> bool:
    """Return True if a container's last run ended soon after *asked*, and the gate did not ask."""
    started = timestamp_seconds(container.started_at)
    ended = timestamp_seconds(container.finished_at)
    is_down = container.state is ContainerState.EXITED and container.ending is None
    if not is_down or container.oom_killed or started is None or ended is None:
        return False
    if recorded is not None and (timestamp_seconds(recorded.time) or 0.0) >= asked - _APART_S:
        return False
    grace_s = _GRACE_S if container.stop_grace_s is None else container.stop_grace_s
    return started <= asked <= ended + _APART_S and ended <= asked + grace_s + _APART_S


def add_ending(endings: Mapping[str, Ending], ending: Ending) -> Mapping[str, Ending]:
    """Return the endings with one added, and beyond the limit without the oldest."""
    grown = {**_without(endings, ending.container), ending.container: ending}
    return dict([*grown.items()][-ENDINGS_MAX:])


def ending_violation(
    container: str, rules: Iterable[object], differences: Iterable[object], time: str
) -> Ending:
    """Return the ending of a container that the broker stops because its kernel state differs."""
    rule = next(iter(map(str, rules)), "effective.violated")
    reason = f"{rule}: {'; '.join(map(str, differences))}"[:REASON_MAX]
    return Ending(container, Mutation.CONTAINER_KILL, "broker", -1, time, reason)


def describe_ending(ending: Ending) -> str:
    """Return the text after a container's name: ``was stopped by uid:0 through the gate``."""
    if ending.reason:
        return f"was ended by the broker: {ending.reason}"
    word = _ENDS[ending.route]
    match ending.role:
        case "controller":
            return f"was {word} by trimtab"
        case "broker":
            return f"was {word} by the broker"
        case _:
            return f"was {word} by uid:{ending.uid} through the gate"


def _without(endings: Mapping[str, Ending], container: str) -> dict[str, Ending]:
    return {each: ending for each, ending in endings.items() if each != container}


RecordEffect = Callable[[Inventory, parts.Closing], Inventory]

#: A container's names are its service, its own name and the policy's free ones: few.
ALIASES_MAX = 64
#: The settings that each member of an update's body changes.
_UPDATED: dict[str, tuple[str, ...]] = {
    **{member: (name,) for name, member in LIMITS.items()},
    "RestartPolicy": ("restart", "restart_max"),
}


def with_item(inventory: Inventory, item: ContainerItem) -> Inventory:
    """Return the inventory with a container added or replaced."""
    return replace(inventory, containers=inventory.items.having(item))


# Creates and pins


def create_container(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Add a created container, and pin its revision to its image."""
    identifier, summary = closing.result.container, closing.summary.part(parts.CreatePart)
    if not closing.applied or not identifier:
        return inventory
    slot = summary.label(names.SLOT)
    item = ContainerItem(
        id=identifier,
        namespace=summary.label(names.NAMESPACE),
        service=summary.label(names.SERVICE),
        slot=names.number_of_slot(slot),
        revision=summary.label(names.REVISION),
        owner=summary.label(names.OWNER),
        origin=summary.label(names.ORIGIN),
        intent=closing.id,
        image=summary.label(names.IMAGE) or summary.image,
        admitted=summary.settings,
        seq=closing.seq,
        recovered=closing.recovered,
        aliases=summary.aliases,
        network_aliases=aliases_from_json(summary.network_aliases),
        network_ids=_identities(summary.network_ids),
        volume_ids=_identities(summary.volume_ids),
        ports=summary.ports,
        confined=summary.confinement,
        is_run=names.run_of_slot(slot) > 0,
        hooks=summary.hooks,
        post_start=HOOKS_PENDING if summary.has_post_start else "",
        signed=summary.proof.shape,
        ignored=closing.result.ignored,
        uid=closing.uid,
    )
    items = inventory.items.having(item)
    pins = _pinned(inventory.pins, item, summary, items)
    inventory = replace(inventory, containers=items, pins=pins)
    if summary.is_released:
        return _let_go(inventory, item)
    return _remember_run(inventory, item, summary, closing.time) if item.is_run else inventory


def _identities(by_name: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, text) for name, text in by_name.items() if isinstance(text, str)))


def adopt_container(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Add a running container, adopted as found."""
    found = closing.result | parts.ResultPart(container=closing.object)
    inventory = create_container(inventory, replace(closing, result=found))
    item = inventory.containers.get(closing.object)
    if item is None or not closing.applied:
        return inventory
    item = replace(
        item, started=True, adopted=True, gaps=closing.summary.part(parts.AdoptionPart).gaps
    )
    inventory = replace(inventory, released=without(inventory.released, item.id))
    return with_item(inventory, replace(item, effective=closing.result.effective))


def release_container(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Let a container go: the inventory remembers it as released, and nothing else of it."""
    item = inventory.containers.get(closing.object)
    if item is None or not closing.applied:
        return inventory
    restart = closing.summary.part(parts.SettingsPart).settings.restart
    item = replace(item, admitted=replace(item.admitted, restart=restart))
    now = RecordTime(closing.id, closing.time)
    return with_events(_let_go(inventory, item), (disruption.Gone(item.id),), now)


def _let_go(inventory: Inventory, item: ContainerItem) -> Inventory:
    return replace(
        inventory,
        containers=inventory.items.lacking(item.id),
        released={**inventory.released, item.id: item},
    )


def _remember_run(
    inventory: Inventory, item: ContainerItem, summary: parts.SummaryPart, time: str
) -> Inventory:
    key = names.job_key(item.namespace, item.service)
    run = JobRun(item.slot, item.revision, summary.label(names.OCCASION), item.id, time)
    completions = summary.label(names.COMPLETIONS)
    memory = jobs.create(inventory.jobs.get(key, NO_RUNS), run, completions)
    return replace(inventory, jobs=jobs.with_job(inventory.jobs, key, memory))


def _pin_of(item: ContainerItem, summary: parts.CreatePart) -> PinnedImage | None:
    """Return the pin that a create makes; None if its record names no valid reference."""
    repository = repository_of(item.image)
    if repository is None:
        return None
    by_policy, signed = summary.trusted_by_policy, bool(summary.proof.shape)
    return PinnedImage(summary.image_id, summary.digest, repository, by_policy, signed)


def _pinned(
    pins: Mapping[str, PinnedImage],
    item: ContainerItem,
    summary: parts.CreatePart,
    items: ContainerItems,
) -> Mapping[str, PinnedImage]:
    """Pin a revision to an image; beyond the limit a new pin replaces the least recently used pin.

    The pin of a revision with a container stays: its replacement uses the same image.
    A rollback to a revision without a pin resolves the image again.
    """
    revision = item.revision
    image = pins.get(revision) or _pin_of(item, summary)
    if not revision or not summary.image_id or image is None:
        return pins
    pins = without(pins, revision) | {revision: image}
    if (surplus := len(pins) - PINS_MAX) > 0:
        used = {each.revision for each in items.values()}
        for dropped in [*islice((unused for unused in pins if unused not in used), surplus)]:
            del pins[dropped]
    return pins


# Starts, stops and removals


def start_container(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Record a container's start, with the kernel state verified by the broker."""
    item = inventory.containers.get(closing.object)
    if item is None or not closing.applied:
        return inventory
    effective = closing.result.effective
    inventory = with_item(inventory, replace(item, started=True, effective=effective))
    if not item.is_run:
        return inventory
    key = names.job_key(item.namespace, item.service)
    memory = jobs.start(inventory.jobs.get(key, NO_RUNS), item.id, closing.time)
    return replace(inventory, jobs={**inventory.jobs, key: memory})


def end_run(inventory: Inventory, container: str, end: RunEnd, time: str) -> Inventory:
    """Record the end of a job's run."""
    item = inventory.containers.get(container)
    if item is None or not item.is_run:
        return inventory
    key = names.job_key(item.namespace, item.service)
    memory = inventory.jobs.get(key, NO_RUNS)
    memory = jobs.end(memory, container, time=time, outcome=end.outcome, why=end.why)
    return replace(inventory, jobs={**inventory.jobs, key: memory})


def remove_container(inventory: Inventory, closing: parts.Closing, now: RecordTime) -> Inventory:
    """Forget the container of a removal, or of a removal that found no container."""
    says_unstarted = closing.summary.part(parts.EndPart).outcome == UNSTARTED_RUN.outcome
    end = UNSTARTED_RUN if says_unstarted and _never_ran(inventory, closing) else REMOVED_RUN
    return forget_container(inventory, closing.object, now, end)


def _never_ran(inventory: Inventory, closing: parts.Closing) -> bool:
    """Return True if nothing can have started a container before its removal by the broker.

    A removal that recovery settled proves less: somebody else can have started and removed the
    container.
    """
    item = inventory.containers.get(closing.object)
    if item is None or item.started or closing.recovered:
        return False
    requests = (parts.RequestPart.read(intent.request) for intent in inventory.open.values())
    return closing.applied and all(request.object != closing.object for request in requests)


def forget_container(
    inventory: Inventory, identifier: str, now: RecordTime, end: RunEnd = REMOVED_RUN
) -> Inventory:
    """Forget a container that is gone. *end* is the end of a run without a recorded end."""
    inventory = end_run(inventory, identifier, end, now.time)
    inventory = replace(
        inventory,
        containers=inventory.items.lacking(identifier),
        released=without(inventory.released, identifier),
    )
    return with_events(inventory, (disruption.Gone(identifier),), now)


# The disruption budget


def with_events(
    inventory: Inventory, events: Iterable[disruption.Event], now: RecordTime
) -> Inventory:
    """Return the inventory after events of the disruption budget; *now* is their record."""
    before = counted = disruption.Budget(inventory.replicas, inventory.taken)
    for event in events:
        counted = disruption.fold(counted, event, now)
    if counted is before:
        return inventory
    return replace(inventory, replicas=counted.replicas, taken=counted.taken)


def record_takedown(inventory: Inventory, record: Record, role: str) -> Inventory:
    """Record a takedown by the controller.

    Recorded with the intent, so that no takedown escapes the budget while its reply is pending.
    """
    request = parts.RequestPart.read(record.entry.request)
    summary = request.summary
    if role != "controller" or summary.part(parts.StopPart).takes_down not in ("slot", "service"):
        return inventory
    rules = parts.VerdictPart.read(record.entry.verdict).rules
    takedown = TakenDown(
        container=request.object,
        service=f"{summary.namespace}/{summary.service}",
        route=request.route,
        intent=record.entry.id,
        seq=record.seq,
        time=record.time,
        network=summary.part(parts.EndpointPart).network,
        approved=any(rule.startswith(USED) for rule in rules),
    )
    now = RecordTime(record.entry.id, record.time)
    return with_events(inventory, (disruption.Begun(takedown),), now)


def budget_events(
    inventory: Inventory, route: str, closing: parts.Closing
) -> Iterator[disruption.Event]:
    """Yield what a closing record means for the disruption budget."""
    if closing.id in inventory.taken:
        yield disruption.Closed(closing.id, _effect_of(route, closing))
    if closing.applied:
        event = _budget_event(inventory, route, closing)
        if event is not None:
            yield event


def _budget_event(
    inventory: Inventory, route: str, closing: parts.Closing
) -> disruption.Event | None:
    """Return what an applied mutation, of whomever, means for its container."""
    subject, end = closing.object, closing.summary.part(parts.EndpointPart)
    item = inventory.containers.get(closing.result.container or subject)
    match route:
        case Mutation.CONTAINER_START | Mutation.CONTAINER_RESTART:
            changed = closing.result.status != parts.NOT_MODIFIED
            return disruption.Ran(subject, closing.seq) if changed else None
        case Mutation.CONTAINER_UNPAUSE:
            return disruption.Ran(subject, closing.seq, unpaused=True)
        case Mutation.CONTAINER_STOP | Mutation.CONTAINER_PAUSE:
            return disruption.Halted(subject)
        case Mutation.CONTAINER_KILL:
            return disruption.Halted(subject) if is_sure(_signal(closing)) else None
        case Mutation.NETWORK_CONNECT if item is not None and item.service in end.aliases:
            # Without the service's name there, nobody reaches it.
            return disruption.Joined(subject, closing.seq, end.network)
        # A run keeps no service up. Its stop counts as a takedown all the same.
        case Mutation.CONTAINER_CREATE if item is not None and (
            item.origin == "controller" and not item.is_run
        ):
            return disruption.Created(replica_of(item, up=None))
        case Mutation.CONTAINER_ADOPT if item is not None:
            # It ran long before: its end counts from now on.
            return disruption.Created(replica_of(item, up=RecordTime()))
        case Mutation.CONTAINER_UPDATE if item is not None and changes_limits(closing.summary):
            is_granted = closing.role == "controller"  # so it is admitted already
            settings = item.admitted if is_granted else update_settings(item.admitted, closing)
            capacity = Capacity.of(settings)
            return disruption.Changed(subject, closing.seq, capacity, is_granted=is_granted)
        case _:
            return None


def _effect_of(route: str, closing: parts.Closing) -> Literal["down", "nothing", "unknown"]:
    """Return what a closing record says of a takedown.

    An engine that failed has finished with the request, and may have done a part of it: the
    container counts as down. Only a signal may still end it.
    """
    status = closing.result.status
    if closing.applied or (route == Mutation.CONTAINER_REMOVE and closing.is_gone):
        sure = route != Mutation.CONTAINER_KILL or is_sure(_signal(closing))
        # A restarted container runs: its start ends the takedown.
        return "down" if sure and route != Mutation.CONTAINER_RESTART else "unknown"
    if closing.result.settled == "not-applied":
        return "nothing"
    if status is None:
        return "unknown"
    # A restart stops first: if the start then fails, the engine answers 400.
    if 400 <= status < 500 and status != parts.NOT_FOUND and route != Mutation.CONTAINER_RESTART:
        return "nothing"
    return "down" if status < 500 or route != Mutation.CONTAINER_KILL else "unknown"


def _signal(closing: parts.Closing) -> str:
    return closing.summary.part(parts.StopPart).signal


# Endings


def record_ending(inventory: Inventory, route: str, closing: parts.Closing, time: str) -> Inventory:
    """Record the actor who ended a container's run, unless the container was down already."""
    if closing.result.status == parts.NOT_MODIFIED:
        return inventory
    ending = Ending(closing.object, route, closing.role, closing.uid, time)
    known = update_ending(inventory.endings, ending, signal=_signal(closing))
    return inventory if known is inventory.endings else replace(inventory, endings=known)


def record_violation(inventory: Inventory, record: Record) -> Inventory:
    """Record a violation of a container's confinement in the kernel."""
    entry = record.entry
    item = inventory.containers.get(parts.RequestPart.read(entry.request).object)
    if item is None:
        return inventory
    rules = parts.VerdictPart.read(entry.verdict).rules
    differences = parts.ResultPart.read(entry.result).differences
    ending = ending_violation(item.id, rules, differences, record.time)
    inventory = replace(inventory, endings=add_ending(inventory.endings, ending))
    return with_item(inventory, replace(item, effective="violation", violation=entry.id))


# Changes of the admitted settings


def container_change(change: Callable[[Settings, parts.Closing], Settings]) -> RecordEffect:
    """Return the effect that changes a container's admitted settings.

    Only the creator's changes count. A change by an operator or a client of the controller's
    container is drift, and the controller repairs it. The broker changes containers only to end
    them.
    """

    def effect(inventory: Inventory, closing: parts.Closing) -> Inventory:
        item = inventory.containers.get(closing.object)
        if item is None or not _is_by_creator(item, closing):
            return inventory
        return with_item(inventory, replace(item, admitted=change(item.admitted, closing)))

    return effect


def _is_by_creator(item: ContainerItem, closing: parts.Closing) -> bool:
    by_others = item.origin == "controller" and closing.role != "controller"
    return closing.applied and closing.role != "broker" and not by_others


def network_change(change: Callable[[Settings, parts.Closing], Settings]) -> RecordEffect:
    """Return the effect that changes the admitted networks of a client's container.

    The networks of the controller's containers are final, like their names. The controller
    disconnects a container only to connect it again with other aliases. If it dies in between, the
    missing network is drift.
    """

    def effect(inventory: Inventory, closing: parts.Closing) -> Inventory:
        item = inventory.containers.get(closing.object)
        if item is None or item.origin == "controller":
            return inventory
        return container_change(change)(inventory, closing)

    return effect


def record_signal(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Record the contents of which a container got a signal."""
    item = inventory.containers.get(closing.object)
    contents = closing.summary.part(parts.StopPart).contents
    if item is None or not closing.applied or not contents:
        return inventory
    return with_item(inventory, replace(item, signalled=contents))


def update_settings(admitted: Settings, closing: parts.Closing) -> Settings:
    """Return the settings after an update.

    Only the requested settings are taken over. Any other difference is drift, and remains drift.
    """
    summary = closing.summary.part(parts.SettingsPart)
    now = fields_of(summary.settings)
    return replace(admitted, **{name: now[name] for name in updated_settings(summary)})


def updated_settings(summary: parts.SummaryPart) -> tuple[str, ...]:
    """Return the names of the settings in an update, by its intent's summary."""
    members = summary.part(parts.SettingsPart).updated_members
    return tuple(name for member in members for name in _UPDATED.get(member, ()))


def changes_limits(summary: parts.SummaryPart) -> bool:
    """Return True if an update names a limit: it can change more than the restart policy."""
    return not LIMITS.keys().isdisjoint(updated_settings(summary))


def rename(admitted: Settings, closing: parts.Closing) -> Settings:
    """Return the settings with the new name."""
    return replace(admitted, name=closing.summary.name or admitted.name)


def connect(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Record a joined network, and the container's aliases there, whoever sent the request."""
    inventory = network_change(_join_network)(inventory, closing)
    inventory = _record_network(inventory, closing)
    item = inventory.containers.get(closing.object)
    end = closing.summary.part(parts.EndpointPart)
    added = end.aliases
    if item is None or not closing.applied or not added:
        return inventory
    aliases = tuple(sorted({*item.aliases, *added}))[:ALIASES_MAX]
    item = replace(item, aliases=aliases)
    if closing.role == "controller":
        named = dict(item.network_aliases) | {end.network: added}
        item = replace(item, network_aliases=_further_names(named, item.service))
    return with_item(inventory, item)


def _record_network(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Record the id of the network that a container joined under a name; after a disconnect, forget the id."""
    item = inventory.containers.get(closing.object)
    if item is None or not _is_by_creator(item, closing):
        return inventory
    summary = closing.summary.part(parts.EndpointPart)
    known = {name: text for name, text in item.network_ids if name != summary.network}
    return with_item(
        inventory, replace(item, network_ids=_identities({**known, **summary.network_ids}))
    )


def disconnect(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Record that a client's container has left a network."""
    inventory = network_change(_leave_network)(inventory, closing)
    item = inventory.containers.get(closing.object)
    is_clients = item is not None and item.origin != "controller"
    # The controller connects its container again, and the broker records the network then.
    return _record_network(inventory, closing) if is_clients else inventory


def _further_names(
    named: Mapping[str, tuple[str, ...]], service: str
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the names by network without the service's own, and without empty lists."""
    further = {network: tuple(n for n in texts if n != service) for network, texts in named.items()}
    return tuple(sorted((network, texts) for network, texts in further.items() if texts))


def _join_network(admitted: Settings, closing: parts.Closing) -> Settings:
    joined = {*admitted.networks, closing.summary.part(parts.EndpointPart).network}
    return replace(admitted, networks=tuple(sorted(joined)))


def _leave_network(admitted: Settings, closing: parts.Closing) -> Settings:
    """Return the settings without a network."""
    left = closing.summary.part(parts.EndpointPart).network
    return replace(admitted, networks=tuple(name for name in admitted.networks if name != left))


# Moves


def move_service(inventory: Inventory, source: Key, target: Key, owner: str) -> Inventory:
    """Let the containers of a service go on under another name, with all counts of the service.

    The containers answer to the former name until their replacement.
    """
    was, now = (f"{key.namespace}/{key.name}" for key in (source, target))
    moved = {item.id: _moved(item, target, owner) for item in moving(inventory, source)}
    counted = inventory.replicas
    replicas = {i: replace(counted[i], service=now) for i in moved if i in counted}
    return replace(
        inventory,
        containers={**inventory.containers, **moved},
        addresses=moved_addresses(inventory, was, now),
        replicas={**counted, **replicas},
        taken={
            intent: replace(taken, service=now) if taken.service == was else taken
            for intent, taken in inventory.taken.items()
        },
    )


def _moved(item: ContainerItem, target: Key, owner: str) -> ContainerItem:
    # Only the first name, and those under which a network was joined, resolve in DNS.
    kept = {item.service} if not item.former or item.service in item.aliases else set[str]()
    known = dict(item.network_aliases)
    further = known | {
        network: tuple(sorted({*known.get(network, ()), *kept} - {target.name}))
        for network in item.admitted.networks
    }
    return replace(
        item,
        service=target.name,
        owner=owner,
        former="" if (item.former or item.service) == target.name else item.former or item.service,
        aliases=tuple(sorted({*item.aliases, *kept})),
        network_aliases=tuple(sorted((n, texts) for n, texts in further.items() if texts)),
    )
