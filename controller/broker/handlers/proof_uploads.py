"""Handle ``/trimtab/v1/proofs``: the controller uploads the proof of a commit of a signed source.

An accepted commit is in the journal before anything is admitted by the commit. The same commit is
accepted again without a record: the broker forgets renderings at its end, and at a reload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.broker.deliveries import record_new
from controller.broker.gate import redact
from controller.broker.gate.call import Flow, GateRequest
from controller.broker.gate.commands import ProofRefused, ProofVerified, VerifyProof
from controller.broker.gate.journal_entries import request_of, require_record
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.handlers import trimtab_api
from controller.broker.wire import json_reply
from controller.core.compose.translation.scope import owned_by, settings_of
from controller.core.records.parts import ProofPart, SummaryPart
from controller.core.records.signed_revisions import all_former_names
from controller.model.mutations import SOURCE_ACCEPTED
from controller.model.policy.sections import SignedSource
from controller.model.records import Reply

if TYPE_CHECKING:
    from controller.core.proofs.proven_commit import ProvenCommit


def proofs(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET proofs``: the accepted commit of each signed source, and whether it is rendered."""
    yield from ()
    listed = []
    for rule in call.policy.sources:
        accepted = state.inventory.accepted.get(rule.source)
        made = state.proofs.renderings.get(rule.source)
        listed.append(
            {
                "source": rule.source,
                "namespaces": list(rule.namespaces),
                "commit": "" if accepted is None else accepted.commit,
                "signer": "" if accepted is None else accepted.signer,
                "rendered": "" if made is None else made.proven.commit,
                "unsupported": {} if made is None else dict(made.unsupported),
                **trimtab_api.shown_line(state, rule),
            }
        )
    return json_reply(200, {"sources": listed})


def upload(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST proofs``: verify a proof, record the commit as accepted, and keep its rendering.

    Raises:
        Denied: ``proof.…``; what was accepted before stays.
    """
    name = call.query.get("source", "")
    rule = next((each for each in call.policy.sources if each.source == name), None)
    if rule is None:
        reason = f"the policy has no signed source {redact.text(name)!r:.80}"
        raise Denied("proof.source", reason, "list the Source in the policy's sources", status=404)
    if not call.actor.separated:
        raise Denied(
            "proof.unseparated",
            "controller and operator share a user, so a proof would hold nobody back",
            "start trimtab as root, so that the controller gets a user of its own",
        )
    assert isinstance(call.body, bytes), "the body of a proof isn't parsed"
    anchor, forgotten = _anchor(rule, state), state.proofs.forgotten
    owners = () if rule.owner is None else (rule.owner,)
    compose = owned_by(owners, lambda: settings_of(call.policy))()
    networks = call.policy.networks.names
    result = yield VerifyProof(
        rule,
        call.body,
        anchor,
        networks,
        compose,
        state.inventory.files,
        state.doubted_namespaces,
        all_former_names(state.inventory, rule.namespaces),
    )
    if isinstance(result, ProofRefused):
        # A line by the keys of before a reload could be signed with a key that is revoked now.
        if result.line is not None and state.proofs.forgotten == forgotten:
            state.proofs.lines[name] = result.line
        raise Denied(result.code, redact.text(result.reason), result.remedy, subject=name)
    assert isinstance(result, ProofVerified), f"a proof was answered by {type(result).__name__}"
    proven = result.rendering.proven
    yield from record_new(call, state, result.opened)
    if _anchor(rule, state) != anchor or name in state.proofs.accepting:
        raise Denied("proof.busy", "another commit is being accepted", "try again", status=409)
    _refuse_if_reloaded(call, state, forgotten)
    accepted = state.inventory.accepted.get(name)
    if accepted is None or (accepted.commit, accepted.since) != (proven.commit, rule.since):
        state.proofs.accepting.add(name)
        try:
            yield from _record(call, rule, proven)
        finally:
            state.proofs.accepting.discard(name)
        _refuse_if_reloaded(call, state, forgotten)
    state.proofs.renderings[name] = result.rendering
    state.proofs.lines.pop(name, None)
    return json_reply(200, {"source": name, "commit": proven.commit, "signer": proven.signer})


def _anchor(rule: SignedSource, state: GateState) -> str:
    """Return the commit that a proven commit must descend from."""
    accepted = state.inventory.accepted.get(rule.source)
    is_of_line = accepted is not None and accepted.since == rule.since
    return (accepted.next or accepted.commit) if accepted is not None and is_of_line else rule.since


def _refuse_if_reloaded(call: GateRequest, state: GateState, forgotten: int) -> None:
    """Refuse a rendering by the policy or the keys of before a reload.

    Raises:
        Denied: ``proof.busy``.
    """
    if state.proofs.forgotten != forgotten or state.policy.digest != call.policy.digest:
        raise Denied("proof.busy", "the policy was reloaded meanwhile", "try again", status=409)


def _record(call: GateRequest, rule: SignedSource, proven: ProvenCommit) -> Flow[None]:
    part = ProofPart(
        source=rule.source,
        commit=proven.commit,
        signer=proven.signer,
        key=proven.key,
        since=rule.since,
    )
    summary = SummaryPart(proof=part)
    request = request_of("POST", SOURCE_ACCEPTED, rule.source, summary.members)
    yield from require_record("operator", call.by, request)
