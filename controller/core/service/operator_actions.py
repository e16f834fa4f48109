"""Operator actions: the effect of stop, start, suspend, resume, rollback, restart and scale on a service.

An action is decided as a whole before anything is done. An impossible action is an error with an
alternative. An automatic rollback uses the same function as a person's.

The actions of ``down`` and ``stop``: remove or stop everything of an instance, or of services.

Like the planner, this decides from the observed state. The desired state only gives the teardown
order, as far as it is known. Volumes stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from controller.core.drift.actions import ContainerHandle, stop_and_remove, stop_for_good
from controller.core.drift.classify import ALIVE, short_revision
from controller.core.encoding import graph
from controller.core.engine_api.comparable_fields import limits_text
from controller.core.manifests.revision_hash import spec_digest
from controller.core.service import history
from controller.core.service.overrides import (
    apply_overrides,
    display_name,
    pin_conflict,
    scale_conflicts,
    shared_resource,
    slots_of,
    with_scaling,
)
from controller.model.desired.desired import (
    NO_OVERRIDES,
    Desired,
    Overrides,
    Pin,
    Restarting,
    Revision,
    Scaling,
    Service,
    ServiceAct,
    Suspension,
)
from controller.model.desired.plan import AnyAction, RemoveNetwork
from controller.model.desired.spec.service import PullPolicy, RunState
from controller.model.errors import UsageError
from controller.model.names import Key, revision_digits, short_commit
from controller.model.observed import Container, ContainerState, Observed
from controller.model.quantities import format_instant
from controller.model.records import Precondition

#: The most services that can be suspended at the same time.
SUSPENDED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class ActionInputs:
    """The inputs of a decision."""

    #: The files, without overrides.
    declared: Desired
    all_overrides: Mapping[Key, Overrides]
    #: The containers of the service.
    containers: tuple[Container, ...]
    generation: int
    #: Why the service's rollout failed; '' if it did not.
    failed: str = ""
    #: The id of an image that was built under the service's reference since; '' for none.
    rebuilt: str = ""
    #: The present key of a renamed service, if the action names the earlier one.
    renamed: Key | None = None
    #: True in a namespace with a signed source (G45).
    is_signed: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The effect of an action."""

    overrides: Overrides
    #: True if the action changes anything.
    changed: bool
    text: str
    #: The revision that the action is about.
    revision: str = ""
    #: True if the revision's image is looked up again.
    anew: bool = False


def decide(act: ServiceAct, inputs: ActionInputs, *, now: str) -> Decision:
    """Return the effect of an action at *now* (RFC 3339).

    Raises:
        UsageError: the action is impossible; the error gives the reason and an alternative.
    """
    if inputs.renamed is not None:
        # The state of the earlier name was copied: an act on it would have no effect.
        name = display_name(inputs.renamed)
        raise UsageError(
            "service.renamed",
            f"{display_name(act.key)} is {name} now",
            remedy=f"trimtab {act.verb} {name}",
        )
    match act.verb:
        case "suspend" | "stop":
            return _suspend(act, inputs, now)
        case "resume":
            return _resume(act, inputs)
        case "start":
            return _start(act, inputs)
        case "rollback":
            return _rollback(act, inputs, now)
        case "restart":
            return _restart(act, inputs)
        case "scale":
            return _scale(act, inputs, now)
        case _:
            assert_never(act.verb)


def _suspend(act: ServiceAct, inputs: ActionInputs, now: str) -> Decision:
    key, before = act.key, inputs.all_overrides.get(act.key, NO_OVERRIDES)
    declared = inputs.declared
    known = declared.service(key) or declared.is_unread(key) or inputs.containers
    stops = act.verb == "stop"
    if before.suspension is not None and (before.suspension.stopped or not stops):
        who = f"{before.suspension.by} since {before.suspension.since}"
        return Decision(before, changed=False, text=f"already {before.suspension.word} by {who}")
    if not known:
        raise unknown(key)
    if sum(s.suspension is not None for s in inputs.all_overrides.values()) >= SUSPENDED_MAX:
        raise UsageError(
            "suspend.too-many",
            f"{SUSPENDED_MAX} services are suspended already",
            remedy="resume some of them",
        )
    after = replace(before, suspension=Suspension(act.by, now, stops))
    text = "suspended: nothing is changed until it is resumed"
    if stops:
        text = f"stays down until 'trimtab start {display_name(key)}'"
    return Decision(after, changed=True, text=text)


def _start(act: ServiceAct, inputs: ActionInputs) -> Decision:
    """Return the end of a stop. A pin stays."""
    key, before = act.key, inputs.all_overrides.get(act.key, NO_OVERRIDES)
    service, name = inputs.declared.service(act.key), display_name(act.key)
    suspension = before.suspension
    if suspension is not None and suspension.stopped:
        return Decision(replace(before, suspension=None), changed=True, text="starts again")
    if suspension is not None:
        raise UsageError(
            "service.suspended",
            f"{name} is suspended, and so left as it is",
            remedy=f"trimtab resume {name}",
        )
    if service is None and not inputs.containers and not inputs.declared.is_unread(key):
        raise unknown(key)
    if service is not None and service.spec.state is RunState.STOPPED:
        where = service.source
        raise UsageError(
            "start.declared",
            f"{name} is stopped by its document, {where.file}:{where.line}",
            remedy="write state: Running there",
        )
    return Decision(before, changed=False, text="not stopped by a command")


def _resume(act: ServiceAct, inputs: ActionInputs) -> Decision:
    before = inputs.all_overrides.get(act.key, NO_OVERRIDES)
    service = inputs.declared.service(act.key)
    scaling = before.scaling
    if before.suspension is None and before.pin is None and scaling is None and not inputs.failed:
        if service is not None and service.spec.suspend:
            raise UsageError(
                "resume.declared",
                f"{display_name(act.key)} is suspended by its document, "
                f"{service.source.file}:{service.source.line}",
                remedy="set spec.suspend: false there",
            )
        if service is None and not inputs.containers and not inputs.declared.is_unread(act.key):
            raise unknown(act.key)
        return Decision(before, changed=False, text="neither suspended, pinned, scaled nor paused")
    ended = ["suspended"] if before.suspension else []
    ended += [f"pinned to {short_revision(before.pin.revision)}"] if before.pin else []
    ended += [f"scaled to {scaling.replicas}"] if scaling else []
    ended += ["paused"] if inputs.failed and not before.pin else []
    after = replace(before, suspension=None, pin=None, scaling=None)
    return Decision(after, changed=True, text=f"no longer {' and '.join(ended)}")


def _rollback(act: ServiceAct, inputs: ActionInputs, now: str) -> Decision:
    service, before = _workable(act, inputs)
    earlier = _chosen(act, service, before)
    pin = before.pin
    if pin is not None and earlier.is_variant(pin.revision, pin.limits):
        text = f"already pinned to {short_revision(earlier.revision)}"
        return Decision(before, changed=False, text=text, revision=earlier.revision)
    _check_fit(act.key, service, earlier, inputs)
    pin = Pin(
        revision=earlier.revision,
        generation=inputs.generation,
        asked=service.revision if act.automatic else spec_digest(service),
        by=act.by,
        since=now,
        reason=act.reason,
        automatic=act.automatic,
        limits=earlier.limits,
        asked_limits=service.limits if act.automatic else None,
    )
    after = replace(before, pin=pin, restarting=None)
    if act.automatic:
        after = history.record_rollback(after, service.revision, service.limits)
    text = f"rolls back to {short_revision(earlier.revision)} ({_what(earlier, service)})"
    text += _commits(service, earlier)
    return Decision(after, changed=True, text=text, revision=earlier.revision)


def _what(earlier: Revision, service: Service) -> str:
    """Return the image of an earlier revision, or the limits if only those differ."""
    if earlier.revision == service.revision:
        return limits_text(earlier.limits)
    return earlier.image


def _commits(service: Service, earlier: Revision) -> str:
    """Return the commits of a rollback, '' for a service of DIR."""
    source = service.source
    if not source.origin:
        return ""
    was = f" of commit {short_commit(earlier.source.commit)}" if earlier.source.commit else ""
    return f"{was}; Source {source.origin} is ahead, at commit {short_commit(source.commit)}"


def _chosen(act: ServiceAct, service: Service, overrides: Overrides) -> Revision:
    """Return the revision to roll back to."""
    name = display_name(act.key)
    remedy = f"see 'trimtab history {name}'"
    if not act.to:
        earlier = history.last_good(overrides, service.revision, service.limits)
        if earlier is None:
            now = short_revision(history.in_force(overrides, service.revision))
            raise UsageError(
                "rollback.none",
                f"no revision of {name} before {now} is known to have run well",
                remedy=f"{remedy}, and name one with --to",
            )
        return earlier
    digits = revision_digits(act.to).lower()
    kept = [r for r in overrides.revisions if revision_digits(r.revision).startswith(digits)]
    # Of a revision with several limits, the last ones before those of the document.
    others = [r for r in kept if not r.is_variant(service.revision, service.limits)] or kept
    matching = [
        r for n, r in enumerate(others) if r.revision not in {o.revision for o in others[n + 1 :]}
    ]
    if len(matching) != 1:
        number = "several revisions" if matching else "no revision that is kept"
        raise UsageError("rollback.unknown", f"{act.to} matches {number} of {name}", remedy=remedy)
    if matching[0].is_variant(service.revision, service.limits):
        raise UsageError(
            "rollback.declared",
            f"{short_revision(service.revision)} is the revision of the document of {name} says",
            remedy=f"trimtab resume {name}, if it is pinned to another",
        )
    return matching[0]


def _check_fit(key: Key, service: Service, earlier: Revision, inputs: ActionInputs) -> None:
    """Raise an error if a service cannot run an earlier revision now."""
    name, which = display_name(key), short_revision(earlier.revision)
    overrides = inputs.all_overrides.get(key, NO_OVERRIDES)
    slots = slots_of(earlier, with_scaling(service, overrides))
    if slots is None:
        raise UsageError(
            "rollback.lost",
            f"the saved data of {which} of {name} isn't enough to run it again",
            remedy="put its document back as it was",
        )
    why = pin_conflict(slots)
    for other in inputs.declared.services:
        if not why and other.key != key and (both := shared_resource(slots, other)):
            why = f"{other.key} wants {both}, too"
    if why:
        raise UsageError(
            "rollback.misfit",
            f"{which} of {name} conflicts with the documents of now: {why}",
            remedy="change the documents that are named",
        )


def _restart(act: ServiceAct, inputs: ActionInputs) -> Decision:
    service, before = _workable(act, inputs)
    name = display_name(act.key)
    if service.spec.state is RunState.STOPPED or service.spec.replicas == 0:
        raise UsageError(
            "restart.stopped",
            f"{name} has no replicas to restart: its document says state: Stopped, or replicas: 0",
            remedy="write state: Running, or replicas: 1, there",
        )
    ids = frozenset(container.id for container in inputs.containers)
    count = len(ids)
    containers = "1 container" if count == 1 else f"{count} containers"
    by = f", by the rebuilt image {inputs.rebuilt}" if inputs.rebuilt else ""
    return Decision(
        replace(before, restarting=Restarting(ids, act.by)),
        changed=bool(ids),
        text=f"{containers} to be replaced{by}" if ids else "it has no containers",
        revision=history.in_force(before, service.revision),
        anew=service.spec.pull_policy is PullPolicy.ALWAYS or bool(inputs.rebuilt),
    )


def _scale(act: ServiceAct, inputs: ActionInputs, now: str) -> Decision:
    service, before = _workable(act, inputs)
    name, declared, count = display_name(act.key), service.spec.replicas, act.replicas
    if service.spec.state is RunState.STOPPED:
        raise UsageError(
            "scale.stopped",
            f"{name} has no replicas to scale: its document says state: Stopped",
            remedy="write state: Running there",
        )
    if count == declared:
        text = f"{_replicas(count)}, as its document says"
        after = replace(before, scaling=None)
        return Decision(after, changed=before.scaling is not None, text=text)
    if count > declared and inputs.is_signed:
        raise UsageError(
            "scale.signed",
            f"the signed commit of {name} declares {_replicas(declared)}, and permits no more",
            remedy=f"write replicas: {count}, sign the commit, and let it be fetched",
        )
    now_in_force = with_scaling(service, before).spec.replicas
    after = replace(before, scaling=Scaling(count, declared, act.by, now, act.until))
    inputs_after = {**inputs.all_overrides, act.key: after}
    services = apply_overrides(inputs.declared, inputs_after).services
    for _, why in scale_conflicts(services, act.key):
        raise UsageError(
            "scale.misfit",
            f"{name} can't have {_replicas(count)}: {why}",
            remedy="change the documents that are named, or scale to another number",
        )
    until = "" if act.until is None else f" until {format_instant(act.until)}"
    scaling = before.scaling
    if scaling and (scaling.replicas, scaling.until) == (count, act.until):
        text = f"already scaled to {count} by {scaling.by} since {scaling.since}"
        return Decision(before, changed=False, text=text)
    text = f"scales from {now_in_force} to {_replicas(count)}{until}; its document says {declared}"
    return Decision(after, changed=True, text=text)


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"


def _workable(act: ServiceAct, inputs: ActionInputs) -> tuple[Service, Overrides]:
    """Return a service that is neither blind nor suspended, and its overrides.

    Raises:
        UsageError: the service does not exist, or is left alone.
    """
    key, name = act.key, display_name(act.key)
    if inputs.declared.is_unread(key):
        raise UsageError(
            "service.blind",
            f"the document of {name} can't be read: until then it is left as it is",
            remedy="correct it: 'trimtab status' shows what is wrong",
        )
    service, overrides = inputs.declared.service(key), inputs.all_overrides.get(key, NO_OVERRIDES)
    if service is None:
        raise unknown(key)
    suspension = overrides.suspension
    if suspension is not None or service.spec.suspend:
        is_stopped = suspension is not None and suspension.stopped
        word, verb = ("stopped", "start") if is_stopped else ("suspended", "resume")
        raise UsageError(
            "service.suspended",
            f"{name} is {word}, and so left as it is",
            remedy=f"trimtab {verb} {name}"
            if overrides.suspension
            else "set spec.suspend: false in its document",
        )
    return service, overrides


def unknown(key: Key) -> UsageError:
    """Return the error for a service that does not exist."""
    return UsageError(
        "service.unknown", f"there is no service {display_name(key)}", remedy="see 'trimtab status'"
    )


CAUSE = "the instance is taken down"


def teardown(
    observed: Observed, *, depends: Mapping[Key, Collection[Key]], grace_s: int = 10
) -> tuple[tuple[AnyAction, ...], ...]:
    """Return the actions that remove all containers, and then all networks, of the instance.

    Networks that released containers need stay.

    The actions come in waves; each wave begins after the one before. Services precede their
    dependencies, as *depends* has them. Containers within a wave are independent.
    """
    waves = _waves(
        observed.containers, depends, lambda container: _removal(container, grace_s=grace_s)
    )
    needed = {name for released in observed.foreign for name in released.networks}
    networks = sorted(
        (n for n in observed.networks if n.ours and n.name not in needed), key=lambda n: n.name
    )
    removals = tuple(
        RemoveNetwork(
            object=Key("Network", network.namespace or "default", network.name),
            target=network.name,
            cause=CAUSE,
            precondition=Precondition(id=network.id),
        )
        for network in networks
    )
    return (*waves, removals)


def services_down(
    observed: Observed,
    keys: Collection[Key],
    *,
    depends: Mapping[Key, Collection[Key]],
    remove: bool,
    cause: str,
) -> list[tuple[AnyAction, ...]]:
    """Return the actions that stop the containers of services for good, or *remove* them, in waves.

    A stop takes the container's own grace period. A stopped container stays down after a restart of
    the engine.
    """
    chosen = [
        container
        for container in observed.containers
        if container.key in keys and container.origin == "controller"
        if container.state is not ContainerState.REMOVING
    ]
    if remove:
        return _waves(chosen, depends, lambda each: stop_and_remove(each, None, cause))
    alive = [container for container in chosen if container.state in ALIVE]
    return _waves(alive, depends, lambda each: stop_for_good(each, None, cause))


def _waves(
    containers: Iterable[Container],
    depends: Mapping[Key, Collection[Key]],
    actions_of: Callable[[Container], Iterable[AnyAction]],
) -> list[tuple[AnyAction, ...]]:
    """Return the actions on containers in waves: services precede their dependencies."""
    ordered = sorted(containers, key=lambda c: (c.key, c.slot, c.name))
    keys = {container.key for container in ordered}
    return [
        tuple(action for each in ordered if each.key in wave for action in actions_of(each))
        for wave in graph.waves({key: depends.get(key, ()) for key in keys})
    ]


def _removal(container: Container, *, grace_s: int) -> Iterator[AnyAction]:
    precondition = Precondition(id=container.id)
    handle = ContainerHandle(container.key, container.name, container.slot, precondition)
    if container.state in ALIVE:
        if container.settings.restart != "no":
            # An engine that restarts between stop and removal must not start the container.
            yield handle.set_restart_policy(("no", 0), CAUSE)
        yield handle.stop(grace_s, CAUSE)
    yield handle.remove(CAUSE)
