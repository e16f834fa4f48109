"""The act ``service.moved`` of the route ``POST /trimtab/v1/records``."""

from __future__ import annotations

from controller.broker import signed_acts
from controller.broker.gate.call import Flow, GateRequest
from controller.broker.gate.journal_entries import request_of, require_record
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.guards import conflicts, disruption_budget
from controller.broker.wire import json_reply
from controller.core.admission.service_move import FORM, PASSING, judge_move, read_move, subject_of
from controller.model.mutations import SERVICE_MOVED
from controller.model.records import ALLOW, Reply


def move_service(call: GateRequest, state: GateState, body: dict[str, object]) -> Flow[Reply]:
    """Record that a service's containers go on under another name. No request reaches the engine.

    Raises:
        Denied: a fact of the inventory or the policy is against the move.
    """
    asked = read_move(body)
    if isinstance(asked, str):
        raise Denied(
            "body.invalid", f"the move can't be recorded: {asked}", f"send {FORM}", status=400
        )
    proof = signed_acts.proof_of_move(call, state, asked.target)
    # Mutations are judged one at a time, so two requests can't use up one approval.
    approval = disruption_budget.approval_of(call, state, subject_of(asked, state.inventory))
    findings = judge_move(
        asked,
        state.inventory,
        role=call.actor.role,
        policy=call.policy,
        names_in_use=conflicts.names_in_use(state),
        approved=approval is not None,
    )
    for finding in findings:
        status = 409 if finding.rule in PASSING else 403
        raise Denied(
            finding.rule, finding.reason, finding.remedy, status=status, subject=str(asked.target)
        )
    summary = asked.summary(proof)
    request = request_of("POST", SERVICE_MOVED, str(asked.target), summary)
    used = None if approval is None else disruption_budget.with_approval(ALLOW, approval)
    yield from require_record("operator", call.by, request, verdict=used)
    return json_reply(200, {"id": call.id})
