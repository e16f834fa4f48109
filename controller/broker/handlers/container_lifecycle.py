"""Changes of a container: start, with its checks, stop, and everything that ends or alters a container.

The engine resolves names again when a container starts: a bind source by its path, a network by
its name at the first start, a volume with its current options. Objects swapped since admission are
refused here. A swap after the check shows in the kernel (``kernel_verify``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from controller.broker import signed_acts
from controller.broker.deliveries import make_recorded, present_contents
from controller.broker.gate.call import (
    Flow,
    GateRequest,
    inspect_paths,
    read_cdi_devices,
    read_json,
)
from controller.broker.gate.journal_entries import place_of
from controller.broker.gate.mutate import (
    LONG_S,
    Change,
    Preparation,
    perform,
)
from controller.broker.gate.refusals import Answered, Denied, raise_if_denied, refuse_for
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards import (
    conflicts,
    disruption_budget,
    job_runs,
    kernel_verify,
    lookup,
    recovery,
)
from controller.broker.guards.lookup import OwnContainer, container_facts
from controller.broker.guards.recovery import remove_stale
from controller.broker.handlers import container_hooks
from controller.broker.handlers.container_create import (
    Kept,
    host_facts,
    refuse_update,
    refuse_without_limits,
)
from controller.core.admission import calls
from controller.core.admission.calls import admit_update, judge_memory_in_use, memory_in_use
from controller.core.engine_api import parse
from controller.core.engine_api.mount_grammar import is_known_volume
from controller.core.engine_api.translate import ZERO_TIME, shared_ids
from controller.core.records.container_effects import changes_limits, updated_settings
from controller.core.records.parts import SettingsPart, StopPart, SummaryPart
from controller.core.rules import networks as network_rules
from controller.core.rules.confinement import data_path, mounts_volume, number_text
from controller.core.rules.mounts import is_admitted_volume
from controller.core.rules.verdict import AdmissionDecision
from controller.model.confinement import ExpectedMount
from controller.model.host_paths import ENGINE_DATA, PathFacts, is_below
from controller.model.inventory import ContainerItem
from controller.model.mutations import Mutation
from controller.model.policy.document import Policy
from controller.model.records import ALLOW, Reply, Role


def refuse_if_violated(container: OwnContainer) -> None:
    """Refuse to start or change a container that was stopped for a violation.

    Raises:
        Denied: ``effective.violated``.
    """
    if container.item.violation:
        raise Denied(
            "effective.violated",
            f"it was stopped since it didn't run as admitted, see record {container.item.violation}",
            "remove the container and create it again",
            subject=container.item.id,
        )


def refuse_if_volume_held(state: GateState, item: ContainerItem) -> None:
    """Refuse to start a container while one of its volumes is dumped or restored.

    The end of a hold starts the containers, unless another volume of theirs is held.

    Raises:
        Denied: ``volume.held``.
    """
    for hold in state.inventory.holds.values():
        if (item.id, hold.volume) in state.holds.starting:
            continue
        if not hold.live and mounts_volume(item, hold.volume, state.volumes_root):
            raise Denied(
                "volume.held",
                f"the volume {hold.volume} is held for a {hold.act}, see record {hold.id}",
                "wait for its end: the container is started then",
                status=409,
                subject=item.id,
            )


def refuse_if_changed(state: GateState, container: OwnContainer, policy: Policy) -> Flow[None]:
    """Refuse if a network, a volume or a bind source isn't the admitted one.

    Raises:
        Denied: ``network.changed``, ``volume.changed``, ``mount.changed``, ``files.undelivered``,
            ``device.changed``, ``namespace.target``, ``observer``.
    """
    _refuse_lost_namespaces(state, container)
    yield from _refuse_changed_networks(state, container, policy)
    yield from _refuse_changed_volumes(state, container)
    yield from _refuse_changed_sources(state, container)
    yield from _refuse_taken_uid(state, container)
    yield from _refuse_changed_devices(container)


def _refuse_lost_namespaces(state: GateState, container: OwnContainer) -> None:
    """Refuse if a container whose namespaces are shared is no longer of the same owner."""
    place = (container.item.owner, container.item.namespace)
    for identifier in shared_ids(container.inspect):
        other = state.inventory.containers.get(identifier)
        if other is None or (other.owner, other.namespace) != place:
            raise Denied(
                "namespace.target",
                f"the container {identifier}, whose namespaces it shares, isn't there any more",
                "create the container again",
                status=409,
                subject=container.item.id,
            )


def paths_to_read(item: ContainerItem) -> tuple[str, ...]:
    """Return the engine paths for ``refuse_if_changed``."""
    networks = map(lookup.network_path, item.admitted.networks)
    return tuple(filter(None, (*networks, *map(lookup.volume_path, _volume_names(item)))))


def _refuse_changed_networks(
    state: GateState, container: OwnContainer, policy: Policy
) -> Flow[None]:
    """Refuse another network of an admitted name: one of another owner, or with other settings.

    A client doesn't learn whose the network is.
    """
    item = container.item
    for name in item.admitted.networks:
        network = yield from lookup.find_network(state, name)
        if network is None:
            continue
        if network.owned is None:
            changed, remedy = "was created again by somebody else", "remove it, and create"
        elif not network_rules.is_admitted(item, network.owned, policy):
            changed, remedy = "isn't the one of the container's create", "create"
        else:
            continue
        raise Denied(
            "network.changed",
            f"the network {name} {changed}",
            f"{remedy} the container again",
            subject=item.id,
        )


def _refuse_changed_volumes(state: GateState, container: OwnContainer) -> Flow[None]:
    for name in _volume_names(container.item):
        volume = yield from lookup.find_volume(state, name)
        if volume is None:
            changed = "isn't there any more"
        elif volume.owned is None:
            changed = "was created again by somebody else"
        elif not is_admitted_volume(container.item, volume.owned):
            changed = "isn't the one of the container's create"
        elif not is_known_volume(volume.facts.driver, volume.facts.options):
            changed = "has options now"
        else:
            continue
        raise Denied(
            "volume.changed",
            f"the volume {name} {changed}",
            "create the container again",
            subject=container.item.id,
        )


def _volume_names(item: ContainerItem) -> list[str]:
    return sorted({mount.source for mount in _admitted_mounts(item, "volume")} - {""})


def _admitted_mounts(item: ContainerItem, kind: str) -> Iterator[ExpectedMount]:
    for mount in item.confined.mounts if item.confined else ():
        if mount.type == kind:
            yield mount


def _refuse_changed_sources(state: GateState, container: OwnContainer) -> Flow[None]:
    """Refuse if a bind source was replaced, by a link for example, or is protected."""
    binds = {
        str(mount.get("Source"))
        for mount in container.inspect.get("Mounts") or ()
        if mount.get("Type") == "bind"
    }
    binds -= yield from make_recorded(state, container.item)
    known = {mount.source: mount for mount in _admitted_mounts(container.item, "bind")}
    known |= {
        data_path(state.volumes_root, mount.source): mount
        for mount in _admitted_mounts(container.item, "volume")
        if mount.inode
    }
    sources = sorted({*binds, *known})
    facts = yield from inspect_paths(tuple(sources))
    for source in sources:
        seen = facts.get(source, PathFacts(source, "unreadable"))
        if changed := _difference(state, seen, known.get(source)):
            raise Denied(
                "mount.changed",
                f"the bind source {source} is now {changed}",
                "put back what was admitted, or create the container again",
                subject=container.item.id,
            )


def _refuse_taken_uid(state: GateState, container: OwnContainer) -> Flow[None]:
    confined = container.item.confined
    if confined is None or not confined.observer:
        return
    if somebody := (yield from lookup.uid_user_of(state, confined.user, observes=True)):
        raise Denied(
            "observer",
            f"the uid of the observer is also that of {somebody}",
            "give the observer a uid that nobody has, in its exception and in its document",
            subject=container.item.id,
        )


def _refuse_changed_devices(container: OwnContainer) -> Flow[None]:
    """Refuse if a device node has another number, or a CDI specification another content.

    The engine reads both again at each start.
    """
    devices = container.item.confined.devices if container.item.confined else ()
    if not devices:
        return
    named = any(device.specification for device in devices)
    found = (yield from read_cdi_devices()) if named else {}
    nodes = dict(node.split("=", 1) for device in devices for node in device.nodes)
    facts = yield from inspect_paths(tuple(sorted(nodes)))
    for device in devices:
        changed = ""
        if device.specification:
            now = found.get(device.source)
            if now is None:
                changed = "isn't in a specification any more"
            elif now.digest != device.specification:
                changed = f"has another specification now ({now.file}, {now.digest})"
            elif now.never:
                changed = f"is defined by {now.file}: {now.never}"
        for node in device.nodes:
            path, _, number = node.partition("=")
            seen = facts.get(path, PathFacts(path, "unreadable"))
            changed = changed or _change_of(seen, number)
        if changed:
            raise Denied(
                "device.changed",
                f"{device.source} {changed}",
                "put back what was admitted, or create the container again",
                subject=container.item.id,
            )


def _change_of(seen: PathFacts, number: str) -> str:
    """Return how a device node differs from the one with a number; '' for no difference."""
    if seen.device_type != "character" or number_text(seen.number) != number:
        return f"isn't the device {number} any more"
    return "is a console of the host now" if seen.console else ""


def _difference(state: GateState, seen: PathFacts, admitted: ExpectedMount | None) -> str:
    """Return how a source differs from its admission; '' for no difference."""
    in_volume = is_below(seen.path, state.volumes_root) and seen.protected == ENGINE_DATA
    # The create admitted a folder of the directory; the same folder can't have become another place.
    in_directory = seen.in_directory and admitted is not None and admitted.inode != 0
    # Only an observer was admitted with the root filesystem, which contains every place of it.
    is_root = admitted is not None and admitted.source == "/"
    protected = "" if in_volume or in_directory or is_root else seen.protected
    if seen.kind not in {"dir", "file"} or protected:
        return protected or seen.kind
    if admitted is None or not admitted.inode:
        return ""
    same = (seen.device, seen.inode) == (admitted.device, admitted.inode)
    return "" if same else f"another {seen.kind}"


ANSWER_SPARE_S = 15.0
DEFAULT_GRACE_S = 10
#: After these changes a container runs, and is compared with its admission.
_RUNS = frozenset({"start", "restart", "unpause"})
#: Changes with errors that may repeat the command.
_STARTS = frozenset({"start", "restart"})


#: Changes that end a container in an orderly way, after its hooks.
_STOPS = frozenset({"stop", "restart"})

#: The member that shows a change took effect, by a later time than before.
_INSTANTS = {"start": "StartedAt", "stop": "FinishedAt"}


def start(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Start a container, if its admission still holds on the host and in the policy."""
    container = yield from lookup.find_requested(call, state, paths_to_read)
    disruption_budget.refuse_overtaking(call, state, container.item.id)
    try:
        judged = raise_if_denied(calls.admit_start(call.query))
        judged = yield from _admit_start_again(call, state, container, judged)
    except Denied:
        if (container.inspect.get("HostConfig") or {}).get("AutoRemove"):
            # The engine does so when a start fails: `docker run --rm` waits for the removal.
            yield from remove_stale(state, container.item.id)
        raise
    return (yield from _post_action(call, state, container, judged))


def _admit_start_again(
    call: GateRequest, state: GateState, container: OwnContainer, judged: AdmissionDecision
) -> Flow[AdmissionDecision]:
    """Return the admission of a start, with today's verdict on the image.

    Raises:
        Denied: the container's admission doesn't hold any more.
    """
    image = raise_if_denied(calls.admit_restart_allowed(container.item.image, policy=call.policy))
    refuse_if_violated(container)
    refuse_without_limits(state, call.policy, container.item)
    job_runs.refuse_second_start(state, container.item)
    refuse_if_volume_held(state, container.item)
    recovery.refuse_if_slot_held(state, container.item)
    yield from refuse_if_changed(state, container, call.policy)
    conflicts.refuse_clashes(call, state, container)
    conflicts.refuse_taken_ports(call, state, container.item)
    signed_acts.refuse_unsigned_start(call, state, container.item)
    return replace(judged, verdict=image.verdict)


def stop(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Stop a container."""
    return (yield from _take_down(call, state, calls.admit_stop(call.query)))


def restart(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Stop and start a container, if its admission still holds."""
    judged = raise_if_denied(calls.admit_stop(call.query))
    container = yield from lookup.find_requested(call, state, paths_to_read)
    disruption_budget.refuse_overtaking(call, state, container.item.id)
    judged = yield from _admit_start_again(call, state, container, judged)
    return (yield from _take_down(call, state, judged, container))


def kill(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Send a signal to a container."""
    return (yield from _take_down(call, state, calls.admit_kill(call.query)))


def remove(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Remove a container. Its volumes stay, even anonymous ones: ``v=1`` isn't forwarded."""
    return (yield from _take_down(call, state, calls.admit_remove(call.query)))


def _take_down(
    call: GateRequest,
    state: GateState,
    judged: AdmissionDecision,
    container: OwnContainer | None = None,
) -> Flow[Reply]:
    """Do a change that may leave a service without a running replica; all such changes pass here.

    Raises:
        Denied: *judged* denies it, or ``blast.radius``: beyond the controller's disruption budget.
    """
    raise_if_denied(judged)
    target = container or (yield from lookup.find_requested(call, state))
    judged = yield from disruption_budget.enforce_budget(call, state, target, judged)
    query = dict(judged.query)
    if call.verb == "remove":
        # The memory of a run must not depend on somebody looking at the container in time.
        yield from job_runs.record_end(state, target.item.id, target.inspect)
        change = _change(call, target, judged, build_path(target.path, query))
        return (yield from perform(state, call.by, change))
    grace = 0 if call.verb == "kill" else _grace_s(query, target.inspect)
    extra = StopPart(signal=query["signal"]) if "signal" in query else StopPart()
    if call.verb == "kill" and call.actor.role is Role.CONTROLLER:
        extra |= StopPart(contents=present_contents(state, target.item))
    reply = yield from _post_action(call, state, target, judged, grace_s=grace, extra=extra)
    if target.item.is_run and reply.status < 400:
        yield from job_runs.look_for_end(state, target.item.id)
    return reply


def _grace_s(query: Mapping[str, str], inspect: Mapping[str, Any]) -> int:
    if "t" in query:
        return int(query["t"])
    timeout = (inspect.get("Config") or {}).get("StopTimeout")
    return (
        timeout if isinstance(timeout, int) and not isinstance(timeout, bool) else DEFAULT_GRACE_S
    )


def pause(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Pause a container. A service with a paused container doesn't serve."""
    return (yield from _take_down(call, state, AdmissionDecision(ALLOW)))


def unpause(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Resume a paused container."""
    container = yield from lookup.find_requested(call, state)
    disruption_budget.refuse_overtaking(call, state, container.item.id)
    refuse_if_violated(container)
    signed_acts.refuse_unsigned_start(call, state, container.item)
    return (yield from _post_action(call, state, container, AdmissionDecision(ALLOW)))


def rename(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Rename a container."""
    container = yield from lookup.find_requested(call, state)
    judged = raise_if_denied(
        calls.admit_rename(
            call.query,
            actor=call.actor,
            policy=call.policy,
            admitted=container.item.admitted.name,
            origin=container.item.origin,
        )
    )
    name = dict(judged.query).get("name", "")
    taken = yield from conflicts.find_holder(state, name)
    if taken.id != container.item.id:
        conflicts.refuse_if_taken(call, name, taken)
    mine, extra = conflicts.names_after_rename(state, container, name), SummaryPart(name=name)
    with conflicts.reserve_names(call, state, mine):
        return (yield from _post_action(call, state, container, judged, extra=extra))


def update(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Change limits or the restart policy of a container; the resulting state is judged."""
    container = yield from lookup.find_requested(call, state)
    disruption_budget.refuse_client_objects(
        call, container.item.origin, container.item.admitted.name
    )
    refuse_if_violated(container)
    judged = raise_if_denied(
        admit_update(
            parse.parse_update(call.body),
            actor=call.actor,
            policy=call.policy,
            current=container_facts(container),
            host=host_facts(state),
        )
    )
    proof = signed_acts.proof_of_update(call, state, container.item)
    judged = signed_acts.with_proof(judged, proof)
    assert judged.settings is not None, "an admitted update has settings"
    extra = SettingsPart(settings=judged.settings)
    updated = updated_settings(SummaryPart.read(judged.summary))
    asked = {name: getattr(judged.settings, name) for name in updated}
    after = replace(container.item.admitted, **asked)
    if "memory" in updated and call.actor.role is Role.CONTROLLER:
        yield from _refuse_below_use(container, after.memory)
    if changes_limits(SummaryPart.read(judged.summary)):
        disruption_budget.refuse_overtaking(call, state, container.item.id)
        judged = yield from disruption_budget.enforce_budget(
            call, state, container, judged, settings=after
        )
    if call.actor.role is not Role.CONTROLLER:  # which repeats what was admitted
        refuse_update(state, call.policy, judged, container.item.id)
    body = judged.body or {}
    kept = Kept(state, call.policy, judged.warnings, body, container=container.item.id)
    change = _change(call, container, judged, build_path(f"{container.path}/update"), extra)
    reply = yield from perform(state, call.by, change, kept.learn)
    return (yield from kept.settle(reply, call.id))


def _refuse_below_use(container: OwnContainer, limit: int) -> Flow[None]:
    """Keep the controller from taking memory that a running container uses.

    Without an answer from the engine the use is unknown, and the limit is set.

    Raises:
        Denied: ``resources.in-use``.
    """
    job_runs = (container.inspect.get("State") or {}).get("Running")
    if not job_runs or limit >= container.item.admitted.memory:
        return
    try:
        stats = yield from read_json(f"{container.path}/stats?stream=false&one-shot=true")
    except Answered:
        return
    refuse_for(judge_memory_in_use(limit, memory_in_use(stats or {})), subject=container.item.id)


def _post_action(
    call: GateRequest,
    state: GateState,
    container: OwnContainer,
    judged: AdmissionDecision,
    *,
    grace_s: int = 0,
    extra: SummaryPart | None = None,
) -> Flow[Reply]:
    verb, path = call.verb, build_path(f"{container.path}/{call.verb}", dict(judged.query))
    extra = (extra or SummaryPart()) | StopPart(grace_s=grace_s)
    if verb in _INSTANTS:  # recovery compares with this time
        times = container.inspect.get("State") or {}
        extra |= SummaryPart(before=str(times.get(_INSTANTS[verb]) or ZERO_TIME))
    deadline_s = max(LONG_S, grace_s + ANSWER_SPARE_S)
    change = replace(_change(call, container, judged, path, extra), deadline_s=deadline_s)
    if verb in _STARTS:
        change = replace(change, runs=container.inspect.get("Config") or {})
    prepare = None
    if verb in _STOPS and container.item.hooks and grace_s > 0:
        prepare = partial(run_pre_stop, state, container, call.policy, grace_s)
    if verb in _RUNS:
        return (yield from _run_verified(call, state, container, change, prepare))
    return (yield from perform(state, call.by, change, prepare=prepare))


def _run_verified(
    call: GateRequest,
    state: GateState,
    container: OwnContainer,
    change: Change,
    prepare: Preparation | None,
) -> Flow[Reply]:
    """Perform a start, a restart or a thaw. A start ends with the container's hooks."""
    item, policy = container.item, call.policy
    starts = call.verb in _STARTS and item.post_start != ""
    with container_hooks.reserved(state, item.id, begins=starts):
        reply = yield from kernel_verify.perform_verified(
            state, call.by, item, policy, change, prepare=prepare
        )
        if starts and reply.status < 300:
            yield from container_hooks.run_post_start(state, item.id, policy, has_started=True)
    return reply


def run_pre_stop(
    state: GateState, container: OwnContainer, policy: Policy, grace_s: int, change: Change
) -> Flow[Change]:
    """Run the hooks of a stop, and leave the rest of the grace period to the program."""
    item, inspect = container.item, container.inspect
    took_s = yield from container_hooks.run_pre_stop(state, item, inspect, policy, grace_s)
    left_s = max(1, int(grace_s - took_s))
    path, _, query = change.path.partition("?")
    kept = [part for part in query.split("&") if part and not part.startswith("t=")]
    return replace(change, path=f"{path}?{'&'.join([*kept, f't={left_s}'])}")


def _change(
    call: GateRequest,
    container: OwnContainer,
    judged: AdmissionDecision,
    path: str,
    extra: SummaryPart | None = None,
) -> Change:
    item = container.item
    summary = {**place_of(item), **judged.summary, **(extra or SummaryPart()).members}
    return Change.of(Mutation(call.route.name), item.id, path, judged, summary)
