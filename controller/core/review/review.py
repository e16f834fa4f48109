"""The review of a plan: its effect on each object, the changed fields, and a summary in one line.

Pure, and only for display: no decision and no digest depends on a review. Services are counted, not
actions.

The summary of a plan, or of its execution, in one line: services counted by effect.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from controller.core.drift.actions import DEFAULT_GRACE_S, is_denied
from controller.core.drift.classify import ReplicaState, short_revision
from controller.core.manifests.revision_hash import service_text
from controller.core.planning import planned_takedowns
from controller.core.planning.context import order_of, replaced_at_once
from controller.core.planning.images_networks_volumes import KnownImages
from controller.core.planning.planner import declared_resources
from controller.core.review import field_changes
from controller.core.review.plan_text import NOTHING_TO_DO
from controller.core.service.overrides import STOPPED, display_name, slots_of
from controller.model.desired.desired import (
    NO_OVERRIDES,
    Desired,
    OverrideReason,
    Overrides,
    Service,
)
from controller.model.desired.plan import (
    IN_PLACE,
    AnyAction,
    BuildImage,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
    Downtime,
    Effect,
    FieldChange,
    MoveService,
    Plan,
    PullImage,
    QuarantineWait,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    Review,
    ReviewEntry,
    ServiceDifference,
    StartContainer,
    StopContainer,
    Wait,
)
from controller.model.desired.spec.service import RunState, ServiceSpec
from controller.model.errors import Severity
from controller.model.names import Key
from controller.model.observed import Container, Observed

#: Why only some fields could be compared.
NOT_KEPT = (
    "the previous document isn't kept; compared with what the container was admitted with "
    "(image, owner, limits)"
)


def review(
    plan: Plan,
    *,
    declared: Desired,
    desired: Desired,
    observed: Observed,
    all_overrides: Mapping[Key, Overrides],
    reveal: bool = False,
) -> Review:
    """Return the review of a plan.

    *declared* are the files, *desired* the same with pins and suspensions applied. *reveal* includes
    values that can be secret.
    """
    services = {service.key: service for service in desired.services}
    holds: dict[Key, tuple[OverrideReason, ...]] = {}
    for hold in plan.holds:
        holds[hold.key] = (*holds.get(hold.key, ()), hold)
    differences: dict[Key, tuple[ServiceDifference, ...]] = {}
    for key, service in services.items():
        overrides = all_overrides.get(key, NO_OVERRIDES)
        service_differences = [
            *container_differences(service, observed.of(key), overrides, reveal=reveal),
            *_ahead(service, declared.service(key), reveal=reveal),
        ]
        if not any(each.scope == "new" for each in service_differences):
            service_differences += _service_difference(service, overrides)
        if key in desired.suspended:
            service_differences = [replace(each, held=True) for each in service_differences]
        differences[key] = tuple(service_differences)
    keys = dict.fromkeys(action.object for action in plan.actions)
    keys |= dict.fromkeys(sorted(holds))
    keys |= dict.fromkeys(key for key in sorted(differences) if differences[key])
    # On an ingress network, where containers don't reach one another, an address is nobody's business.
    changing = frozenset(n.name for n in observed.networks if n.icc and not n.has_slot_addresses)
    entries = []
    for key in keys:
        entry = _entry(
            key,
            plan.of(key),
            services.get(key),
            observed.of(key),
            all_overrides.get(key, NO_OVERRIDES),
            changing,
        )
        if key in holds and entry.effect is Effect.NONE:
            entry = replace(entry, effect=Effect.HELD)
        held = holds.get(key, ())
        entries.append(replace(entry, differences=differences.get(key, ()), holds=held))
    known = {*keys, *services, *(resource.key for resource in declared_resources(declared))}
    return Review(plan, frozenset(known), tuple(entries), _rebuilt_images(desired, observed))


def _rebuilt_images(desired: Desired, observed: Observed) -> tuple[str, ...]:
    """Return a sentence for each service whose image was built again on this host."""
    images, found = KnownImages(observed), []
    for service in desired.services:
        here, pin = images.rebuilt(service), images.pin(service)
        if here is not None and pin is not None and service.key not in desired.suspended:
            found.append(
                f"image {service.spec.image} was rebuilt: {short_image(pin.id)} -> "
                f"{short_image(here.id)}; `trimtab restart {display_name(service.key)}` takes it"
            )
    return tuple(found)


def short_image(identifier: str) -> str:
    """Return the id of an image for people, with 12 digits as docker shows it."""
    return identifier[: len("sha256:") + 12]


def is_different(entry: ReviewEntry) -> bool:
    """Return True if an object differs from its declaration, by a field or by its removal."""
    return bool(entry.differences) or entry.effect is Effect.REMOVE


# Fields


def container_differences(
    service: Service, containers: Iterable[Container], overrides: Overrides, *, reveal: bool
) -> list[ServiceDifference]:
    """Return how a service's containers differ from its document, and from their own settings.

    Containers of undeclared slots are not compared. A service is new if it has no container and its
    document was never applied.
    """
    there = tuple(containers)
    wanted = [c for c in there if not ReplicaState(c, service).is_surplus]
    if not there and overrides.applied is None:
        fields = (
            field_changes.scalar_change("metadata.owner", None, service.owner),
            *field_changes.written_fields(service.spec, reveal=reveal),
        )
        return [ServiceDifference(service.key, None, (), fields, scope="new")]
    service_differences = []
    for revision in dict.fromkeys(c.revision for c in wanted if c.revision != service.revision):
        group = [c for c in wanted if c.revision == revision]
        earlier = slots_of(overrides.find_revision(revision), service)
        if earlier is None:
            changes, note = field_changes.admitted_changes(group[0], service), NOT_KEPT
        else:
            changes, note = document_changes(earlier, service, reveal=reveal), None
        names = tuple(c.name for c in group)
        service_differences.append(ServiceDifference(service.key, revision, names, changes, note))
    altered: dict[tuple[FieldChange, ...], list[str]] = {}
    if service.spec.state is not RunState.STOPPED:
        for container in wanted:
            if container.revision == service.revision:
                changes = (
                    *field_changes.limit_changes(container, service),
                    *field_changes.drift_changes(container),
                )
                altered.setdefault(changes, []).append(container.name)
    service_differences += [
        ServiceDifference(service.key, service.revision, tuple(names), drift)
        for drift, names in altered.items()
        if drift
    ]
    return service_differences


def document_changes(
    earlier: Service, service: Service, *, reveal: bool = False
) -> tuple[FieldChange, ...]:
    """Return the fields of the replicas by which two documents of a service differ, by path."""
    owner = (field_changes.scalar_change("metadata.owner", earlier.owner, service.owner),)
    return (
        *(owner if earlier.owner != service.owner else ()),
        *field_changes.slot_changes(earlier.spec, service.spec, reveal=reveal),
        *field_changes.content_changes(earlier, service),
    )


def _service_difference(service: Service, overrides: Overrides) -> list[ServiceDifference]:
    """Return the fields of the service as a whole with a change since the document was applied."""
    if overrides.applied in {None, service_text(service.spec)}:
        return []  # nearly all services
    assert overrides.applied is not None, "nothing was applied yet"
    try:
        text = json.dumps({**json.loads(overrides.applied), "image": service.spec.image})
        before = ServiceSpec.model_validate_json(text)
    except ValueError:
        return []  # of a field that there isn't any more
    changes = field_changes.service_changes(before, service.spec)
    return [ServiceDifference(service.key, None, (), changes, scope="service")] if changes else []


def _ahead(service: Service, declared: Service | None, *, reveal: bool) -> list[ServiceDifference]:
    """Return the unapplied fields of a pinned service's document."""
    if declared is None or (declared.revision, declared.limits) == (
        service.revision,
        service.limits,
    ):
        return []
    changes = document_changes(service, declared, reveal=reveal)
    return [ServiceDifference(service.key, service.revision, (), changes, held=True)]


# Effects


@dataclass(frozen=True, slots=True)
class Work:
    """The effect of actions on the slots of a service."""

    created: frozenset[int]
    #: Stopped or removed.
    going: frozenset[int]
    removed: frozenset[int]
    started: frozenset[int]
    updated: frozenset[int]


def work_of(actions: Iterable[AnyAction]) -> Work:
    """Return the work of one service's actions. Denied actions do nothing."""
    done = [action for action in actions if not is_denied(action)]
    made = {a.target for a in done if isinstance(a, CreateContainer)}
    down = {a.target for a in done if isinstance(a, StopContainer | RemoveContainer)}
    return Work(
        created=frozenset(a.slot for a in done if isinstance(a, CreateContainer)),
        going=frozenset(a.slot for a in done if a.target in down),
        removed=frozenset(a.slot for a in done if isinstance(a, RemoveContainer)),
        started=frozenset(
            a.slot for a in done if isinstance(a, StartContainer) and a.target not in made
        ),
        # The change of the restart policy before a stop belongs to the stop.
        updated=frozenset(
            a.slot for a in done if isinstance(a, IN_PLACE) and a.target not in made | down
        ),
    )


def _entry(
    key: Key,
    actions: tuple[AnyAction, ...],
    service: Service | None,
    containers: tuple[Container, ...],
    overrides: Overrides,
    changing: frozenset[str],
) -> ReviewEntry:
    entry = entry_of(key, actions, service)
    if entry.effect is not Effect.REPLACE:
        return entry
    if entry.replaced:
        joined = {network for c in containers for network in c.settings.networks}
        entry = replace(entry, new_addresses_on=tuple(sorted(joined & changing)))
    last = planned_takedowns.last_slots(actions, containers)
    interrupting = [
        a for a in actions if planned_takedowns.takes_down(a, last) and not is_denied(a)
    ]
    if not interrupting:
        return entry
    graces = [c.stop_grace_s for c in containers if c.id in last]
    grace_s = max((DEFAULT_GRACE_S if each is None else each for each in graces), default=0)
    measured_s = None if overrides.down_ms is None else overrides.down_ms / 1000
    return replace(entry, downtime=Downtime(key, measured_s, grace_s))


def entry_of(key: Key, actions: Iterable[AnyAction], service: Service | None) -> ReviewEntry:
    """Return the effect of actions on one object; *service* is None if none is declared."""
    actions = tuple(actions)
    work = work_of(actions)
    running = service is not None and service.spec.state is RunState.RUNNING
    slots = range(1, service.spec.replicas + 1) if service is not None and running else range(0)
    # A slot counts as replaced also if its new container exists already.
    declared = service is not None
    replaced = {s for s in work.going if (declared and s in work.created) or s in slots}
    entry = ReviewEntry(
        key,
        Effect.NONE,
        actions=actions,
        replicas=0 if service is None else service.spec.replicas,
        replaced=len(replaced),
        added=len(work.created - replaced),
        removed=len(work.removed - replaced),
        stopped=len(work.going - work.removed - replaced),
        started=len(work.started - replaced),
        updated=len(work.updated - work.started),
        order=order_of(service).value if service is not None and replaced else None,
        at_once=1 if service is None else replaced_at_once(service),
        source=None if service is None else service.source,
    )
    return replace(entry, effect=_effect(entry, actions, declared=declared))


def _effect(entry: ReviewEntry, actions: tuple[AnyAction, ...], *, declared: bool) -> Effect:
    creates = any(isinstance(a, CreateNetwork) for a in actions)
    removes = any(isinstance(a, RemoveNetwork | RemoveVolume) and not is_denied(a) for a in actions)
    kinds = [
        (Effect.REPLACE, not declared and creates and removes),
        (Effect.REMOVE, removes),
        (Effect.REMOVE, not declared and entry.removed + entry.stopped > 0),
        (Effect.REPLACE, entry.replaced > 0),
        (Effect.CREATE, entry.added >= entry.replicas > 0),
        (Effect.ADD, entry.added > 0),
        (Effect.SCALE_DOWN, entry.removed > 0),
        (Effect.STOP, entry.stopped > 0),
        (Effect.START, entry.started > 0),
        (Effect.UPDATE, entry.updated > 0),
        (Effect.REFUSED, any(is_denied(a) for a in actions)),
        (
            Effect.CREATE,
            any(isinstance(a, CreateNetwork | CreateVolume) and not is_denied(a) for a in actions),
        ),
        (
            Effect.WAIT,
            any(isinstance(a, Wait) and not isinstance(a, QuarantineWait) for a in actions),
        ),
    ]
    return next((effect for effect, applies in kinds if applies), Effect.NONE)


AHEAD: Final = ", its document is ahead"
_SERVICE: Final = "Service"

#: Effects that are always counted, with the words for a plan and for its execution.
ALWAYS: Final = {
    Effect.CREATE: ("to create", "created"),
    Effect.REPLACE: ("to replace", "replaced"),
    Effect.UPDATE: ("to update in place", "updated in place"),
    Effect.REMOVE: ("to remove", "removed"),
}
#: Effects that are mentioned only if there are any.
SOMETIMES: Final = {
    Effect.ADD: ("to add replicas to", "with replicas added"),
    Effect.SCALE_DOWN: ("to scale down", "scaled down"),
    Effect.STOP: ("to stop", "stopped"),
    Effect.RESTART: ("to restart", "restarted"),
    Effect.START: ("to start", "started"),
}
#: Networks that are removed and created; they are counted as neither.
_REMADE: Final = "networksRemade"
#: Actions on images, networks and volumes; they are mentioned only if there are any.
_SUPPLIES: Final = (
    ("pulls", PullImage, "image", "pull", "pulled"),
    ("builds", BuildImage, "image", "build", "built"),
    ("networksCreated", CreateNetwork, "network", "create", "created"),
    ("networksRemoved", RemoveNetwork, "network", "remove", "removed"),
    (_REMADE, None, "network", "remake", "remade"),
    ("volumesCreated", CreateVolume, "volume", "create", "created"),
    ("volumesRemoved", RemoveVolume, "volume", "remove", "removed"),
    ("moved", MoveService, "service", "move", "moved"),
    ("filesDelivered", DeliverFiles, "Config", "deliver", "delivered"),
)


@dataclass(frozen=True, slots=True)
class Summary:
    """Services counted by effect, and other objects counted by action."""

    services: Mapping[Effect, int]
    supplies: Mapping[str, int]
    #: Services with an action that the policy denies.
    refused: int = 0
    #: Services for which only a wait is planned.
    waiting: int = 0
    #: Removals that wait for an approval.
    blocked: int = 0
    errors: int = 0
    downtime: tuple[Downtime, ...] = ()
    holds: tuple[OverrideReason, ...] = ()
    done: bool = False

    @property
    def text(self) -> str:
        """The summary in one line."""
        tense = int(self.done)
        parts = []
        if any(self.services.get(effect) for effect in (*ALWAYS, *SOMETIMES)):
            services = [f"{self.services.get(e, 0)} {w[tense]}" for e, w in ALWAYS.items()]
            services += [
                f"{count} {words[tense]}"
                for effect, words in SOMETIMES.items()
                if (count := self.services.get(effect, 0))
            ]
            parts.append(", ".join(services))
        if supplies := self._supplies():
            parts.append(supplies)
        if not (parts or self.refused or self.waiting or self.blocked):
            parts.append("nothing was done" if self.done else NOTHING_TO_DO)
        if self.refused:
            parts.append(f"{self.refused} refused by the policy")
        if self.waiting:
            parts.append(f"{self.waiting} waiting")
        if self.blocked:
            noun = "removal waits" if self.blocked == 1 else "removals wait"
            parts.append(f"{self.blocked} {noun} for an approval")
        if self.errors:
            parts.append("1 error" if self.errors == 1 else f"{self.errors} errors")
        if self.downtime:
            parts.append(f"downtime expected: {', '.join(map(downtime_text, self.downtime))}")
        elif not self.done and self._interrupts():
            parts.append("no replica ends before its successor is available")
        parts += [
            f"{display_name(hold.key)} is {hold_word(hold)}{AHEAD if hold.revision else ''}"
            for hold in self.holds
        ]
        return "; ".join(parts)

    def _interrupts(self) -> bool:
        changes = any(self.services.get(e) for e in (Effect.REPLACE, Effect.UPDATE))
        return changes and not self.supplies.get(_REMADE)

    def _supplies(self) -> str:
        texts = []
        for name, _, noun, verb, participle in _SUPPLIES:
            if count := self.supplies.get(name, 0):
                said = participle if self.done else f"to {verb}"
                texts.append(f"{count} {noun if count == 1 else f'{noun}s'} {said}")
        return ", ".join(texts)

    def to_json(self) -> dict[str, object]:
        """Return the member ``summary`` of ``plan --json`` and ``apply --json``."""
        shown = (*ALWAYS, *SOMETIMES)
        return {
            "text": self.text,
            **{_camel(effect): self.services.get(effect, 0) for effect in shown},
            **{name: self.supplies.get(name, 0) for name, *_ in _SUPPLIES},
            "refused": self.refused,
            "waiting": self.waiting,
            "blocked": self.blocked,
            "errors": self.errors,
            "downtime": [downtime_json(each) for each in self.downtime],
        }


def summary_of(review: Review) -> Summary:
    """Return the summary of a plan."""
    services = [entry for entry in review.entries if entry.key.kind == _SERVICE]
    return Summary(
        services=Counter(entry.effect for entry in services),
        supplies=_count_supplies(review.plan.actions),
        refused=sum(any(is_denied(a) for a in entry.actions) for entry in services),
        waiting=sum(entry.effect is Effect.WAIT for entry in services),
        blocked=len(review.plan.blocked),
        errors=sum(p.severity is Severity.ERROR for p in review.plan.problems),
        downtime=tuple(entry.downtime for entry in services if entry.downtime is not None),
        holds=review.plan.holds,
    )


def summary_of_done(entries: Iterable[ReviewEntry]) -> Summary:
    """Return the summary of an execution."""
    everything = tuple(entries)
    return Summary(
        services=Counter(entry.effect for entry in everything if entry.key.kind == _SERVICE),
        supplies=_count_supplies(a for entry in everything for a in entry.actions),
        done=True,
    )


def _count_supplies(actions: Iterable[AnyAction]) -> dict[str, int]:
    done = [action for action in actions if not is_denied(action)]
    targets = {
        name: {action.target for action in done if isinstance(action, kind)}
        for name, kind, *_ in _SUPPLIES
        if kind is not None
    }
    targets["pulls"] -= targets["builds"]
    remade = targets["networksCreated"] & targets["networksRemoved"]
    targets |= {name: targets[name] - remade for name in ("networksCreated", "networksRemoved")}
    return {name: len(found) for name, found in (targets | {_REMADE: remade}).items()}


def downtime_text(downtime: Downtime) -> str:
    """Return the expected downtime of a service, and how it is known."""
    name = display_name(downtime.key)
    if downtime.measured_s is not None:
        return f"{name} about {_seconds(downtime.measured_s)}"
    return f"{name} until its new container is up (its stop may take {downtime.grace_s} s)"


def downtime_json(downtime: Downtime) -> dict[str, object]:
    """Return a downtime in the shape of ``plan --json``."""
    return {
        "object": str(downtime.key),
        "measuredSeconds": downtime.measured_s,
        "stopMayTakeSeconds": downtime.grace_s,
        "text": downtime_text(downtime),
    }


def hold_word(hold: OverrideReason) -> str:
    """Return a short phrase for an override, such as ``pinned to 1a2b3c4d``."""
    if hold.revision is None:
        return "stopped" if hold.code == STOPPED else hold.word
    verb = "rolled back" if hold.code == "Automatic" else "pinned"
    return f"{verb} to {short_revision(hold.revision)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 0.95 else f"{seconds:.0f} s"


def _camel(effect: Effect) -> str:
    first, *rest = effect.value.split("-")
    return first + "".join(word.capitalize() for word in rest)
