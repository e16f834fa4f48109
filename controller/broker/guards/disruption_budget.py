"""The disruption budget at the gate: how many services are down because of the controller.

The gate looks up and judges a takedown while mutations run one at a time until their intent is
written. From the intent on the takedown counts. The decision is taken on the folded inventory when
the engine has answered (``core.disruption``).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from controller.broker.gate.call import Flow, GateRequest, read_members
from controller.broker.gate.refusals import Denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards.lists import encode_filters as filters_of
from controller.broker.guards.lookup import OwnContainer
from controller.core import disruption
from controller.core.disruption import Budget, Call, Look, RemovalScope
from controller.core.enforcement import approvals
from controller.core.records.inventory_json import replica_of
from controller.core.records.parts import StopPart
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.inventory import USED, Approval, Capacity, ContainerItem, RecordTime
from controller.model.mutations import Mutation
from controller.model.observed import Settings
from controller.model.records import Role, Verdict

RUNNING = "running"
#: The states of a container whose end takes something down. One that the engine is restarting by
#: itself has just ended: a replacement of what crashes again and again needs no budget.
_ALIVE = frozenset({RUNNING, "paused"})
_STARTS = frozenset(
    {Mutation.CONTAINER_START, Mutation.CONTAINER_RESTART, Mutation.CONTAINER_UNPAUSE}
)
#: The takedowns that a repair undoes, if it isn't a start.
_REPAIRS: dict[str, frozenset[Mutation]] = {
    Mutation.CONTAINER_UPDATE: frozenset({Mutation.CONTAINER_UPDATE}),
    Mutation.NETWORK_CONNECT: frozenset({Mutation.NETWORK_DISCONNECT}),
}
#: The engine's words for a short uptime. Other words are longer than a minute.
_UPTIME = re.compile(r"Up (?:(Less than a)|(\d+)) seconds?\b", re.ASCII)


def enforce_budget(
    call: GateRequest,
    state: GateState,
    container: OwnContainer,
    judged: AdmissionDecision,
    *,
    network: str = "",
    settings: Settings | None = None,
) -> Flow[AdmissionDecision]:
    """Return the admission of a change, with the takedown in its summary if it is one.

    *network* is that of a disconnect, *settings* are those after an update. Only the controller has
    a budget; operators and clients answer for their own actions.

    Raises:
        Denied: ``blast.radius``: beyond the budget and without an approval; ``blast.client``: the
            container isn't the controller's.
    """
    item = container.item
    if call.actor.role is not Role.CONTROLLER:
        return judged
    refuse_client_objects(call, item.origin, item.admitted.name)
    capacity = None if settings is None else Capacity.of(settings)
    cpus = state.engine.cpus
    asked = Call(item.id, call.route.name, network=network, capacity=capacity, host_cpus=cpus)
    if not disruption.can_take_down(_budget_of(state, item), asked):
        return judged
    shown = (container.inspect.get("State") or {}).get("Status") in _ALIVE
    runs = shown or _is_starting(state, item.id)
    listed: list[Any] = []
    if runs or call.route.name not in disruption.HALTS:
        listed = yield from _list_running(state)
    # From here on nothing waits until the intent is written.
    asked_s = state.clock.monotonic() - container.asked_at
    steady = frozenset(str(each.get("Id", "")) for each in listed if not is_young(each))
    look = Look(steady, target_runs=runs, age_s=asked_s)

    def age_s(stamp: RecordTime) -> float:
        """Return a record's age. An earlier broker's record is older than this process."""
        age_s = state.age_s(stamp.id, stamp.time)
        known = stamp.id in state.recorded_at
        return age_s if known else max(age_s, state.clock.monotonic() - state.start_monotonic)

    approval = approval_of(call, state, item.id)
    word = disruption.admit(
        _budget_of(state, item), asked, look, age_s, approved=approval is not None
    )
    if not word.takes:
        return judged
    takes: RemovalScope = word.takes
    verdict = judged.verdict
    if takes == "service" and approval is not None:
        takes, verdict = "slot", with_approval(verdict, approval)
    elif word.finding is not None:
        finding = word.finding
        raise Denied(finding.rule, finding.reason, finding.remedy, subject=item.id)
    summary = judged.summary | StopPart(takes_down=takes).members
    return replace(judged, verdict=verdict, summary=summary)


def refuse_overtaking(call: GateRequest, state: GateState, identifier: str) -> None:
    """Let a repair of the controller's wait for its own takedowns of the container.

    A start waits for stops, an update of limits for another below half of one, a connect for a
    disconnect. The engine may carry out the takedown last, also if its answer comes first. A stop of
    what is down waits for nothing, and is free.

    Raises:
        Denied: ``held``.
    """
    if call.actor.role is not Role.CONTROLLER:
        return
    repaired = _REPAIRS.get(call.route.name, disruption.HALTS)
    for key, intent in state.inventory.open.items():
        request, role = intent.request, intent.role
        if request.get("object") != identifier or role != Role.CONTROLLER.value:
            continue
        counts = repaired is disruption.HALTS or key in state.inventory.taken
        if counts and request.get("route") in repaired:
            raise Denied(
                "held",
                f"{request['route']} of the container is still in progress",
                "wait until it has ended",
                status=409,
                subject=identifier,
            )


def refuse_network_removal(
    call: GateRequest, state: GateState, network: str, connected: Collection[str]
) -> Flow[None]:
    """Keep a network while containers that were admitted to it run: nobody would reach them.

    Containers whose disconnect from the network is counted as a takedown don't keep it: the
    controller remakes the network. *connected* are the ids of the connected containers.

    Raises:
        Denied: ``blast.radius``; ``network.in-use``: others are connected.
    """
    if call.actor.role is not Role.CONTROLLER:
        return
    replicas = state.inventory.replicas
    known = state.inventory.containers.values()
    own = {item.id for item in known if item.origin == Role.CONTROLLER.value}
    if outsiders := sorted({*connected} - own):
        raise Denied(
            "network.in-use",
            f"{len(outsiders)} containers that trimtab doesn't supervise are on {network}, such as "
            f"{outsiders[0]:.12}",
            "disconnect them first: docker network disconnect",
            subject=network,
        )
    if released := [
        item.admitted.name
        for item in state.inventory.released.values()
        if network in item.admitted.networks
    ]:
        raise Denied(
            "network.in-use",
            f"{min(released)} was released, and is on {network}",
            "remove that container first, or adopt it again",
            subject=network,
        )
    left = {
        taken.container
        for taken in state.inventory.taken.values()
        if (taken.route, taken.network) == (Mutation.NETWORK_DISCONNECT, network)
        and taken.closed
        and not taken.ended
    }
    users = {
        each.container: each.service
        for each in replicas.values()
        if network in each.networks and each.container not in left.difference(connected)
    }
    if not users:
        return
    listed = yield from _list_running(state)
    services = {users[each["Id"]] for each in listed if each.get("Id") in users}
    if services:
        raise Denied(
            disruption.RULE,
            f"{network} is the network of {len(services)} services that run, such as "
            f"{min(services)}",
            "stop or replace their containers first",
            subject=network,
        )


def refuse_client_objects(call: GateRequest, origin: str, name: str) -> None:
    """Keep the controller off objects of clients: even a limit or a lost network can stop them.

    Raises:
        Denied: ``blast.client``.
    """
    if call.actor.role is Role.CONTROLLER and origin != Role.CONTROLLER.value:
        raise Denied(
            "blast.client",
            f"a client made {name}: the controller isn't allowed to act on it",
            "let its owner or an operator do that",
            subject=name,
        )


def approval_of(call: GateRequest, state: GateState, subject: str) -> Approval | None:
    """Return the approval that the controller's change of *subject* would use up, or None."""
    plan = call.context.plan if call.context is not None else ""
    return approvals.approval_for(
        subject,
        plan=plan,
        approvals=(
            (approval, state.age_s(approval.id, approval.time))
            for approval in state.inventory.approvals.values()
        ),
    )


def with_approval(verdict: Verdict, approval: Approval) -> Verdict:
    """Return a verdict with the approval; the intent uses the approval up."""
    return replace(verdict, rules=(*verdict.rules, f"{USED}{approval.id}"))


def _is_starting(state: GateState, identifier: str) -> bool:
    requests = (intent.request for intent in state.inventory.open.values())
    return any(r.get("object") == identifier and r.get("route") in _STARTS for r in requests)


def _budget_of(state: GateState, item: ContainerItem) -> Budget:
    """Return the counted state. A container that it doesn't know counts as up."""
    replicas = state.inventory.replicas
    if item.id not in replicas:
        replicas = {**replicas, item.id: replica_of(item, up=RecordTime())}
    return Budget(replicas, state.inventory.taken)


def _list_running(state: GateState) -> Flow[list[Any]]:
    """List the running containers of the controller."""
    labels = [f"{names.INSTANCE}={state.instance}", f"{names.ORIGIN}={Role.CONTROLLER.value}"]
    query = {"filters": filters_of({"label": labels, "status": [RUNNING]})}
    listed = yield from read_members(build_path("/containers/json", query), "Id", "Status")
    adopted = [item.id for item in state.inventory.containers.values() if item.adopted]
    if adopted:
        query = {"filters": filters_of({"id": adopted, "status": [RUNNING]})}
        listed += yield from read_members(build_path("/containers/json", query), "Id", "Status")
    return listed


def is_young(listed: dict[str, Any]) -> bool:
    """Return True if a listed container has run for less than ``RUN_S``, by the engine's words."""
    uptime = _UPTIME.match(str(listed.get("Status", "")))
    return uptime is not None and int(uptime.group(2) or 0) < disruption.RUN_S
