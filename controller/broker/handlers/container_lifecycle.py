"""Changes of a container: start, stop, and everything that ends or alters a container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from controller.broker import signed_acts
from controller.broker.deliveries.mounts import present_contents
from controller.broker.gate.call import Flow, GateRequest, read_json
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
from controller.broker.guards.start_recheck import (
    paths_to_read,
    refuse_if_changed,
    refuse_if_violated,
    refuse_if_volume_held,
)
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
from controller.core.engine_api.translate import ZERO_TIME
from controller.core.records.container_effects import changes_limits, updated_settings
from controller.core.records.parts import SettingsPart, StopPart, SummaryPart
from controller.core.rules.verdict import AdmissionDecision
from controller.model.mutations import Mutation
from controller.model.policy.document import Policy
from controller.model.records import ALLOW, Reply, Role

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
