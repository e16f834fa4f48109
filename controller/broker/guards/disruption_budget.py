"""The disruption budget at the gate: how much of the running containers the controller takes down.

The gate looks up and judges a take-down while mutations run one at a time until their intent is
written. From the intent on the take-down counts, so that concurrent requests can't pass between
look-up and count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controller.broker.gate.call import Flow, GateRequest, read_json
from controller.broker.gate.refusals import Denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards.list_filters import encode as filters_of
from controller.broker.guards.lookup import OwnContainer
from controller.core.enforcement import disruption_budget
from controller.core.enforcement.disruption_budget import (
    RecentRemoval,
    RemovalScope,
    RunningReplica,
)
from controller.core.records.parts import SummaryPart
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.desired.plan import Verdict
from controller.model.inventory import USED, Approval, ContainerItem
from controller.model.mutations import Mutation
from controller.model.records import Role

RUNNING = "running"
_STARTS = frozenset(
    {Mutation.CONTAINER_START, Mutation.CONTAINER_RESTART, Mutation.CONTAINER_UNPAUSE}
)


def enforce_budget(
    call: GateRequest, state: GateState, container: OwnContainer, judged: AdmissionDecision
) -> Flow[AdmissionDecision]:
    """Return the admission of a take-down, with the take-down in its summary.

    Only the controller has a budget; operators and clients answer for their own actions.

    Raises:
        Denied: ``blast.radius``: beyond the budget and without an approval; ``blast.client``: the
            container isn't the controller's.
    """
    item = container.item
    if call.actor.role is not Role.CONTROLLER:
        return judged
    refuse_client_objects(call, item.origin, item.admitted.name)
    starting = _is_starting(state, item.id)
    runs = (container.inspect.get("State") or {}).get("Status") == RUNNING
    if not runs and not starting:
        return judged
    target = RunningReplica(item.id, service_of(item))
    # A container that goes down while the engine lists the running ones is in the list, and looks
    # as if it had been started again. It still counts as taken down.
    down = frozenset(taken.container for taken in state.inventory.taken.values() if taken.down)
    running = yield from _running_replicas(state)
    running |= {target} if runs else set()
    word = disruption_budget.judge(
        target, starting=starting, running=running, recent=_recent_removals(state, down)
    )
    takes: RemovalScope = word.takes
    verdict = judged.verdict
    approval = approval_of(call, state, item.id) if takes == "service" else None
    if approval is not None:
        takes, verdict = "slot", with_approval(verdict, approval)
    elif word.finding is not None:
        finding = word.finding
        raise Denied(finding.rule, finding.reason, finding.remedy, subject=item.id)
    state.remember_time(call.id)
    summary = judged.summary | SummaryPart(takes_down=takes).members
    return replace(judged, verdict=verdict, summary=summary)


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


def service_of(item: ContainerItem) -> str:
    """Return the service of a controller's container, as the budget counts it."""
    return f"{item.namespace}/{item.service}"


def approval_of(call: GateRequest, state: GateState, subject: str) -> Approval | None:
    """Return the approval that the controller's change of *subject* would use up, or None."""
    plan = call.context.plan if call.context is not None else ""
    return disruption_budget.approval_for(
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


def _running_replicas(state: GateState) -> Flow[set[RunningReplica]]:
    """List the running containers of the controller."""
    labels = [f"{names.INSTANCE}={state.instance}", f"{names.ORIGIN}={Role.CONTROLLER.value}"]
    query = {"filters": filters_of({"label": labels, "status": [RUNNING]})}
    listed = yield from read_json(build_path("/containers/json", query))
    known = state.inventory.containers
    items = (known.get(str(each.get("Id", ""))) for each in listed or ())
    return {
        RunningReplica(i.id, service_of(i))
        for i in items
        if i is not None and i.origin == "controller"
    }


def _recent_removals(state: GateState, down: frozenset[str]) -> Iterable[RecentRemoval]:
    """Yield the take-downs so far; *down* are the containers that were down before the list."""
    for taken in state.inventory.taken.values():
        # A take-down in the future counts as of now: the clock was set back.
        age_s = max(0.0, state.age_s(taken.intent, taken.time))
        is_down = taken.container in down
        yield RecentRemoval(taken.container, taken.service, taken.last, age_s, is_down)
